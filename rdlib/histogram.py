"""The exact histogram of a tensor, and what follows from it.

A 16-bit tensor has at most 65,536 distinct values, so that for every scalar quantizer with one table of
levels the counts of its values *are* the tensor.  A float32 tensor is sorted instead; it is never cast.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import get_num_threads, njit, prange

from rdlib.weights import as_float32, as_matrix, refuse_non_finite


@dataclass(frozen=True, eq=False)
class Histogram:
    """Distinct values of a tensor in rising order, and how often each occurs.

    Args:
        values: float32, shape (K,), strictly rising.
        counts: int64, shape (K,), positive.
    """

    values: np.ndarray
    counts: np.ndarray

    @classmethod
    def of(cls, W: np.ndarray) -> "Histogram":
        """Histogram of a float16, bfloat16 or float32 matrix; +0 and −0 are one value.

        Raises:
            ValueError: ``W`` is no weight matrix, or holds NaN or Inf.
        """
        W = as_matrix(W)
        if W.dtype.itemsize == 2:
            tally = _count_16_bit(np.ascontiguousarray(W).view(np.uint16).ravel(), get_num_threads()).sum(
                axis=0
            )
            patterns = np.flatnonzero(tally).astype(np.uint16)
            values, counts = patterns.view(W.dtype).astype(np.float32), tally[patterns]
            if not np.isfinite(values).all():
                refuse_non_finite(W)
            values, place = np.unique(values, return_inverse=True)  # sorts, and joins +0 and −0
            return cls(values, np.bincount(place, counts, len(values)).astype(np.int64))
        values, counts = np.unique(as_float32(W), return_counts=True)
        return cls(values, counts.astype(np.int64))

    @cached_property
    def size(self) -> int:
        """How many weights were counted."""
        return int(self.counts.sum())

    def mean_of(self, f: np.ndarray) -> float:
        """E[f], averaged over all weights, given f at each distinct value, (K,); 0 if there are no weights."""
        return float(np.dot(self.counts, np.asarray(f, np.float64)) / max(self.size, 1))

    @cached_property
    def mean(self) -> float:
        """μ = E[w]."""
        return self.mean_of(self.values)

    @cached_property
    def centred(self) -> np.ndarray:
        """w − μ of each distinct value, float64 (K,)."""
        return self.values.astype(np.float64) - self.mean

    @cached_property
    def power(self) -> float:
        """E[w²]."""
        return self.mean_of(self.values.astype(np.float64) ** 2)

    @cached_property
    def variance(self) -> float:
        """σ² = E[(w − μ)²]."""
        return self.mean_of(self.centred**2)

    @cached_property
    def kurtosis(self) -> float:
        """E[(w − μ)⁴] / σ⁴: 3 for a Gaussian, 6 for a Laplacian; NaN where σ² = 0."""
        unit = self.centred / (self.variance**0.5 or 1.0)  # (w − μ)⁴ may underflow
        return self.mean_of(unit**4) if self.variance else float("nan")

    @cached_property
    def largest(self) -> float:
        """The largest |w|; 0 of no weights."""
        return float(np.abs(self.values[[0, -1]]).max()) if self.size else 0.0

    @cached_property
    def entropy(self) -> float:
        """H(w) in bits: what lossless coding of the weights one by one costs."""
        return entropy_of(self.counts)


def entropy_of(counts: np.ndarray) -> float:
    """H = −Σ p log₂ p of how often each symbol occurs, in bits a symbol; 0 of none.

    >>> entropy_of(np.array([2, 1, 1]))
    1.5
    """
    p = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(p * np.log2(p)).sum()) + 0.0


def occurrences(symbols: np.ndarray) -> np.ndarray:
    """How often each integer occurs, in rising order, those between that do not occur included unless they are many.

    Args:
        symbols: integers of any shape.

    Returns:
        int64, (symbols,).
    """
    low, high = (int(symbols.min()), int(symbols.max())) if symbols.size else (0, 0)
    if high - low > max(symbols.size, 1 << 16):
        return np.unique(symbols, return_counts=True)[1]
    return np.bincount(symbols.ravel() - low)  # no sorting


@njit(parallel=True, cache=True)
def _count_16_bit(patterns: np.ndarray, parts: int) -> np.ndarray:
    """How often each of the 65,536 bit patterns occurs in each of so many parts."""
    tallies = np.zeros((parts, 65536), np.int64)
    step = -(-len(patterns) // parts)
    for part in prange(parts):
        for i in range(part * step, min(len(patterns), (part + 1) * step)):
            tallies[part, patterns[i]] += 1
    return tallies  # numba takes two seconds to compile their sum


def lloyd_max(histogram: Histogram, levels: int) -> np.ndarray:
    """The ``levels`` reconstruction levels of least mean squared error: of all such quantizers, the best.

    Dynamic programming over where to cut the sorted values (Bruce 1965, MIT; Wu 1991,
    doi:10.1016/0196-6774(91)90039-2), each step by divide and conquer because the best last cut moves only up
    as values are added.  Lloyd's iteration (1982, doi:10.1109/TIT.1982.1056489) stops wherever it was started;
    this does not.

    Args:
        histogram: of the weights.
        levels: at most this many come back; fewer where there are fewer distinct values.

    Returns:
        Rising float64 levels, each the mean of its cell.
    """
    return next(iter(lloyd_max_curve(histogram, [levels]).values()))


def lloyd_max_curve(histogram: Histogram, sizes: list[int]) -> dict[int, np.ndarray]:
    """:func:`lloyd_max` for several numbers of levels, by number, from one run of the dynamic programme."""
    cells, prefix = _sorted_cells(histogram)
    largest = min(max(sizes), len(cells))
    if largest == 0:
        return {size: np.empty(0) for size in sizes}
    cuts = _optimal_cuts(*prefix, largest)
    curve = {}
    for size in sizes:
        edges = _trace(cuts, min(size, largest), len(cells))
        means = np.diff(prefix[1][edges]) / np.diff(prefix[0][edges])
        levels = means + histogram.mean
        curve[size] = levels if len(cells) == len(histogram.values) else _lloyd(histogram, levels)
    return curve


DISTINCT = 1 << 16  # more distinct values than this (float32) are first merged …
CELLS = 1 << 14  # … into so many cells, which costs 10⁻⁷ of D at 4 bits, and 2·10⁻⁵ at 8


def _sorted_cells(histogram: Histogram) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """First value of each cell kept together, and prefix sums of count, w − μ and (w − μ)² over cells."""
    starts = np.arange(len(histogram.values)) if len(histogram.values) <= DISTINCT else _merged(histogram)
    moments = (histogram.counts * histogram.centred**k for k in range(3))
    sums = (np.add.reduceat(m, starts) if len(m) else m for m in moments)
    return starts, tuple(np.concatenate([[0.0], np.cumsum(s)]) for s in sums)


def _merged(histogram: Histogram) -> np.ndarray:
    """First value of each of at most CELLS cells, half of them by mass and half by Panter–Dite's ∛density.

    Where mass alone decides, an outlier shares a cell with weights of the bulk, and no cut can part them.
    """
    width = np.gradient(histogram.values.astype(np.float64))
    spread = np.cbrt(histogram.counts * width**2)  # density^⅓ · width
    share = np.cumsum(histogram.counts / histogram.size + spread / spread.sum())
    return np.unique(np.searchsorted(share, np.linspace(0, share[-1], CELLS, endpoint=False)))


def _lloyd(histogram: Histogram, levels: np.ndarray, iterations: int = 1000) -> np.ndarray:
    """Lloyd's iteration from levels that are already near the optimum, on all values, until nothing moves."""
    weighted = (histogram.counts * histogram.values.astype(np.float64) ** k for k in (0, 1))
    sums = [np.concatenate([[0.0], np.cumsum(w)]) for w in weighted]
    edges = None
    for _ in range(iterations):
        middle = np.searchsorted(histogram.values, (levels[1:] + levels[:-1]) / 2)
        moved = np.concatenate([[0], middle, [len(histogram.values)]])
        if edges is not None and np.array_equal(moved, edges):
            break
        edges = moved
        counts, totals = (np.diff(s[edges]) for s in sums)
        levels = np.where(counts > 0, totals / np.maximum(counts, 1), levels)
    return levels


@njit(cache=True, error_model="numpy")
def _optimal_cuts(n: np.ndarray, s: np.ndarray, q: np.ndarray, levels: int) -> np.ndarray:
    """cuts[m, j]: where the last of m + 1 cells begins in the best split of the first j values.

    The last cut of j moves up with j, and with m (Knuth 1971, doi:10.1007/BF00264289): it is searched for
    between those of the nearest j that are done, and from that of one cell fewer.  For the most cells, only j = all
    values is filled in.
    """
    size = len(n) - 1
    cuts = np.zeros((levels, size + 1), np.int32)
    best = np.zeros(size + 1)  # of one cell: q − s²/n is Σ (w − mean)²
    for j in range(1, size + 1):
        best[j] = q[j] - s[j] * s[j] / n[j]
    stack = np.empty((64, 4), np.int64)  # spans of j, and of the cuts that they may have
    for m in range(1, levels):
        new = np.zeros(size + 1)
        stack[0] = (m + 1 if m < levels - 1 else size, size, m, size - 1)  # of the last only all values
        depth = 1
        while depth:
            depth -= 1
            low, high, first, last = stack[depth]
            if low > high:
                continue
            j = (low + high) // 2
            end = min(last, j - 1)
            begin = min(max(first, cuts[m - 1, j]), end)
            least, cut = np.inf, begin
            for i in range(begin, end + 1):
                mass, total = n[j] - n[i], s[j] - s[i]  # no mass: counts too small beside those before them
                error = best[i] + (q[j] - q[i] - total * total / mass if mass > 0 else 0.0)
                if error < least:
                    least, cut = error, i
            new[j], cuts[m, j] = least, cut
            stack[depth] = (low, j - 1, first, cut)
            stack[depth + 1] = (j + 1, high, cut, last)
            depth += 2
        best = new
    return cuts


@njit(cache=True)
def _trace(cuts: np.ndarray, levels: int, size: int) -> np.ndarray:
    """Edges of the cells of the best split of all values, shape (levels + 1,)."""
    edges = np.empty(levels + 1, np.int64)
    edges[levels] = size
    for m in range(levels - 1, -1, -1):
        edges[m] = cuts[m, edges[m + 1]]
    return edges
