"""FP8, NVFP4 and MX: floats of 4 to 8 bits with scales, whatever a package calls its tensors.

References:
    Micikevicius et al. 2022, arXiv:2209.05433 (FP8); Rouhani et al. 2023, arXiv:2310.10537 (MX); NVIDIA 2025,
    "Introducing NVFP4".
"""

import ml_dtypes
import numpy as np

from rdlib.checkpoints.affine import Levels, TwoLevel
from rdlib.checkpoints.config_groups import FLOATS
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, stored, unpacked
from rdlib.checkpoints.words import split_bytes
from rdlib.code.code import Code
from rdlib.models.weight import block_length


def floats(parts: LayerTensors, suffix: str, bits: int) -> np.ndarray:
    """The patterns of floats, uint8 (out, in): two of 4 bits a byte, the first in the lower half; four of 6 in three.

    Raises:
        ValueError: the tensor is missing, of another type, or holds NaN.
    """
    if bits == 8:
        return parts.patterns(suffix, "float8_e4m3fn", dimensions=2)
    return split_bytes(parts.patterns(suffix, "uint8", dimensions=2), bits)


def read_fp8(
    parts: LayerTensors,
    method: str,
    scale: str,
    block: tuple[int, int] | None = None,
    decoder: type[Levels] = Levels,
    dtype: str = "",
) -> EncodedLayer:
    """Floats e4m3 of ``weight`` with a scale for the matrix, for each row, or for each block.

    Args:
        parts: of the layer.
        method: name in tables and plots.
        scale: name of the tensor with the scales.
        block: (out, in) that share one; where None, the shape of the scales says which.
        decoder: what multiplies.
        dtype: that products are rounded to; that of the scales where it is empty.

    Raises:
        ValueError: a tensor is missing, of another type or shape, or holds NaN.
    """
    index, s = floats(parts, "weight", 8), parts.floats(scale)
    tile = block or _tile(index.shape, s.shape)
    if min(tile) < 1:
        raise ValueError(f"A scale of {' × '.join(map(str, tile))} weights is none.")
    tiles = tuple(-(-n // length) for n, length in zip(index.shape, tile, strict=True))
    s = parts.tiled(scale, tiles, f"a scale for {' × '.join(map(str, tile))}")
    streams = {"index": unpacked(index, 8), "scale": stored(s)}
    return EncodedLayer(Code(index.shape, streams), decoder(8, method, "e4m3", tile, dtype))


def _tile(shape: tuple[int, int], scales: tuple[int, ...]) -> tuple[int, int]:
    """How many outputs and inputs share one of some scales."""
    (rows, columns), lengths = shape, [n for n in scales if n != 1]
    if len(lengths) == 2:
        return block_length(rows, lengths[0]) or 1, block_length(columns, lengths[1]) or 1
    return (1 if lengths else rows), columns


def read_nvfp4(
    parts: LayerTensors,
    method: str,
    names: tuple[str, str, str],
    size: int,
    decoder: type[Levels] = TwoLevel,
    element: str = "e2m1",
) -> EncodedLayer:
    """Floats e2m1 with scales e4m3 for ``size`` inputs, and one float32 for the matrix; products become bfloat16.

    Args:
        parts: of the layer.
        method: name in tables and plots.
        names: of the tensors with the floats, their scales, and the scale of scales.
        size: of a group.
        decoder: what the last of these does.
        element: whether there are two zeros, see :data:`rdlib.checkpoints.affine.LEVELS`.

    Raises:
        ValueError: a tensor is missing, of another type or shape, or holds NaN, or the last is not positive.
    """
    index = floats(parts, names[0], 4)
    scale = parts.patterns(names[1], "float8_e4m3fn", dimensions=2).view(ml_dtypes.float8_e4m3fn)
    parts.expect(names[1], scale, (len(index), -(-index.shape[1] // size)), f"a scale for {size} inputs")
    S = parts.tiled(names[2], (1,), "one scale of scales").astype(np.float32)
    if not S[0] > 0:
        raise ValueError(f"{parts.name(names[2])} is {float(S[0])}, which is not positive.")
    streams = {"index": unpacked(index, 4), "scale": stored(scale), "scale_scale": stored(S)}
    return EncodedLayer(Code(index.shape, streams), decoder(4, method, element, (1, size), "bfloat16"))


def with_reciprocal(code: Code) -> dict[str, Code]:
    """What a code of NVFP4 is to a package that multiplies where the other divides; nothing of another code."""
    if "scale_scale" not in code.streams:
        return {}
    other = {"scale_scale": stored(1 / code["scale_scale"])}
    return {"the reciprocal of its scale of scales": Code(code.shape, dict(code.streams) | other)}


def read_mx(
    parts: LayerTensors, method: str, names: tuple[str, str], bits: int, size: int = 32
) -> EncodedLayer:
    """Floats of 4, 6 or 8 bits whose scales are powers of two; products become bfloat16.

    Args:
        parts: of the layer.
        method: name in tables and plots.
        names: of the tensors with the floats and with their scales.
        bits: of a float.
        size: of a group.

    Raises:
        ValueError: a tensor is missing, of another type or shape, or holds NaN.
    """
    index, scale = floats(parts, names[0], bits), parts.exponents(names[1])
    parts.expect(names[1], scale, (len(index), -(-index.shape[1] // size)), f"a scale for {size} inputs")
    streams = {"index": unpacked(index, bits), "scale": stored(scale)}
    return EncodedLayer(Code(index.shape, streams), Levels(bits, method, FLOATS[bits], (1, size), "bfloat16"))
