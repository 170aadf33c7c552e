"""The plain block formats of GGUF, the file format of llama.cpp: Q4_0, Q5_0, Q4_1, Q5_1 and Q8_0.

Ŵ equals that of the ``gguf`` package (its ``quants`` module) on the same weights, bit for bit; there a block never
crosses the end of a row, here the last block of a row may be shorter.

References:
    ggml-org/llama.cpp, ``ggml-quants.c`` (``quantize_row_q4_0_ref`` and its neighbours), as ``gguf`` 0.19.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.quantizers.blocks.blocks import (
    BlockFormat,
    as_indices,
    block_peaks,
    block_ranges,
    reciprocal,
    steps_in_blocks,
    table_weights,
    widths,
)
from rdlib.weights import as_float32


@dataclass(frozen=True)
class _Gguf(BlockFormat):
    """Evenly spaced levels, a float16 or two for each block of a row."""

    @property
    def method(self) -> str:
        return f"GGUF {super().method}"

    @property
    def levels(self) -> int:
        """How many levels a block has."""
        return 1 << self.bits


@dataclass(frozen=True)
class _SignedMaximum(_Gguf):
    """ŵ = d·(q − 2^(b−1)), q = 0 … 2^b − 1, d = −w*/2^(b−1), w* the weight of largest magnitude with its sign.

    w* is the level at the end of the longer half of the grid, so that all 2^b levels are used, and none is lost to
    symmetry.  Streams: ``index`` (q, b bits), ``scale`` (d, float16: 16 / size bits a weight).
    """

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values, half = as_float32(W), self.levels // 2
        step = block_peaks(values, self.size) / np.float32(-half)
        steps = np.floor(steps_in_blocks(values, reciprocal(step), self.size, shift=half + 0.5))
        return Code(values.shape, {"index": as_indices(steps, self.levels), "scale": Stream.floats(step)})

    def reconstruct(self, code: Code) -> np.ndarray:
        table = np.arange(self.levels, dtype=np.float32) - self.levels // 2
        return table_weights(code["index"], code["scale"], table, self.size)


@dataclass(frozen=True)
class Q4_0(_SignedMaximum):
    """ŵ = d·(q − 8), q = 0 … 15, d = −w*/8, w* the weight of largest magnitude: 16 levels, 4.5 bits at block 32.

    Streams: ``index`` (q, 4 bits), ``scale`` (d, float16).
    """

    family: ClassVar[str] = "Q4_0"


@dataclass(frozen=True)
class Q5_0(_SignedMaximum):
    """ŵ = d·(q − 16), q = 0 … 31, d = −w*/16, w* the weight of largest magnitude: 32 levels, 5.5 bits at block 32.

    Streams: ``index`` (q, 5 bits), ``scale`` (d, float16).
    """

    bits: int = 5
    family: ClassVar[str] = "Q5_0"


@dataclass(frozen=True)
class _Range(_Gguf):
    """ŵ = d·q + m, q = 0 … 2^b − 1, m the smallest weight of a block, d = (largest − m)/(2^b − 1).

    Streams: ``index`` (q, b bits), ``scale`` (d, float16), ``minimum`` (m, float16): 32 / size bits a weight.
    """

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        low, high = block_ranges(values, self.size)
        step = widths(low, high) / np.float32(self.levels - 1)
        steps = np.floor(steps_in_blocks(values, reciprocal(step), self.size, low, 0.5))
        streams = {
            "index": as_indices(steps, self.levels),
            "scale": Stream.floats(step),
            "minimum": Stream.floats(low),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        table = np.arange(self.levels, dtype=np.float32)
        weights = table_weights(code["index"], code["scale"], table, self.size)
        weights += table_weights(np.zeros_like(code["index"]), code["minimum"], np.ones(1), self.size)
        return weights


@dataclass(frozen=True)
class Q4_1(_Range):
    """ŵ = d·q + m, q = 0 … 15, from the smallest to the largest weight of a block: 16 levels, 5 bits at block 32.

    Streams: ``index`` (q, 4 bits), ``scale`` (d, float16), ``minimum`` (m, float16).
    """

    family: ClassVar[str] = "Q4_1"


@dataclass(frozen=True)
class Q5_1(_Range):
    """ŵ = d·q + m, q = 0 … 31, from the smallest to the largest weight of a block: 32 levels, 6 bits at block 32.

    Streams: ``index`` (q, 5 bits), ``scale`` (d, float16), ``minimum`` (m, float16).
    """

    bits: int = 5
    family: ClassVar[str] = "Q5_1"


@dataclass(frozen=True)
class Q8_0(_Gguf):
    """ŵ = d·q, |q| ≤ 127, d = max |w| / 127: 8.5 bits at block 32.

    It spends 8 bits on 255 levels.  Streams: ``index`` (q + 128, 8 bits), ``scale`` (d, float16).
    """

    bits: int = 8
    family: ClassVar[str] = "Q8_0"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        step = np.abs(block_peaks(values, self.size)) / np.float32(127)
        steps = 128 + _half_away(steps_in_blocks(values, reciprocal(step), self.size))
        return Code(values.shape, {"index": as_indices(steps, 256), "scale": Stream.floats(step)})

    def reconstruct(self, code: Code) -> np.ndarray:
        return table_weights(code["index"], code["scale"], np.arange(-128.0, 128.0), self.size)


def _half_away(x: np.ndarray) -> np.ndarray:
    """The nearest integer, halves away from zero, as C rounds."""
    size = np.abs(x)
    whole = np.floor(size)
    return np.copysign(whole + np.floor(2 * (size - whole)), x)
