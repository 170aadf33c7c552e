"""HQQ checkpoints: hqq and transformers write them.

A layer is stored as W_q and, each as a tensor, all that decoding needs: nbits, group_size, axis, shape, packing,
compute_dtype; scale and zero, a float for each group.  In groups W is a matrix V, whose rows are the groups, neighbours
in W (axis 1), or whose columns are (axis 0).  Field k of row i of W_q, the highest bits first, is row k·n + i of V, n
the rows of W_q: fields of a byte, of 3 bits ten in a word of 32.  Those of 5 and 6 bits take a byte each.

ŵ = s·(q − z) with the float z; difference and product are each rounded to compute_dtype.  A layer of 1.58 bits, or one
whose scales are quantized, is refused.

References:
    Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog; hqq 0.2.8.post1, ``HQQLinear`` and ``BitPack``.
"""

import math
from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.float_zeros import FloatZeros
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader, stored
from rdlib.code.code import Code, Stream
from rdlib.models.checkpoint import Checkpoint

WIDTHS = {"8bit_u8": 8, "4bit_u8": 4, "3bit_32": 3, "2bit_u8": 2, "1bit_u8": 1}  # bits of a field
KNOWN = {1: "1bit_u8", 2: "2bit_u8", 3: "3bit_32", 4: "4bit_u8", **dict.fromkeys((5, 6, 8), "8bit_u8")}
DTYPES = ("torch.float16", "torch.bfloat16", "torch.float32")
STATE = (  # the first six are asked for
    *(
        "nbits",
        "group_size",
        "axis",
        "shape",
        "packing",
        "compute_dtype",
        "view_as_float",
        "unpack_view_dtype",
    ),
    *("quant_scale", "quant_zero", "channel_wise", "optimize", "round_zero", "offload_meta"),
    *("encoded_state_dict", "stores_quant_config"),
)


class Hqq(Reader):
    """Layers that each say how they are stored; settings that hqq itself writes name no method."""

    quant_methods: ClassVar[tuple[str, ...]] = ("hqq",)
    marks: ClassVar[tuple[str, ...]] = ("W_q",)
    streams: ClassVar[Mapping[str, str]] = {
        **{"W_q": "index", "scale": "scale", "zero": "zero"},
        **dict.fromkeys(STATE, "state"),
    }

    def __init__(self, checkpoint: Checkpoint):
        layers = (LayerTensors.of(checkpoint, stem) for stem in self.stems(checkpoint.names))
        [(most, _)] = Counter(map(self._decoder, layers)).most_common(1) or [(FloatZeros(4, 64, 1), 0)]
        self.bits, self.method = most.bits, most.method

    @classmethod
    def reads(cls, checkpoint: Checkpoint) -> bool:
        alone = not checkpoint.settings and any(name.endswith(".W_q") for name in checkpoint.names)
        return alone or super().reads(checkpoint)

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        shape = parts.integers("shape", "int64", dimensions=1)
        if len(shape) != 2 or (shape < 1).any() or shape.prod(dtype=float) > 1 << 40:
            raise ValueError(f"{parts.name('shape')} is {shape.tolist()}, and not (out, in).")
        return int(shape[0]), int(shape[1])

    def read(self, parts: LayerTensors) -> EncodedLayer:
        decoder, shape = self._decoder(parts), self.shape(parts)
        packing, dtype = (_text(parts, name) for name in ("packing", "compute_dtype"))
        if packing != KNOWN[decoder.bits] or dtype not in DTYPES:
            raise ValueError(
                f"{parts.stem} is packed as {packing!r} for {dtype!r}, which rdlib does not read."
            )
        groups, rest = divmod(math.prod(shape), decoder.size)
        if rest:
            raise ValueError(f"{parts.name('group_size')} = {decoder.size} does not divide {shape}.")
        V = (groups, decoder.size) if decoder.axis else (decoder.size, groups)
        fields = _fields(parts, packing, V)
        if fields.max(initial=0) >> decoder.bits:
            raise ValueError(f"{parts.name('W_q')} goes beyond {decoder.bits} bits.")
        streams = {"index": Stream.fixed(fields.reshape(shape), 1 << decoder.bits)}
        for name in ("scale", "zero"):
            numbers = parts.tiled(name, (groups,), f"group_size = {decoder.size}")
            if f"torch.{numbers.dtype}" != dtype:
                raise ValueError(f"{parts.name(name)} is {numbers.dtype}, but compute_dtype is {dtype}.")
            streams[name] = stored(numbers)
        return EncodedLayer(Code(shape, streams), decoder)

    def _decoder(self, parts: LayerTensors) -> FloatZeros:
        """The decoder that the tensors of a layer describe.

        Raises:
            ValueError: one is missing, or is not understood.
        """
        for name in ("quant_scale", "quant_zero"):
            if name in parts and parts.integers(name, "uint8", dimensions=0):
                raise ValueError(
                    f"{parts.name(name)} says that scales are quantized, which rdlib does not read."
                )
        bits, size, axis = (
            int(parts.integers(name, "int32", dimensions=0)) for name in ("nbits", "group_size", "axis")
        )
        if bits not in KNOWN or size < 1 or axis not in (0, 1):
            raise ValueError(f"{parts.stem} has nbits = {bits}, group_size = {size}, axis = {axis}.")
        return FloatZeros(bits, size, axis)


def _text(parts: LayerTensors, name: str) -> str:
    """A word that is stored letter by letter."""
    return parts.integers(name, "uint8", dimensions=1).tobytes().decode("latin-1")


def _fields(parts: LayerTensors, packing: str, shape: tuple[int, int]) -> np.ndarray:
    """The symbols of V, uint8, of W_q in whatever type it is stored."""
    bits = WIDTHS[packing]
    word, each = ("<u4", 10) if bits == 3 else ("u1", 8 // bits)
    rows, stored_bytes = -(-shape[0] // each), parts.octets("W_q")
    parts.expect(
        "W_q", stored_bytes, (rows * shape[1] * np.dtype(word).itemsize,), f"{packing} of {shape}, in bytes,"
    )
    words = stored_bytes.view(word).reshape(rows, shape[1])
    shifts = np.arange(each - 1, -1, -1, dtype=word)[:, None, None] * np.array(bits, word)
    fields = (words >> shifts & np.array((1 << bits) - 1, word)).astype(np.uint8)
    return fields.reshape(-1, shape[1])[: shape[0]]
