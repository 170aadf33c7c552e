"""Quantizers with a scale for each row or group: the squared errors of all of them in one pass over the weights.

Each row is widened to float32 once.  While the weights of a group are in the cache, they are rounded to
2¹ … 2⁸ levels for every size of group; nothing but the sums of the errors is written.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from rdlib.census.tensors import row_blocks, widened
from rdlib.code.code import Code, Stream
from rdlib.code.fixed import Fixed
from rdlib.code.floats import Float
from rdlib.code.format import Format
from rdlib.measure import Point, measure
from rdlib.quantizers import FP4, NF4, PerChannel, PerGroup, Quantizer, Uniform
from rdlib.quantizers.granularity import Granularity
from rdlib.weights import BFLOAT16, as_float32

GRANULARITIES: tuple[Granularity, ...] = (
    PerChannel(),
    PerGroup(size=128),
    PerGroup(size=64),
    PerGroup(size=32),
)
BLOCK_FORMATS = (NF4(), FP4())
SMALL = 1 << 16  # so few weights are measured one method at a time: errors of float32 would not average out
PART = 512  # weights whose squared errors are added in float32, before they are added in float64
CELLS = 1 << 10  # of [−1, 1], each leading to a level near it
CHUNK = 1 << 14  # weights that a thread takes at once where rows do not matter
ANY_ORDER = {"nsz", "nnan", "reassoc", "contract"}  # sums of finite numbers, many at once


@dataclass(frozen=True, eq=False)
class Grouped:
    """What one pass over a matrix finds.

    Args:
        points: method, bits, rate, side_rate, mse: one row for every method and rate.
        row_powers: E[w²] of every row, (out,).
    """

    points: list[dict]
    row_powers: np.ndarray


def grouped_points(W: np.ndarray, bits: range = range(1, 9)) -> Grouped:
    """Uniform quantizers per row and per group of 128, 64 and 32, and NF4 and FP4 in blocks of 64.

    Args:
        W: (out, in), finite, of any type of :data:`rdlib.census.tensors.DTYPES`.
        bits: of the uniform quantizers.

    Raises:
        ValueError: a scale does not fit float16.
    """
    quantizers = [Uniform(b, granularity=g) for g in GRANULARITIES for b in bits] + list(BLOCK_FORMATS)
    widths = np.array([max(g.width(W.shape[1]), 1) for g in GRANULARITIES])
    levels, middles = np.array([1 << b for b in bits]), [np.unique(q.table) for q in BLOCK_FORMATS]
    uniform, tables, powers = np.zeros((len(widths), len(bits))), np.zeros(len(BLOCK_FORMATS)), [np.empty(0)]
    for block in row_blocks(W, rows=64):  # so that blocks of 64 weights end with it
        rows = block.view(np.uint16) if block.dtype == BFLOAT16 else as_float32(widened(block))
        errors, peaks, squares = uniform_errors(rows, widths, levels)
        if peaks.size and peaks.max() > np.finfo(np.float16).max:
            raise ValueError(f"{peaks.max():.3g} does not fit float16: choose another format for the scales.")
        uniform += errors.sum(axis=0)
        powers.append(squares / max(W.shape[1], 1))
        flat = np.ascontiguousarray(rows).ravel()
        tables += [table_errors(flat, t, q.size).sum() for t, q in zip(middles, BLOCK_FORMATS, strict=True)]
    row_powers = np.concatenate(powers)
    if W.size <= SMALL:
        return Grouped([as_row(measure(widened(W), quantizer)) for quantizer in quantizers], row_powers)
    sums = [*uniform.ravel(), *tables]
    return Grouped([_point(W, q, e) for q, e in zip(quantizers, sums, strict=True)], row_powers)


def as_row(point: Point) -> dict:
    """What the census keeps of a point."""
    return {key: getattr(point, key) for key in ("method", "bits", "rate", "side_rate", "mse")}


def _point(W: np.ndarray, quantizer: Quantizer, error: float) -> dict:
    """One row from the sum of the squared errors, with the price of a code of the same streams."""
    if isinstance(quantizer, Uniform):
        groups = -(-W.shape[1] // quantizer.granularity.width(W.shape[1]))
        levels, scales = quantizer.levels, _blank((len(W), groups), Float(quantizer.granularity.scale_format))
    else:
        levels, scales = len(quantizer.table), _blank((-(-W.size // quantizer.size),), Float("float32"))
    code = Code(W.shape, {"scale": scales, "index": _blank(W.shape, Fixed(levels))})
    return {
        "method": quantizer.method,
        "bits": quantizer.bits,
        "rate": code.rate,
        "side_rate": code.side_rate,
        "mse": float(error / W.size),
    }


def _blank(shape: tuple[int, ...], form: Format) -> Stream:
    """A stream that nobody reads; its price follows from its size."""
    return Stream(np.broadcast_to(np.uint8(0), shape), form)


def _widen(row: np.ndarray, wide: np.ndarray) -> None:
    """Copy a row of float32, or of bit patterns of bfloat16, into one of float32."""
    raise NotImplementedError("This runs in compiled code only.")


@overload(_widen)
def _(row: np.ndarray, wide: np.ndarray) -> Callable:
    def bfloat16(row: np.ndarray, wide: np.ndarray) -> Callable:
        bits = wide.view(np.uint32)
        for j in range(len(row)):
            bits[j] = np.uint32(row[j]) << np.uint32(16)

    def float32(row: np.ndarray, wide: np.ndarray) -> Callable:
        wide[:] = row

    return bfloat16 if row.dtype == types.uint16 else float32


@njit(parallel=True, cache=True)
def uniform_errors(
    rows: np.ndarray, widths: np.ndarray, levels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Σ (w − ŵ)² of every row for every width of group and number of levels, as :class:`rdlib.quantizers.Uniform`.

    Args:
        rows: (out, in) float32, or uint16: bit patterns of bfloat16.
        widths: of the groups.
        levels: L each.

    Returns:
        The sums, (out, len(widths), len(levels)); the largest |w| of each row; Σ w² of each row.
    """
    sums = np.zeros((len(rows), len(widths), len(levels)))
    peaks, squares = np.zeros(len(rows), np.float32), np.zeros(len(rows))
    for i in prange(len(rows)):
        row, unit = np.empty(rows.shape[1], np.float32), np.empty(rows.shape[1], np.float32)
        power = np.empty(rows.shape[1], np.float32)
        _widen(rows[i], row)
        peaks[i], squares[i] = _peak(row), _power(row)
        for g in range(len(widths)):
            lost = _normalise(row, widths[g], unit, power)
            for k in range(len(levels)):
                sums[i, g, k] = lost + _uniform_error(unit, power, np.float32(levels[k] - 1))
    return sums, peaks, squares


@njit(cache=True, error_model="numpy")
def _normalise(row: np.ndarray, width: int, unit: np.ndarray, power: np.ndarray) -> float:
    """Fill in w / s and s² of every weight, s the float16 scale of its group; return Σ w² where s = 0."""
    lost = 0.0
    for begin in range(0, len(row), width):
        group = row[begin : begin + width]
        scale = rounded_to_float16(_peak(group))
        if scale == 0:
            lost += _power(group)
        inverse = np.float32(1) / scale if scale > 0 else np.float32(0)
        for j in range(begin, begin + len(group)):
            unit[j], power[j] = row[j] * inverse, scale * scale
    return lost


@njit(cache=True, error_model="numpy")
def _uniform_error(unit: np.ndarray, power: np.ndarray, last: np.float32) -> float:
    """Σ (w − ŵ)² with last + 1 even levels from −s to s, from w / s and s²."""
    total = 0.0
    for begin in range(0, len(unit), PART):
        total += _rounding_error(
            unit[begin : begin + PART], power[begin : begin + PART], last / np.float32(2)
        )
    return total * (2 / np.float64(last)) ** 2


@njit(cache=True, fastmath=ANY_ORDER)
def _rounding_error(unit: np.ndarray, power: np.ndarray, half: np.float32) -> np.float32:
    """Σ s²·(x − q)², x = (w/s + 1)·half and q the nearest of 0 … 2·half."""
    total = np.float32(0)
    for j in range(len(unit)):
        x = unit[j] * half + half
        q = min(max(np.floor(x + np.float32(0.5)), np.float32(0)), half + half)
        total += (x - q) * (x - q) * power[j]
    return total


@njit(cache=True)
def rounded_to_float16(x: np.float32) -> np.float32:
    """The float16 nearest to x ≥ 0, the even one of two, as a float32."""
    if x < np.float32(2.0**-14):  # where float16 has even steps
        return np.float32(np.rint(x * np.float32(2.0**24)) * np.float32(2.0**-24))
    bits = np.float32(x).view(np.uint32)
    bits = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.uint32(bits).view(np.float32)


@njit(cache=True, fastmath=ANY_ORDER)
def _peak(w: np.ndarray) -> np.float32:
    """The largest |w|."""
    peak = np.float32(0)
    for j in range(len(w)):
        peak = max(peak, abs(w[j]))
    return peak


@njit(cache=True, fastmath=ANY_ORDER)
def _power(w: np.ndarray) -> float:
    """Σ w²."""
    total = 0.0
    for j in range(len(w)):
        total += np.float64(w[j]) * np.float64(w[j])
    return total


def table_errors(flat: np.ndarray, table: np.ndarray, size: int) -> np.ndarray:
    """Σ (w − ŵ)² of every ``CHUNK`` weights, ŵ the nearest of max |w| · table in blocks of ``size``.

    Args:
        flat: float32, or uint16: bit patterns of bfloat16.
        table: rising float32 levels in [−1, 1], of which no three are within 2 / ``CELLS``.
        size: of a block; divides ``CHUNK``.
    """
    middles = np.append((table[1:] + table[:-1]) / np.float32(2), np.float32(np.inf))
    first = np.searchsorted(middles, np.arange(CELLS + 1) * (2 / CELLS) - 1, side="right")
    return _table_errors(flat, table, middles, np.maximum(first - 1, 0), size)


@njit(parallel=True, cache=True)
def _table_errors(
    flat: np.ndarray, table: np.ndarray, middles: np.ndarray, first: np.ndarray, size: int
) -> np.ndarray:
    sums = np.zeros(-(-len(flat) // CHUNK))
    for p in prange(len(sums)):
        wide = np.empty(min(CHUNK, len(flat) - p * CHUNK), np.float32)
        _widen(flat[p * CHUNK : p * CHUNK + len(wide)], wide)
        for begin in range(0, len(wide), size):
            sums[p] += _table_error(wide[begin : begin + size], table, middles, first)
    return sums


@njit(cache=True, fastmath=ANY_ORDER)
def _table_error(block: np.ndarray, table: np.ndarray, middles: np.ndarray, first: np.ndarray) -> float:
    """The same of one block.  ``first`` leads from x ∈ [−1, 1] to a level at most two below the nearest."""
    peak, total = _peak(block), np.float32(0)
    if peak == 0:
        return 0.0
    for j in range(len(block)):
        x = block[j] / peak
        k = first[np.uint64((x + np.float32(1)) * np.float32(CELLS / 2))]
        k += x > middles[k]
        k += x > middles[k]
        total += (x - table[k]) * (x - table[k])
    return np.float64(total) * np.float64(peak) ** 2
