"""bitsandbytes checkpoints of 4 bits: NF4 and FP4, each with or without double quantization.

A layer is stored as weight (two weights a byte, the first in the upper half, row after row), weight.absmax (float32 a
block, or 8 bits and weight.nested_absmax), weight.quant_map, and a state (:mod:`rdlib.checkpoints.quant_state`).  The
codes are those of :class:`rdlib.quantizers.NF4`, ``FP4`` and ``DoubleQuantized``.

Weights are decoded in float32 and rounded to the type that the layer had, as bitsandbytes does.  Tables of levels are
public and cost nothing, though files hold them once a layer.

References:
    Dettmers et al. 2023, arXiv:2305.14314; bitsandbytes 0.50.2, ``QuantState`` and ``dequantize_4bit``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.quant_state import STATES, QuantState
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.checkpoints.rounded import Rounded
from rdlib.code.code import Code, Stream
from rdlib.models.checkpoint import Checkpoint
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.blocks.double_quantized import DYNAMIC, NESTED_BLOCK, DoubleQuantized
from rdlib.quantizers.blocks.tables import FP4, NF4

TABLES = {"nf4": NF4, "fp4": FP4}
INDEX_OF_BITS = {  # which level of the rising table four bits stand for; those of FP4 are sign, exponent, mantissa
    "nf4": np.arange(16, dtype=np.uint8),
    "fp4": np.array([7, 9, 14, 15, 12, 13, 10, 11, 8, 6, 1, 0, 3, 2, 5, 4], np.uint8),
}


@dataclass(frozen=True)
class DoubleQuantizedByMap(DoubleQuantized):
    """Double quantization with a map of levels of its own, which is paid for: stream ``levels`` (256 float32).

    Files are read with the map that they contain, usually the public one.
    """

    def levels(self, code: Code) -> np.ndarray:
        return code["levels"]


class BitsAndBytes4(Reader):
    """Layers of 4 bits."""

    quant_methods: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    marks: ClassVar[tuple[str, ...]] = ("weight.absmax", "weight.quant_map", *STATES)
    streams: ClassVar[Mapping[str, str]] = {
        "weight": "index",
        "weight.absmax": "scale",
        "weight.nested_absmax": "scale_scale",
        "weight.quant_map": "table",
        "weight.nested_quant_map": "levels",
        **dict.fromkeys(STATES, "state"),
    }

    bits = 4

    def __init__(self, checkpoint: Checkpoint):
        self.kind = checkpoint.settings.one_of("bnb_4bit_quant_type", None, *TABLES) or "fp4"
        self.method = f"bitsandbytes {TABLES[self.kind].family}"

    @classmethod
    def reads(cls, checkpoint: Checkpoint) -> bool:
        return super().reads(checkpoint) and not checkpoint.settings.get("load_in_8bit")

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        return QuantState.of(parts, self.kind).shape

    def read(self, parts: LayerTensors) -> EncodedLayer:
        state = QuantState.of(parts, self.kind)
        (rows, columns), count = state.shape, math.prod(state.shape)
        levels = parts.floats("weight.quant_map", dimensions=1)
        table, index_of_bits = TABLES[self.kind].table, INDEX_OF_BITS[self.kind]
        if levels.shape != table.shape or not np.allclose(levels, table[index_of_bits], rtol=1e-6, atol=0):
            raise ValueError(f"{parts.name('weight.quant_map')} is not the table of {self.kind}.")
        packed = parts.octets("weight")
        parts.expect(
            "weight", packed, (-(-count // 2),), f"the shape {rows} × {columns} of the state, in bytes,"
        )
        index = index_of_bits[np.stack([packed >> 4, packed & 15], axis=1).ravel()[:count]]
        index = Stream.fixed(index.reshape(rows, columns), len(table))
        quantizer, scales = self._scales(parts, state, -(-count // state.size))
        return EncodedLayer(Code(state.shape, {"index": index} | scales), Rounded(quantizer, state.dtype))

    def _scales(
        self, parts: LayerTensors, state: QuantState, blocks: int
    ) -> tuple[Quantizer, dict[str, Stream]]:
        """The quantizer that decodes a layer, and its scales."""
        reason, inner = f"blocksize = {state.size}", TABLES[self.kind](size=state.size)
        if state.offset is None:
            absmax = parts.floats("weight.absmax", dimensions=1)
            parts.expect("weight.absmax", absmax, (blocks,), reason)
            return inner, {"scale": Stream.floats(absmax, "float32")}
        absmax = parts.integers("weight.absmax", "uint8", dimensions=1)
        parts.expect("weight.absmax", absmax, (blocks,), reason)
        largest = parts.floats("weight.nested_absmax", dimensions=1)
        parts.expect(
            "weight.nested_absmax",
            largest,
            (-(-blocks // NESTED_BLOCK),),
            f"nested_blocksize = {NESTED_BLOCK}",
        )
        levels = parts.floats("weight.nested_quant_map", dimensions=1)
        parts.expect("weight.nested_quant_map", levels, DYNAMIC.shape, "an index of 8 bits")
        scales = {
            "scale": Stream.fixed(absmax, len(DYNAMIC)),
            "scale_scale": Stream.floats(largest, "float32"),
            "scale_mean": Stream.floats(np.float32([state.offset]), "float32"),
        }
        if np.array_equal(levels, DYNAMIC):
            return DoubleQuantized(inner), scales
        return DoubleQuantizedByMap(inner), scales | {"levels": Stream.floats(levels, "float32")}
