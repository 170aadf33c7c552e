"""Numbers of few bits with scales and zero points in tiles, as compressed-tensors lays them out.

Fields of 3, 5, 6 and 7 bits were packed loosely before version 0.18, and densely since: only the shapes show which.
``weight_g_idx`` is the group of every input (actorder "group", before 0.20); −1 in it means that there is none.

References:
    https://github.com/vllm-project/compressed-tensors, 0.20.0 and 0.14.0, ``forward_helpers.py``.
"""

import numpy as np

from rdlib.checkpoints.affine import ActOrdered, ActOrderedLevels, Affine, Levels
from rdlib.checkpoints.config_groups import Scheme
from rdlib.checkpoints.narrow_floats import floats
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, stored, unpacked
from rdlib.checkpoints.words import unpack, words_for
from rdlib.code.code import Code, Stream

PACKED, SCALE, ZERO, G_IDX = "weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx"
DECODERS = {  # by whether groups are of neighbours, and levels symmetric
    (True, True): Levels,
    (True, False): Affine,
    (False, True): ActOrderedLevels,
    (False, False): ActOrdered,
}


def read_tiles(parts: LayerTensors, method: str, scheme: Scheme, shape: tuple[int, int]) -> EncodedLayer:
    """Integers or floats, a scale for every tile, and zero points where levels are not symmetric.

    Args:
        parts: of the layer.
        method: name in tables and plots.
        scheme: how it is stored.
        shape: (out, in).

    Raises:
        ValueError: a tensor is missing, of another type or shape, or contradicts the settings.
    """
    tile = tuple(length or n for length, n in zip(scheme.tile, shape, strict=True))
    tiles = tuple(-(-n // length) for length, n in zip(tile, shape, strict=True))
    loose = scheme.form == "pack-quantized" and _loose(parts, scheme.bits, shape[1], tiles[0])
    streams = {"index": unpacked(_index(parts, scheme, shape, loose), scheme.bits)}
    streams["scale"] = stored(parts.tiled(SCALE, tiles, f"a scale for {' × '.join(map(str, tile))}"))
    if zero := _zeros(parts, scheme, tiles, loose):
        streams["zero"] = zero
    if g_idx := _groups(parts, scheme, shape[1], tile[1]):
        streams["g_idx"] = g_idx
    decoder = DECODERS["g_idx" not in streams, "zero" not in streams]
    return EncodedLayer(Code(shape, streams), decoder(scheme.bits, method, scheme.element, tile))


def _index(parts: LayerTensors, scheme: Scheme, shape: tuple[int, int], loose: bool) -> np.ndarray:
    if scheme.form == "pack-quantized":
        words = parts.integers(PACKED, "int32", dimensions=2)
        width = words_for(shape[1], scheme.bits, loose=loose)
        parts.expect(PACKED, words, (shape[0], width), f"{shape[1]} fields of {scheme.bits} bits a row")
        return unpack(words, scheme.bits, shape[1], loose=loose)
    if scheme.kind == "float":
        return floats(parts, "weight", scheme.bits)
    return _symbols(parts, "weight", parts.integers("weight", "int8", dimensions=2), scheme.bits)


def _zeros(parts: LayerTensors, scheme: Scheme, tiles: tuple[int, int], loose: bool) -> Stream | None:
    """Symbols of the zero points, (tiles of outputs, tiles of inputs); None where levels are symmetric."""
    if scheme.symmetric:
        if ZERO in parts and parts.octets(ZERO).any():
            raise ValueError(f"{parts.name(ZERO)} is not zero, but the settings say symmetric = true.")
        return None
    if scheme.form == "pack-quantized" and scheme.tile[0]:
        words = parts.integers(ZERO, "int32", dimensions=2)
        height = words_for(tiles[0], scheme.bits, loose=loose)
        parts.expect(ZERO, words, (height, tiles[1]), "a zero point for each scale")
        symbols = unpack(words.T, scheme.bits, tiles[0], loose=loose).T
    else:
        zero = parts.tiled(ZERO, tiles, "a zero point for each scale", "int8")
        symbols = _symbols(parts, ZERO, zero, scheme.bits)
    return Stream.fixed(symbols, 1 << scheme.bits)


def _groups(parts: LayerTensors, scheme: Scheme, inputs: int, size: int) -> Stream | None:
    """The group of every input; None where groups are of neighbours."""
    if G_IDX not in parts:
        if scheme.ordered:
            raise ValueError(f"{parts.name(G_IDX)} is missing, but actorder = 'group' needs it.")
        return None
    group, groups = parts.integers(G_IDX, "int32", "int64", dimensions=1), -(-inputs // size)
    parts.expect(G_IDX, group, (inputs,), "a group for every input")
    if (group == -1).any() or np.array_equal(group, np.arange(inputs) // size):
        return None
    if group.min() < 0 or group.max() >= groups:
        raise ValueError(f"{parts.name(G_IDX)} names a group beyond the {groups} of {SCALE}.")
    if not scheme.ordered:
        raise ValueError(
            f"{parts.name(G_IDX)} puts inputs together that are no neighbours, but the settings do not say actorder = "
            "'group': correct the one that is wrong."
        )
    return Stream.fixed(group, groups)


def _loose(parts: LayerTensors, bits: int, columns: int, rows: int) -> bool:
    """How the fields of a matrix are packed: as the number of words of a row says, or else of a column of zero points.

    Raises:
        ValueError: both packings fit, and differ.
    """
    fits = [x for x in (False, True) if parts.shape(PACKED, 2)[1] == words_for(columns, bits, loose=x)]
    if len(fits) == 2 and rows > 1 and ZERO in parts:
        fits = [x for x in fits if parts.shape(ZERO, 2)[0] == words_for(rows, bits, loose=x)]
    if len(fits) == 2 and 32 % bits and columns > 32 // bits:
        raise ValueError(f"{parts.name(PACKED)} may be packed densely or loosely: its shape fits both.")
    return fits == [True]


def _symbols(parts: LayerTensors, suffix: str, integers: np.ndarray, bits: int) -> np.ndarray:
    """Symbols 0 … 2^bits − 1 of integers around zero."""
    symbols = integers.view(np.uint8) + np.uint8(1 << bits - 1)
    if symbols.max(initial=0) >= 1 << bits:
        raise ValueError(f"{parts.name(suffix)} goes beyond integers of {bits} bits.")
    return symbols
