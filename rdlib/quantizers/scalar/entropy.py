"""Entropy-coded scalar quantizers: levels without limit, and few bits for the frequent ones.

All three are designed on the histogram so that the entropy of the index is the nominal rate; the index is
then really coded, with its table paid for.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit

from rdlib.code.ans import ABSENT
from rdlib.code.code import Code, Stream, frequency_table
from rdlib.histogram import Histogram, entropy_of
from rdlib.quantizers.base import quarters
from rdlib.quantizers.scalar.level_table import Index, LevelTable, level_streams, levels_of
from rdlib.weights import ratio

LARGEST_ALPHABET = 1 << 20


@dataclass(frozen=True)
class EcsqMidpoint(LevelTable):
    """ŵ = Δ·k, k = round(w / Δ), with the step Δ at which H(k) is the nominal rate.

    Streams: ``table`` (a byte a symbol), ``index`` (entropy-coded k − first), ``step`` (Δ), ``first`` (lowest k).

    References:
        Gish and Pierce 1968, doi:10.1109/TIT.1968.1054193: at high rate this is 0.2546 bit from R(D).
    """

    bits: float
    bits_allowed: ClassVar[tuple[float, ...]] = quarters(1, 12)

    @property
    def method(self) -> str:
        return "ECSQ midpoint tensor"

    def design(self, histogram: Histogram) -> tuple[dict[str, Stream], Index]:
        step = np.float32(step_of_entropy(histogram, self.bits))
        cells = cells_of(histogram.values, step)
        first = int(cells[0]) if len(cells) else 0
        first -= first % (1 << max(first.bit_length() - 24, 0))  # float32 has that exactly
        table = frequency_table(np.bincount(cells - first, histogram.counts, minlength=1))
        side = {
            "table": table,
            "step": Stream.floats(np.array([step]), "float32"),
            "first": Stream.floats(np.array([first]), "float32"),
        }
        side |= self._offsets(histogram, cells - first, first, step)
        return side, lambda values: Stream.coded(cells_of(values, step) - first, table)

    def _offsets(self, histogram: Histogram, index: np.ndarray, first: int, step: float) -> dict[str, Stream]:
        """What is sent about the levels besides the grid."""
        return {}

    def reconstruct(self, code: Code) -> np.ndarray:
        return self._levels(code, 0.0)[code["index"]]

    def _levels(self, code: Code, offsets: np.ndarray | float) -> np.ndarray:
        """Δ·(k + offset) of every symbol, float32."""
        k = np.arange(len(code["table"])) + np.float64(code.number("first"))
        return ((k + offsets) * np.float64(code.number("step"))).astype(np.float32)


@dataclass(frozen=True)
class EcsqCentroid(EcsqMidpoint):
    """As :class:`EcsqMidpoint`, but ŵ is the mean of the weights of its cell, within Δ / 508.

    Streams besides those: ``offset`` (centroid − grid point in Δ / 254, a byte for each symbol that occurs).
    """

    @property
    def method(self) -> str:
        return "ECSQ centroid tensor"

    def _offsets(self, histogram: Histogram, index: np.ndarray, first: int, step: float) -> dict[str, Stream]:
        size = int(index[-1]) + 1 if len(index) else 1
        counts = np.bincount(index, histogram.counts, size)
        sums = np.bincount(index, histogram.counts * histogram.values.astype(np.float64), size)
        centroids = ratio(sums, counts)
        inside = np.clip(centroids / (step or 1) - (first + np.arange(size)), -0.5, 0.5)
        return {"offset": Stream.fixed(np.rint(254 * inside[counts > 0]) + 127, 255)}

    def reconstruct(self, code: Code) -> np.ndarray:
        occurring = code["table"] != ABSENT
        offsets = np.zeros(len(occurring))
        offsets[occurring] = (code["offset"].astype(np.float64) - 127) / 254
        return self._levels(code, offsets)[code["index"]]


@dataclass(frozen=True)
class EcsqOptimal(LevelTable):
    """Cells and levels that minimise D + λ·H, with the λ at which the entropy H of the index is the nominal rate.

    A weight goes to the level of least (w − t_k)² − λ·log₂ p_k, levels to the mean of their cell, p to their
    frequency, until nothing moves.  Streams: ``table``, ``index`` (entropy-coded), ``levels`` and ``scale`` as
    of :class:`rdlib.quantizers.LloydMax`.

    References:
        Chou, Lookabaugh and Gray 1989, doi:10.1109/29.17498.
    """

    bits: float
    bits_allowed: ClassVar[tuple[float, ...]] = quarters(1, 12)
    centred: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return "ECSQ optimum tensor"

    def design(self, histogram: Histogram) -> tuple[dict[str, Stream], Index]:
        levels, thresholds = entropy_constrained(histogram, self.bits)
        cells = np.searchsorted(thresholds, histogram.values)
        table = frequency_table(np.bincount(cells, histogram.counts, minlength=1))
        side = {"table": table} | level_streams(levels, histogram)
        return side, lambda values: Stream.coded(np.searchsorted(thresholds, values), table)

    def reconstruct(self, code: Code) -> np.ndarray:
        return levels_of(code["levels"], code.number("scale"))[code["index"]]


def cells_of(values: np.ndarray, step: float) -> np.ndarray:
    """The cells k = round(w / Δ), int64."""
    return np.rint(values.astype(np.float64) / (step or 1)).astype(np.int64)


@njit(cache=True)
def grid_entropy(values: np.ndarray, counts: np.ndarray, step: float) -> float:
    """H(round(w / Δ)) in bits, of distinct values in rising order and how often each occurs."""
    size, entropy, mass = counts.sum(), 0.0, 0
    for i in range(len(values)):
        mass += counts[i]
        here = np.rint(np.float64(values[i]) / step)
        if i + 1 == len(values) or np.rint(np.float64(values[i + 1]) / step) != here:  # the cell ends
            entropy -= mass / size * np.log2(mass / size)
            mass = 0
    return entropy


def step_of_entropy(histogram: Histogram, bits: float) -> float:
    """The step Δ at which H(round(w / Δ)) = bits, by bisection of log Δ.

    A source of fewer bits than that gets the largest step that keeps its entropy, or the smallest that does not
    spread the cells over more than 2²⁰ of them.
    """
    if len(histogram.values) < 2:
        return histogram.largest
    if 2.5 * histogram.largest > float(np.finfo(np.float32).max):
        raise ValueError(f"A step for weights of {histogram.largest:.3g} does not fit float32: scale W down.")
    target = min(bits, histogram.entropy - 1e-9)
    span = float(histogram.values[-1]) - float(histogram.values[0])
    low, high = 2 * span / LARGEST_ALPHABET, 2.5 * histogram.largest
    for _ in range(30):  # to 10⁻⁸ of Δ
        middle = float(np.sqrt(low * high))
        if grid_entropy(histogram.values, histogram.counts, middle) >= target:
            low = middle
        else:
            high = middle
    return low


def entropy_constrained(histogram: Histogram, bits: float) -> tuple[np.ndarray, np.ndarray]:
    """Levels, rising, and the thresholds between them, of least D + λ·H at H = bits.

    λ is found by bisection from its high-rate value 2·ln 2·D; each design starts from the uniform grid.
    """
    if len(histogram.values) < 2:
        return histogram.values.astype(np.float64), np.empty(0)
    step = step_of_entropy(histogram, bits)
    sums = _prefix_sums(histogram)
    grid = _edges_of_grid(histogram, step)
    low, high = 0.0, 8 * step**2  # λ = 2·ln 2·D is about Δ² / 9 at high rate
    best = _design(histogram, sums, grid, low)
    for _ in range(24):
        middle = (low + high) / 2
        design = _design(histogram, sums, grid, middle)
        if entropy_of(design[2]) >= bits:
            low, best = middle, design
        else:
            high = middle
    return best[0], best[1]


def _prefix_sums(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Σ count and Σ count·w over the first values."""
    weighted = histogram.counts * histogram.values.astype(np.float64)
    return tuple(np.concatenate([[0.0], np.cumsum(x)]) for x in (histogram.counts, weighted))


def _edges_of_grid(histogram: Histogram, step: float) -> np.ndarray:
    """Where in the values the occupied cells of a uniform grid begin, and the end."""
    cells = cells_of(histogram.values, step)
    return np.append(np.flatnonzero(np.diff(cells, prepend=cells[0] - 1)), len(cells))


def _design(
    histogram: Histogram, sums: tuple[np.ndarray, np.ndarray], edges: np.ndarray, trade: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Levels, thresholds and counts of the fixed point for λ = ``trade``, from the cells between ``edges``."""
    for _ in range(200):
        counts, totals = (np.diff(s[edges]) for s in sums)
        thresholds = _envelope(totals / counts, -trade * np.log2(counts / histogram.size))
        moved = np.searchsorted(histogram.values, thresholds)
        moved = np.unique(np.concatenate([[0], moved, [len(histogram.values)]]))  # an empty cell is gone
        if np.array_equal(moved, edges):
            break
        edges = moved
    counts, totals = (np.diff(s[edges]) for s in sums)
    inner = edges[1:-1]
    thresholds = (histogram.values[inner].astype(np.float64) + histogram.values[inner - 1]) / 2
    return totals / counts, thresholds, counts


@njit(cache=True)
def _envelope(levels: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Thresholds between the levels that are the best for some w, when a level costs (w − t)² + its price.

    Without w² a cost is a line in w, so that the best levels are the lower envelope of lines.
    """
    kept = np.empty(len(levels), np.int64)
    thresholds = np.empty(len(levels))  # thresholds[m]: where kept[m] takes over from kept[m − 1]
    count = 0
    for k in range(len(levels)):
        at = -np.inf
        while count:
            j = kept[count - 1]
            at = (levels[k] + levels[j]) / 2 + (prices[k] - prices[j]) / (2 * (levels[k] - levels[j]))
            if count == 1 or at > thresholds[count - 1]:
                break
            count -= 1
        kept[count], thresholds[count] = k, at
        count += 1
    return thresholds[1:count]
