"""Loops over groups of weights, compiled: ranges, nearest levels, squared errors.

Every function takes rows of float32 and the ``width`` of a group; the last group of a row may be shorter.
Rows are independent, so that the number of threads does not change a result.
"""

import numpy as np
from numba import njit, prange

SHRINK = 0.94  # ratio of neighbouring factors in the first search for the best range
FACTORS = 60  # how many of them: down to 0.94⁶⁰ = 0.024 of the range
REFINE = 16  # golden-section steps between the neighbours of the best of them


@njit(cache=True, inline="always")
def nearest(w: float, low: float, step: float, levels: int) -> int:
    """Index of the level low + q·step nearest to w."""
    if step == 0.0:
        return levels - 1
    return int(min(max(np.floor((w - low) / step + 0.5), 0.0), levels - 1.0))


@njit(cache=True, error_model="numpy")
def _error(
    group: np.ndarray,
    counts: np.ndarray,
    low: float,
    high: float,
    levels: int,
    symmetric: bool,
    room: np.ndarray,
) -> float:
    """Σ count·(w − ŵ)² of a group for the range low < high."""
    last = levels - 1.0
    step = (high - low) / last
    if not symmetric:
        low = -np.floor(-low / step + 0.5) * step  # a level falls on zero
    inverse = 1 / step
    for j in range(len(group)):
        q = min(max(np.floor((group[j] - low) * inverse + 0.5), 0.0), last)
        d = group[j] - (low + q * step)
        room[j] = counts[j] * d * d
    return _sum(room)


@njit(cache=True, error_model="numpy")
def _overshoot(group: np.ndarray, counts: np.ndarray, low: float, high: float, room: np.ndarray) -> float:
    """Σ count·d² of a group, d the distance to the range."""
    for j in range(len(group)):
        d = max(low - group[j], group[j] - high, 0.0)
        room[j] = counts[j] * d * d
    return _sum(room)


@njit(cache=True)
def _sum(room: np.ndarray) -> float:
    """Σ, which uses ``room`` up: halves are added, many numbers at once and on every machine in the same order."""
    n = len(room)
    while n > 1:
        half = (n + 1) // 2
        for j in range(n - half):
            room[j] += room[half + j]
        n = half
    return room[0]


@njit(cache=True)
def _best_shrink(
    group: np.ndarray,
    counts: np.ndarray,
    low: float,
    high: float,
    levels: int,
    symmetric: bool,
    room: np.ndarray,
) -> float:
    """The factor of the range at which the squared error of a group is least."""
    best, least, factor = 1.0, np.inf, 1.0
    beyond = (high - low) / (2 * (levels - 1.0))  # a level on zero moves the range by half a step
    for _ in range(FACTORS):
        error = _error(group, counts, factor * low, factor * high, levels, symmetric, room)
        if error < least:
            best, least = factor, error
        factor *= SHRINK
        a, b = factor * (low - beyond), factor * (high + beyond)
        if _overshoot(group, counts, a, b, room) > least:  # so is the error of every smaller range
            break
    golden = (np.sqrt(5.0) - 1) / 2
    a, b = best * SHRINK, min(best / SHRINK, 1.0)
    c, d = b - golden * (b - a), a + golden * (b - a)
    error_c = _error(group, counts, c * low, c * high, levels, symmetric, room)
    error_d = _error(group, counts, d * low, d * high, levels, symmetric, room)
    for _ in range(REFINE):
        if error_c < least:
            best, least = c, error_c
        if error_d < least:
            best, least = d, error_d
        if error_c < error_d:
            b, d, error_d = d, c, error_c
            c = b - golden * (b - a)
            error_c = _error(group, counts, c * low, c * high, levels, symmetric, room)
        else:
            a, c, error_c = c, d, error_d
            d = a + golden * (b - a)
            error_d = _error(group, counts, d * low, d * high, levels, symmetric, room)
    return best


@njit(parallel=True, cache=True)
def fit_ranges(
    rows: np.ndarray,
    counts: np.ndarray,
    width: int,
    levels: int,
    symmetric: bool,
    sigmas: float,
    search: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest level of every group; an asymmetric range includes zero.

    Args:
        rows: float32 (rows, columns).
        counts: how often each column counts, (columns,).
        width: weights in a group.
        levels: of the quantizer.
        symmetric: low = −high.
        sigmas: largest magnitude, in units of √E[w²] of the group.
        search: shrink the range to the least squared error.

    Returns:
        low and high, float64, each (rows, ⌈columns / width⌉).
    """
    columns = rows.shape[1]
    groups = -(-columns // width)
    low, high = np.zeros((rows.shape[0], groups)), np.zeros((rows.shape[0], groups))
    for i in prange(rows.shape[0]):
        room = np.empty(min(width, columns))
        for g in range(groups):
            group = rows[i, g * width : min((g + 1) * width, columns)]
            weight = counts[g * width : min((g + 1) * width, columns)]
            a, b, power, total = 0.0, 0.0, 0.0, 0.0
            for j in range(len(group)):
                a, b = min(a, group[j]), max(b, group[j])
                power += weight[j] * np.float64(group[j]) ** 2
                total += weight[j]
            if symmetric:
                b = max(-a, b)
                a = -b
            if sigmas < np.inf:
                limit = sigmas * np.sqrt(power / total)
                a, b = max(a, -limit), min(b, limit)
            if search and b > a:
                factor = _best_shrink(group, weight, a, b, levels, symmetric, room[: len(group)])
                a, b = factor * a, factor * b
            low[i, g], high[i, g] = a, b
    return low, high


@njit(parallel=True, cache=True)
def symmetric_indices(rows: np.ndarray, scales: np.ndarray, width: int, levels: int) -> np.ndarray:
    """Index of the level s·(2q/(levels − 1) − 1) nearest to each weight, uint16."""
    index = np.empty(rows.shape, np.uint16)
    for i in prange(rows.shape[0]):
        for j in range(rows.shape[1]):
            s = np.float64(scales[i, j // width])
            index[i, j] = nearest(rows[i, j], -s, 2 * s / max(levels - 1, 1), levels)
    return index


@njit(parallel=True, cache=True)
def asymmetric_indices(
    rows: np.ndarray, scales: np.ndarray, zeros: np.ndarray, width: int, levels: int
) -> np.ndarray:
    """Index of the level s·(q − z)/(levels − 1) nearest to each weight, uint16."""
    index = np.empty(rows.shape, np.uint16)
    for i in prange(rows.shape[0]):
        for j in range(rows.shape[1]):
            step = np.float64(scales[i, j // width]) / max(levels - 1, 1)
            if step == 0.0:  # every level is zero; q = z
                index[i, j] = int(zeros[i, j // width])
            else:
                index[i, j] = nearest(rows[i, j], -zeros[i, j // width] * step, step, levels)
    return index


@njit(parallel=True, cache=True, error_model="numpy")
def asymmetric_weights(
    index: np.ndarray, scales: np.ndarray, zeros: np.ndarray, width: int, last: np.float32
) -> np.ndarray:
    """s·((q − z) / last), float32: what :func:`asymmetric_indices` wrote."""
    W = np.empty(index.shape, np.float32)
    for i in prange(index.shape[0]):
        for g in range(scales.shape[1]):
            for j in range(g * width, min((g + 1) * width, index.shape[1])):
                W[i, j] = scales[i, g] * ((index[i, j] - zeros[i, g]) / last)
    return W
