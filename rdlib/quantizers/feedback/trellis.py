"""Trellis + feedback: every column is a path through a trellis, and its error is fed to the columns after it.

The path runs down the column, over the rows, so that a column is finished before the next one begins.
"""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from numba import njit
from scipy.special import ndtr

from rdlib.code.code import Code
from rdlib.code.normal import NARROWEST, OCTAVE
from rdlib.quantizers.feedback.feedback import fed
from rdlib.quantizers.feedback.scales import powers_of, scale_of
from rdlib.quantizers.feedback.watersic import SuccessiveCancellation, settle
from rdlib.quantizers.trellis.ungerboeck import PARITY_CHECKS, subsets_of

FARTHEST = 255  # level whose price is known; beyond it all cost the same
TRADE = 0.34  # λ in units of α²: 2·ln 2·D, with D = (2α)²/12 less 1.3 dB
DEAREST = 20  # bits that a price is made from
SCALES = 96  # that have prices of their own, up to 2^9; wider ones cost the same for all integers, nearly


@dataclass(frozen=True)
class FeedbackTrellis(SuccessiveCancellation):
    """z along the path of least Σ (w/α − z)² − λ·log₂ p(z), through Ungerboeck's trellis, down each column.

    The state allows either the even or the odd integers; which of them is taken, mod 4, leads to the next state.  So
    the indices cost as much as those of a grid twice as wide, and a path chooses among all integers.  p is that of
    N(0, s²), so that columns of any rate are coded, down to those of zeros.  The path begins in state 0, ends
    anywhere, and follows from the indices alone: z = 2m + (1 where odd).

    For formula, streams and arguments, see :class:`SuccessiveCancellation`; here also ``counts``, of the odd indices of
    every scale.

    Args:
        states: of the convolutional code, 4 … 4096.

    Raises:
        ValueError: there is no code of so many states here.

    References:
        Fischer and Wang 1992, doi:10.1109/18.119729, and Marcellin 1994, doi:10.1109/26.275315: entropy-coded
        trellis-coded quantization; Lifar et al. 2026, arXiv:2603.04956: WaterSIC, which rounds instead.
    """

    states: int = 256
    width: ClassVar[int] = 2
    noise: ClassVar[float] = 0.1  # the price has brought points near the means of their cells already

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.states not in PARITY_CHECKS:
            raise ValueError(f"A trellis has {', '.join(map(str, PARITY_CHECKS))} states, not {self.states}.")

    @property
    def method(self) -> str:
        return f"trellis + feedback {self.states} states"

    def _round(
        self, rest: np.ndarray, U: np.ndarray, alpha: np.ndarray, rows: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        subset = subsets_of(self.states)
        return _best_paths(rest, U, alpha, rows, powers_of(rows), _prices(), self.noise, z, subset)

    def _indices(self, code: Code, scales: np.ndarray) -> np.ndarray:
        index, odd = code["index"] + np.int64(code.number("first")), code["counts"].astype(np.int64)
        counts = np.bincount(scales.ravel(), minlength=1)
        if index.size != code.weights or odd.shape != counts.shape:
            raise ValueError("The code does not hold an index for every weight, or a count for every scale.")
        counts = np.stack([counts - odd, odd], axis=1).ravel()
        return _follow(index, np.cumsum(counts) - counts, scales, subsets_of(self.states))


@cache
def _prices() -> np.ndarray:
    """−λ·log₂ P(z − 1 < s·N(0, 1) < z + 1), z = 0 … FARTHEST, for every scale s: float64 (SCALES, FARTHEST + 1)."""
    s = 2.0 ** ((np.arange(SCALES)[:, None] + NARROWEST) / OCTAVE)
    z = np.arange(FARTHEST + 1)
    p = ndtr((1 - z) / s) - ndtr((-1 - z) / s)
    return -TRADE * np.log2(np.maximum(p, 2.0**-DEAREST))


@njit(cache=True)
def _best_paths(
    rest: np.ndarray,
    U: np.ndarray,
    alpha: np.ndarray,
    rows: np.ndarray,
    powers: np.ndarray,
    prices: np.ndarray,
    noise: float,
    z: np.ndarray,
    subset: np.ndarray,
) -> np.ndarray:
    """Every column along the cheapest path, with feedback (see :meth:`SuccessiveCancellation._round`)."""
    columns, errors = np.empty(len(rest), np.int64), np.empty_like(rest)
    for j in range(len(rest)):
        target = fed(rest, U, errors, j)
        columns[j] = scale_of(target, alpha[j], powers)
        near = _best_path(target / alpha[j], rows + columns[j] - NARROWEST, prices, subset)
        settle(target, near, alpha[j], U[j, j], columns[j], powers, noise, rest[j], errors[j])
        z[:, j] = near
    return columns


@njit(cache=True)
def _best_path(x: np.ndarray, scales: np.ndarray, prices: np.ndarray, subset: np.ndarray) -> np.ndarray:
    """Viterbi's algorithm on one sequence from state 0: the integers along the cheapest path.

    State g is reached from (2g + i) mod S, i = 0, 1, on subset[2g + i].  So the states g and g + S/2 have the same
    two before them.

    Args:
        x: samples, (n,).
        scales: which row of prices each sample has, (n,).
        prices: of the magnitudes of integers, (scales, FARTHEST + 1); the last row also for wider scales.
        subset: which remainder mod 4 each content of the register allows, (2·S,).
    """
    states, n = len(subset) >> 1, len(x)
    half = states >> 1
    cost, new = np.full(states, np.inf), np.empty(states)
    cost[0] = 0.0
    rival = np.empty((n, states), np.uint8)
    nearest = np.empty((n, 4), np.int32)
    error = np.empty(4)
    for t in range(n):
        price = prices[min(scales[t], len(prices) - 1)]
        for c in range(4):
            z = 4 * int(np.rint((x[t] - c) / 4)) + c
            best = (x[t] - z) ** 2 + price[min(abs(z), FARTHEST)]
            inner = z - 4 if z > 0 else z + 4  # the next one towards zero, farther but cheaper
            other = (x[t] - inner) ** 2 + price[min(abs(inner), FARTHEST)]
            nearest[t, c], error[c] = (z, best) if best <= other else (inner, other)
        for g in range(half):
            one, two = cost[2 * g], cost[2 * g + 1]
            a, b = one + error[subset[2 * g]], two + error[subset[2 * g + 1]]
            rival[t, g], new[g] = b < a, min(a, b)
            a, b = one + error[subset[2 * g + states]], two + error[subset[2 * g + 1 + states]]
            rival[t, g + half], new[g + half] = b < a, min(a, b)
        cost, new = new, cost
    path = np.empty(n)
    g = int(np.argmin(cost))
    for t in range(n - 1, -1, -1):
        r = 2 * g + rival[t, g]
        path[t] = nearest[t, subset[r]]
        g = r & (states - 1)
    return path


@njit(cache=True)
def _follow(index: np.ndarray, starts: np.ndarray, scales: np.ndarray, subset: np.ndarray) -> np.ndarray:
    """The integers of a matrix from symbols that are sorted by scale and parity, rows first within both.

    The parity of each is known from the state of its column, and with it the context of its symbol.
    """
    top = len(subset) >> 1
    place = starts.copy()
    state = np.zeros(scales.shape[1], np.int64)
    z = np.empty(scales.shape, np.int64)
    for i in range(len(scales)):
        for j in range(scales.shape[1]):
            odd = subset[state[j]] & 1
            context = 2 * scales[i, j] + odd
            z[i, j] = 2 * index[min(place[context], len(index) - 1)] + odd
            place[context] += 1
            new = 0 if subset[state[j]] == z[i, j] & 3 else top
            state[j] = (state[j] | new) >> 1
    return z
