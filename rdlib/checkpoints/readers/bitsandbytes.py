"""bitsandbytes checkpoints: NF4, FP4 (each with or without double quantization) and LLM.int8.

A 4-bit layer is stored as weight (two weights a byte, the first in the upper half, row after row), weight.absmax
(float32 a block, or 8 bits and weight.nested_absmax), weight.quant_map, and a JSON object as bytes in
weight.quant_state.bitsandbytes__nf4 or …__fp4.  An 8-bit layer is stored as weight (int8) and SCB (a float32 a row).
The codes are those of :class:`rdlib.quantizers.NF4`, ``FP4``, ``DoubleQuantized`` and ``LLMInt8``.

Weights are decoded in float32; those of 4 bits are then rounded to the type that the layer had, as bitsandbytes
does.  Tables of levels are public and cost nothing, though files hold them once a layer.

References:
    Dettmers et al. 2023, arXiv:2305.14314, and 2022, arXiv:2208.07339; bitsandbytes 0.50.2, ``QuantState``,
    ``dequantize_4bit`` and ``int8_vectorwise_dequant``.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.code.floats import FLOATS
from rdlib.models.checkpoint import Checkpoint
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.blocks.double_quantized import DYNAMIC, NESTED_BLOCK, DoubleQuantized
from rdlib.quantizers.blocks.llm_int8 import LLMInt8
from rdlib.quantizers.blocks.tables import FP4, NF4

STATE = "weight.quant_state."
DTYPES = ("float16", "bfloat16", "float32")
TABLES = {"nf4": NF4, "fp4": FP4}
INDEX_OF_BITS = {  # which level of the rising table four bits stand for; those of FP4 are sign, exponent, mantissa
    "nf4": np.arange(16, dtype=np.uint8),
    "fp4": np.array([7, 9, 14, 15, 12, 13, 10, 11, 8, 6, 1, 0, 3, 2, 5, 4], np.uint8),
}


@dataclass(frozen=True)
class Rounded(Decoder):
    """Ŵ of a quantizer, rounded to the float type that the weights had.

    Args:
        inner: the quantizer.
        dtype: float16, bfloat16 or float32.
    """

    inner: Quantizer
    dtype: str

    @property
    def bits(self) -> int:
        return self.inner.bits

    @property
    def method(self) -> str:
        return f"bitsandbytes {self.inner.method}"

    def reconstruct(self, code: Code) -> np.ndarray:
        return self.inner.decode(code).astype(FLOATS[self.dtype]).astype(np.float32)


@dataclass(frozen=True)
class DoubleQuantizedByMap(DoubleQuantized):
    """Double quantization with a map of levels of its own, which is paid for: stream ``levels`` (256 float32).

    Files are read with the map that they contain, usually the public one.
    """

    def levels(self, code: Code) -> np.ndarray:
        return code["levels"]


class BitsAndBytes4(Reader):
    """Layers of 4 bits.

    Args:
        kind: nf4 or fp4.
    """

    quant_methods: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    marks: ClassVar[tuple[str, ...]] = (
        "weight.absmax",
        "weight.quant_map",
        *(f"{STATE}bitsandbytes__{kind}" for kind in ("nf4", "fp4")),
    )
    streams: ClassVar[Mapping[str, str]] = {
        "weight": "index",
        "weight.absmax": "scale",
        "weight.nested_absmax": "scale_scale",
        "weight.quant_map": "table",
        "weight.nested_quant_map": "levels",
    }

    bits = 4

    def __init__(self, kind: str):
        self.kind = kind

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self | None:
        settings = checkpoint.settings
        if settings.quant_method not in cls.quant_methods or settings.get("load_in_8bit"):
            return None
        return cls(settings.one_of("bnb_4bit_quant_type", None, *TABLES) or "fp4")

    @property
    def method(self) -> str:
        return f"bitsandbytes {TABLES[self.kind].family}"

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        return tuple(self._state(parts)["shape"])

    def stream(self, suffix: str) -> str:
        return "state" if suffix.startswith(STATE) else super().stream(suffix)

    def read(self, parts: LayerTensors) -> EncodedLayer:
        state = self._state(parts)
        rows, columns = state["shape"]
        size, count = state["blocksize"], rows * columns
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
        quantizer, scales = self._scales(parts, state, -(-count // size))
        return EncodedLayer(
            Code((rows, columns), {"index": index} | scales), Rounded(quantizer, state["dtype"])
        )

    def _scales(self, parts: LayerTensors, state: dict, blocks: int) -> tuple[Quantizer, dict[str, Stream]]:
        """The quantizer that decodes a layer, and its scales."""
        size, reason = state["blocksize"], f"blocksize = {state['blocksize']}"
        inner = TABLES[self.kind](size=size)
        if "nested_offset" not in state:
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
            "scale_mean": Stream.floats(np.float32([state["nested_offset"]]), "float32"),
        }
        if np.array_equal(levels, DYNAMIC):
            return DoubleQuantized(inner), scales
        return DoubleQuantizedByMap(inner), scales | {"levels": Stream.floats(levels, "float32")}

    def _state(self, parts: LayerTensors) -> dict:
        """The JSON object of a layer, with what decoding needs."""
        kinds = [suffix.removeprefix(STATE) for suffix in parts.suffixes if suffix.startswith(STATE)]
        if kinds != [f"bitsandbytes__{self.kind}"]:
            found = " and ".join(parts.name(STATE + kind) for kind in kinds) or "no state"
            raise ValueError(
                f"{parts.name('weight')} has {found}, but bnb_4bit_quant_type = {self.kind!r} needs "
                f"{STATE}bitsandbytes__{self.kind}."
            )
        name = STATE + kinds[0]
        try:
            state = json.loads(parts.integers(name, "uint8", dimensions=1).tobytes())
            rows, columns = state["shape"]
            sizes = [rows, columns, state["blocksize"], state.get("nested_blocksize", NESTED_BLOCK)]
            offset = float(state.get("nested_offset", 0))
            kind, dtype = state["quant_type"], state["dtype"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{parts.name(name)} is no state of a layer: {error!r}.") from None
        counts = all(type(size) is int and size > 0 for size in sizes) and sizes[3] == NESTED_BLOCK
        if not (counts and np.isfinite(offset) and kind == self.kind and dtype in DTYPES):
            raise ValueError(f"{parts.name(name)} describes the layer as {state}, which rdlib does not read.")
        return state


class BitsAndBytes8(Reader):
    """Layers of 8 bits, one scale a row."""

    quant_methods: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    marks: ClassVar[tuple[str, ...]] = ("SCB", "weight_format")
    streams: ClassVar[Mapping[str, str]] = {"weight": "index", "SCB": "scale", "weight_format": "state"}
    method = "bitsandbytes int8"
    bits = 8

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self | None:
        settings = checkpoint.settings
        return cls() if settings.quant_method in cls.quant_methods and settings.get("load_in_8bit") else None

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        return parts.shape("weight", 2)

    def read(self, parts: LayerTensors) -> EncodedLayer:
        weight = parts.integers("weight", "int8", dimensions=2)
        scale = parts.floats("SCB", dimensions=1)
        parts.expect("SCB", scale, (len(weight),), "one scale a row of weight")
        if "weight_format" in parts and (form := int(parts.integers("weight_format", "uint8", dimensions=0))):
            raise ValueError(
                f"{parts.name('weight_format')} is {form}; rdlib reads 0, rows one after the other."
            )
        index = (weight.view(np.uint8) + np.uint8(128)).astype(np.uint8)
        streams = {"index": Stream.fixed(index, 256), "scale": Stream.floats(scale, "float32")}
        return EncodedLayer(Code(weight.shape, streams), Rounded(LLMInt8(), "float32"))
