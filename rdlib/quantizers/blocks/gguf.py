"""The plain block formats of GGUF, the file format of llama.cpp: Q4_0, Q5_0, Q4_1, Q5_1 and Q8_0.

Ŵ equals that of the ``gguf`` package (its ``quants`` module) on the same weights, bit for bit; there a block never
crosses the end of a row, here the last block of a row may be shorter.

Source: ggml-org/llama.cpp, ``ggml-quants.c`` (``quantize_row_q4_0_ref`` and its neighbours), as ``gguf`` 0.19.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit, prange

from rdlib.code.code import Code, Stream
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.blocks.blocks import (
    as_size,
    block_peaks,
    block_ranges,
    reciprocal,
    table_weights,
    widths,
)
from rdlib.weights import as_float32


@dataclass(frozen=True)
class _Gguf(Quantizer):
    """Evenly spaced levels, a float16 or two for each block of a row.

    Args:
        bits: the nominal rate of the format.
        size: weights in a block; GGUF has 32.

    Raises:
        ValueError: ``bits`` is another rate, or ``size`` is less than 1.
    """

    bits: int
    size: int = 32
    family: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        as_size(self.size)

    @property
    def method(self) -> str:
        return f"GGUF {self.family} g{self.size}"

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

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        values, half = as_float32(W), self.levels // 2
        step = block_peaks(values, self.size) / np.float32(-half)
        zero, shift = np.zeros_like(step), np.float32(half + 0.5)
        index = _truncated_steps(values, zero, reciprocal(step), shift, self.levels, self.size)
        return Code(values.shape, {"index": Stream.fixed(index, self.levels), "scale": Stream.floats(step)})

    def reconstruct(self, code: Code) -> np.ndarray:
        table = np.arange(self.levels, dtype=np.float32) - self.levels // 2
        return table_weights(code["index"], code["scale"], table, self.size)


@dataclass(frozen=True)
class Q4_0(_SignedMaximum):
    """ŵ = d·(q − 8), q = 0 … 15, d = −w*/8, w* the weight of largest magnitude: 16 levels, 4.5 bits at block 32.

    Streams: ``index`` (q, 4 bits), ``scale`` (d, float16).
    """

    bits: int = 4
    bits_allowed: ClassVar[range] = range(4, 5)
    family: ClassVar[str] = "Q4_0"


@dataclass(frozen=True)
class Q5_0(_SignedMaximum):
    """ŵ = d·(q − 16), q = 0 … 31, d = −w*/16, w* the weight of largest magnitude: 32 levels, 5.5 bits at block 32.

    Streams: ``index`` (q, 5 bits), ``scale`` (d, float16).
    """

    bits: int = 5
    bits_allowed: ClassVar[range] = range(5, 6)
    family: ClassVar[str] = "Q5_0"


@dataclass(frozen=True)
class _Range(_Gguf):
    """ŵ = d·q + m, q = 0 … 2^b − 1, m the smallest weight of a block, d = (largest − m)/(2^b − 1).

    Streams: ``index`` (q, b bits), ``scale`` (d, float16), ``minimum`` (m, float16): 32 / size bits a weight.
    """

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        values = as_float32(W)
        low, high = block_ranges(values, self.size)
        step = widths(low, high) / np.float32(self.levels - 1)
        index = _truncated_steps(values, low, reciprocal(step), np.float32(0.5), self.levels, self.size)
        streams = {
            "index": Stream.fixed(index, self.levels),
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

    bits: int = 4
    bits_allowed: ClassVar[range] = range(4, 5)
    family: ClassVar[str] = "Q4_1"


@dataclass(frozen=True)
class Q5_1(_Range):
    """ŵ = d·q + m, q = 0 … 31, from the smallest to the largest weight of a block: 32 levels, 6 bits at block 32.

    Streams: ``index`` (q, 5 bits), ``scale`` (d, float16), ``minimum`` (m, float16).
    """

    bits: int = 5
    bits_allowed: ClassVar[range] = range(5, 6)
    family: ClassVar[str] = "Q5_1"


@dataclass(frozen=True)
class Q8_0(_Gguf):
    """ŵ = d·q, |q| ≤ 127, d = max |w| / 127: 8.5 bits at block 32.

    It spends 8 bits on 255 levels.  Streams: ``index`` (q + 128, 8 bits), ``scale`` (d, float16).
    """

    bits: int = 8
    bits_allowed: ClassVar[range] = range(8, 9)
    family: ClassVar[str] = "Q8_0"

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        values = as_float32(W)
        step = np.abs(block_peaks(values, self.size)) / np.float32(127)
        index = _rounded_steps(values, reciprocal(step), self.size)
        return Code(values.shape, {"index": Stream.fixed(index, 256), "scale": Stream.floats(step)})

    def reconstruct(self, code: Code) -> np.ndarray:
        return table_weights(code["index"], code["scale"], np.arange(-128.0, 128.0), self.size)


@njit(parallel=True, cache=True)
def _truncated_steps(
    rows: np.ndarray, low: np.ndarray, inverse: np.ndarray, shift: float, levels: int, width: int
) -> np.ndarray:
    """⌊(w − low)·inverse + shift⌋, from 0 to levels − 1, uint8; ``low`` and ``inverse`` for each block."""
    blocks = inverse.shape[1]
    index = np.empty(rows.shape, np.uint8)
    for b in prange(inverse.size):
        i, g = b // blocks, b % blocks
        w, q = rows[i, g * width : (g + 1) * width], index[i, g * width : (g + 1) * width]
        for j in range(len(w)):
            steps = np.floor((w[j] - low[i, g]) * inverse[i, g] + shift)
            q[j] = np.uint8(min(max(steps, np.float32(0)), np.float32(levels - 1)))
    return index


@njit(parallel=True, cache=True)
def _rounded_steps(rows: np.ndarray, inverse: np.ndarray, width: int) -> np.ndarray:
    """round(w·inverse) + 128, halves away from zero, uint8; ``inverse`` for each block."""
    blocks = inverse.shape[1]
    index = np.empty(rows.shape, np.uint8)
    for b in prange(inverse.size):
        i, g = b // blocks, b % blocks
        w, q = rows[i, g * width : (g + 1) * width], index[i, g * width : (g + 1) * width]
        for j in range(len(w)):
            steps = abs(w[j] * inverse[i, g])
            whole = np.floor(steps)
            nearest = whole + np.floor(np.float32(2) * (steps - whole))
            q[j] = np.uint8(np.float32(128) + np.copysign(nearest, w[j]))
    return index
