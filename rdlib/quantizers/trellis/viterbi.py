"""The Viterbi algorithm on shift-register trellises, for 32 sequences at a time.

A register of L bits takes k new bits at every step, r = (r' >> k) | (b << (L − k)), and its content chooses the
reproduction.  It leads from the state r mod 2^(L − k) to the state r >> k; the 2^k registers that lead to the same
state are rivals, and the best of them survives.  A step costs 2^L additions and comparisons, whatever k is, and
the innermost loop runs over the sequences so that these are vector instructions.

Samples come as x (steps, subsets, lanes): register r is compared with the sample's column ``subset[r]``, at the
squared distance (x − code[r])².

References:
    Viterbi 1967, doi:10.1109/TIT.1967.1054010; Marcellin & Fischer 1990, doi:10.1109/26.46532.
"""

import numpy as np
from numba import njit, prange

LANES = 32  # sequences that are searched together
KEPT = 1 << 17  # costs of survivors a lane that are all kept (16 MB); where there are more,
SEGMENT = 16  # steps: they are kept at the segments' beginnings, and found again in between
ANY = -1  # an end that may be any state
REASSOCIATE = {"nnan", "nsz", "contract"}  # what lets min() be one instruction


@njit(cache=True, fastmath=REASSOCIATE)
def _advance_in_pairs(
    survivors: np.ndarray, x: np.ndarray, subset: np.ndarray, code: np.ndarray, k: int, start: int, stop: int
) -> None:
    """:func:`_advance` for k = 1: two registers lead to each state."""
    states = survivors.shape[1]
    for t in range(start, stop):
        s = t - start
        for g in range(states):
            a, b = 2 * g & (states - 1), (2 * g + 1) & (states - 1)
            i, j, p, q = subset[2 * g], subset[2 * g + 1], code[2 * g], code[2 * g + 1]
            for lane in range(LANES):
                d, e = x[t, i, lane] - p, x[t, j, lane] - q
                survivors[s + 1, g, lane] = min(survivors[s, a, lane] + d * d, survivors[s, b, lane] + e * e)


@njit(cache=True, fastmath=REASSOCIATE)
def _advance(
    survivors: np.ndarray, x: np.ndarray, subset: np.ndarray, code: np.ndarray, k: int, start: int, stop: int
) -> None:
    """Costs of the best paths to every state after the steps start … stop − 1, from those in row 0."""
    if k == 1:
        _advance_in_pairs(survivors, x, subset, code, k, start, stop)
        return
    states = survivors.shape[1]
    for t in range(start, stop):
        s = t - start
        for g in range(states):
            for r in range(g << k, (g + 1) << k, 4):  # rivals four at a time: fewer passes over the lanes
                a = r & (
                    states - 1
                )  # with a + 1, a + 2, a + 3: r is a multiple of 4, and so is the number of states
                i, j, m, n = subset[r], subset[r + 1], subset[r + 2], subset[r + 3]
                p, q, u, v = code[r], code[r + 1], code[r + 2], code[r + 3]
                first = r == g << k
                for lane in range(LANES):
                    d, e = x[t, i, lane] - p, x[t, j, lane] - q
                    f, h = x[t, m, lane] - u, x[t, n, lane] - v
                    best = min(survivors[s, a, lane] + d * d, survivors[s, a + 1, lane] + e * e)
                    rest = min(survivors[s, a + 2, lane] + f * f, survivors[s, a + 3, lane] + h * h)
                    best = min(best, rest)
                    survivors[s + 1, g, lane] = best if first else min(survivors[s + 1, g, lane], best)


@njit(cache=True)
def _trace(
    survivors: np.ndarray,
    x: np.ndarray,
    subset: np.ndarray,
    code: np.ndarray,
    k: int,
    start: int,
    stop: int,
    now: np.ndarray,
    path: np.ndarray,
) -> None:
    """Follow the survivors back from the states ``now``, which become those at ``start``."""
    states = survivors.shape[1]
    for lane in range(LANES):
        g = now[lane]
        for t in range(stop - 1, start - 1, -1):
            best, chosen = np.inf, g << k
            for r in range(g << k, (g + 1) << k):
                error = x[t, subset[r], lane] - code[r]
                total = survivors[t - start, r & (states - 1), lane] + error * error
                if total < best:
                    best, chosen = total, r
            path[t, lane] = chosen
            g = chosen & (states - 1)
        now[lane] = g


@njit(cache=True, parallel=True)
def _search(x: np.ndarray, subset: np.ndarray, code: np.ndarray, k: int, ends: np.ndarray) -> np.ndarray:
    """Registers of the best paths, int32 (blocks, steps, lanes)."""
    steps, states = x.shape[1], len(code) >> k
    path = np.zeros((x.shape[0], steps, LANES), np.int32)
    for block in prange(x.shape[0]):
        segment = steps if steps * states <= KEPT else SEGMENT
        kept = np.empty(((steps - 1) // segment + 1, states, LANES), np.float32)
        survivors = np.empty((segment + 1, states, LANES), np.float32)
        now = ends[block].copy()
        for lane in range(LANES):
            survivors[0, :, lane] = 0 if now[lane] == ANY else np.inf
            if now[lane] != ANY:
                survivors[0, now[lane], lane] = 0
        for s in range(len(kept)):
            start, stop = s * segment, min((s + 1) * segment, steps)
            kept[s] = survivors[0]
            _advance(survivors, x[block], subset, code, k, start, stop)
            if s < len(kept) - 1:
                survivors[0] = survivors[stop - start]
        for lane in range(LANES):
            if now[lane] == ANY:
                now[lane] = np.argmin(survivors[stop - start, :, lane])
        for s in range(len(kept) - 1, -1, -1):  # the last segment is still there
            start, stop = s * segment, min((s + 1) * segment, steps)
            if s < len(kept) - 1:
                survivors[0] = kept[s]
                _advance(survivors, x[block], subset, code, k, start, stop)
            _trace(survivors, x[block], subset, code, k, start, stop, now, path[block])
    return path


def best_paths(
    x: np.ndarray, subset: np.ndarray, code: np.ndarray, k: int, ends: np.ndarray | None = None
) -> np.ndarray:
    """Registers along the paths of least Σ (x − code[r])², int32 (sequences, steps).

    A thread needs (steps / 16 + 17)·2^(L − k)·128 bytes, or 16 MB where that is more.

    Args:
        x: samples, (sequences, steps, subsets).
        subset: which column of x register r is compared with, integer (2^L,).
        code: reproduction of each register, (2^L,).
        k: bits of a step.
        ends: state before the first and after the last step of each sequence; any two where None.
    """
    lanes = _in_lanes(x)
    wanted = np.full(len(lanes) * LANES, ANY, np.int64)
    if ends is not None:
        wanted[: len(x)] = ends
    path = _search(
        lanes, subset.astype(np.int64), code.astype(np.float32), k, wanted.reshape(len(lanes), LANES)
    )
    return path.transpose(0, 2, 1).reshape(-1, x.shape[1])[: len(x)]


def _in_lanes(x: np.ndarray) -> np.ndarray:
    """(sequences, steps, subsets) → float32 (blocks, steps, subsets, lanes), sequences of zeros at the end."""
    blocks = -(-len(x) // LANES)
    padded = np.zeros((blocks * LANES, *x.shape[1:]), np.float32)
    padded[: len(x)] = x
    return np.ascontiguousarray(np.moveaxis(padded.reshape(blocks, LANES, *x.shape[1:]), 1, -1))


def tail_biting_paths(x: np.ndarray, subset: np.ndarray, code: np.ndarray, k: int, window: int) -> np.ndarray:
    """Registers along paths that end in the state in which they began, so that no state needs to be sent.

    A first search around the seam, ``window`` steps to either side, finds the state there; a second one, from
    that state to that state, finds the path.  See :func:`best_paths` for the other arguments.

    References:
        Tseng et al. 2024 (QTIP), arXiv:2406.11235: the two passes.
    """
    if not len(x):
        return np.zeros(x.shape[:2], np.int32)
    around = np.take(x, np.arange(-window, window), axis=1, mode="wrap")
    seam = best_paths(around, subset, code, k)[:, window - 1] >> k
    return best_paths(x, subset, code, k, seam)
