"""Blocks of neighbouring weights that share a scale: their extremes, the nearest level of a table, and back.

Every function takes rows of float32 and the ``width`` of a block; the last block of a row may be shorter.  Blocks
are independent, so that the number of threads does not change a result.  Arithmetic stays in float32, in the order
of the packages that the formats come from, so that Ŵ equals theirs to the last bit.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit, prange

from rdlib.code.code import Stream
from rdlib.quantizers.base import Quantizer


@dataclass(frozen=True)
class BlockFormat(Quantizer):
    """A format of another package, with a scale for every few weights.

    Args:
        bits: the nominal rate; most formats have one.
        size: weights in a block.

    Raises:
        ValueError: the format does not have that rate, or ``size`` is less than 1.
    """

    bits: int = 4
    size: int = 32
    family: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 1:
            raise ValueError(f"A block holds at least 1 weight, not {self.size}.")

    @property
    def bits_allowed(self) -> range:
        return range(type(self).bits, type(self).bits + 1)

    @property
    def method(self) -> str:
        return f"{self.family} g{self.size}"


def reciprocal(scales: np.ndarray, numerator: float = 1) -> np.ndarray:
    """n·(1 / s) in float32, and 0 where that is not finite: what is too small to be scaled becomes zero."""
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.float32(numerator) * (
            1 / scales.astype(np.float32)
        )  # rounded twice, as in torch's n / s
    return np.where(np.isfinite(inverse), inverse, np.float32(0))


@njit(parallel=True, cache=True)
def block_peaks(rows: np.ndarray, width: int) -> np.ndarray:
    """The weight of largest magnitude in each block, with its sign; of equals the first.

    Returns:
        float32, (rows, ⌈columns / width⌉).
    """
    blocks = -(-rows.shape[1] // width)
    peaks = np.zeros((rows.shape[0], blocks), np.float32)
    for b in prange(peaks.size):
        i, g = b // blocks, b % blocks
        for w in rows[i, g * width : (g + 1) * width]:
            if abs(w) > abs(peaks[i, g]):
                peaks[i, g] = w
    return peaks


@njit(parallel=True, cache=True)
def block_ranges(rows: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest weight of each block, each float32 (rows, ⌈columns / width⌉)."""
    blocks = -(-rows.shape[1] // width)
    low, high = np.empty((2, rows.shape[0], blocks), np.float32)
    for b in prange(low.size):
        i, g = b // blocks, b % blocks
        low[i, g] = high[i, g] = rows[i, g * width]
        for w in rows[i, g * width : (g + 1) * width]:
            low[i, g], high[i, g] = min(low[i, g], w), max(high[i, g], w)
    return low, high


def widths(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """High − low, but no more than the largest float32, so that it stays finite and a narrower format refuses it."""
    with np.errstate(over="ignore"):
        return np.minimum(high - low, np.finfo(np.float32).max)


@njit(parallel=True, cache=True)
def table_indices(rows: np.ndarray, inverse: np.ndarray, bounds: np.ndarray, width: int) -> np.ndarray:
    """How many bounds lie below w·inverse, uint8: the index of its cell of a table.

    Args:
        rows: float32 (rows, columns).
        inverse: of the scale of each block, float32 (rows, ⌈columns / width⌉).
        bounds: between neighbouring levels, at most 255 of them, float32.
        width: weights in a block.
    """
    blocks = inverse.shape[1]
    index = np.zeros(rows.shape, np.uint8)
    for b in prange(inverse.size):
        i, g = b // blocks, b % blocks
        w, q = rows[i, g * width : (g + 1) * width], index[i, g * width : (g + 1) * width]
        for bound in bounds:  # a block at a time, so that many weights are compared at once
            for j in range(len(w)):
                q[j] += bound < w[j] * inverse[i, g]
    return index


def steps_in_blocks(
    rows: np.ndarray,
    inverse: np.ndarray,
    width: int,
    low: np.ndarray | float = 0,
    shift: np.ndarray | float = 0,
) -> np.ndarray:
    """(w − low)·inverse + shift, float32: how many steps above the lowest level each weight is, not yet rounded.

    Args:
        rows: float32 (rows, columns).
        inverse: steps per unit of w of each block, float32 (rows, ⌈columns / width⌉).
        width: weights in a block.
        low: of each block, or of all.
        shift: of each block, or of all.
    """
    low, shift = (np.broadcast_to(np.float32(x), inverse.shape).copy() for x in (low, shift))
    return _steps_in_blocks(rows, inverse, low, shift, width)


@njit(parallel=True, cache=True)
def _steps_in_blocks(
    rows: np.ndarray, inverse: np.ndarray, low: np.ndarray, shift: np.ndarray, width: int
) -> np.ndarray:
    blocks = inverse.shape[1]
    steps = np.empty(rows.shape, np.float32)
    for b in prange(inverse.size):
        i, g = b // blocks, b % blocks
        w, x = rows[i, g * width : (g + 1) * width], steps[i, g * width : (g + 1) * width]
        for j in range(len(w)):
            x[j] = (w[j] - low[i, g]) * inverse[i, g] + shift[i, g]
    return steps


def as_indices(steps: np.ndarray, levels: int) -> Stream:
    """Whole steps as the indices of so many levels; what lies beyond the ends goes to them."""
    return Stream.fixed(np.clip(steps, 0, levels - 1), levels)


def table_weights(index: np.ndarray, scales: np.ndarray, table: np.ndarray, width: int) -> np.ndarray:
    """ŵ = s·t_q, float32.

    Args:
        index: q, (rows, columns).
        scales: s of each block, rows · ⌈columns / width⌉ of them.
        table: t.
        width: weights in a block.

    Raises:
        ValueError: there are more or fewer scales than blocks, or an index is not of the table.
    """
    blocks = index.shape[0] * -(-index.shape[1] // width)
    if scales.size != blocks:
        raise ValueError(f"The code has {scales.size} scales for {blocks} blocks of {width} weights.")
    if index.dtype.kind != "u":
        raise ValueError(f"The code has an index of {index.dtype}, where a table is read with integers.")
    if index.size and index.max() >= len(table):
        raise ValueError(f"The code has the index {index.max()} for a table of {len(table)} levels.")
    index, scales, table = index.astype(np.uint32), scales.astype(np.float32), table.astype(np.float32)
    return _table_weights(index, scales.ravel(), table, width)


@njit(parallel=True, cache=True)
def _table_weights(index: np.ndarray, scales: np.ndarray, table: np.ndarray, width: int) -> np.ndarray:
    blocks = -(-index.shape[1] // width)
    weights = np.empty(index.shape, np.float32)
    for b in prange(len(scales)):
        i, g = b // blocks, b % blocks
        q, w = index[i, g * width : (g + 1) * width], weights[i, g * width : (g + 1) * width]
        for j in range(len(q)):
            w[j] = scales[b] * table[q[j]]
    return weights
