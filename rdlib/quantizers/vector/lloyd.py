"""The nearest of many codewords, and Lloyd's iteration with it.

All distances are computed, for many points at once by vector instructions, and none is kept: with few coordinates that
is faster than a product of matrices, and the sums are the same on every processor.
"""

import numpy as np
from numba import njit, prange

LANES = 64  # points that are compared with a codeword together


def nearest(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the entry of least squared distance to each vector, the first of equal ones, int64 (n,).

    Args:
        vectors: float32 (n, d).
        codebook: float32 (k, d).
    """
    return _compared(_in_lanes(vectors), codebook)[0][: len(vectors)].astype(np.int64)


def lloyd(vectors: np.ndarray, codebook: np.ndarray, iterations: int) -> tuple[np.ndarray, float]:
    """The codebook, each entry moved to the mean of the vectors nearest to it, until none moves or so many times.

    An entry that no vector is nearest to goes where a vector is farthest from its own.

    Args:
        vectors: float32 (n, d).
        codebook: float32 (k, d), where it begins; it is not changed.
        iterations: at most.

    Returns:
        the entries, float32 (k, d), and the mean squared distance to those before the last move.

    References:
        Lloyd 1982, doi:10.1109/TIT.1982.1056489.
    """
    lanes, distance = _in_lanes(vectors), np.zeros(len(vectors), np.float32)
    for _ in range(iterations):
        index, distance = (found[: len(vectors)] for found in _compared(lanes, codebook))
        means, counts = _means(vectors, index, codebook)
        if not counts.all():
            empty = np.flatnonzero(counts == 0)[: len(vectors)]
            means[empty] = vectors[np.argsort(distance, kind="stable")[len(vectors) - len(empty) :]]
        if np.array_equal(means, codebook):
            break
        codebook = means
    return codebook, float(distance.mean(dtype=np.float64)) if len(vectors) else 0.0


def _compared(lanes: np.ndarray, codebook: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the nearest entry, int32, and squared distance to it, float32, both of at least n vectors."""
    width = lanes.shape[1]
    padded = np.pad(codebook, ((0, 0), (0, width - codebook.shape[1])))
    index, distance = _compared_in_lanes(lanes, padded, (0,) * width)
    return index.ravel(), distance.ravel()


def _in_lanes(vectors: np.ndarray) -> np.ndarray:
    """(n, d) → float32 (⌈n / lanes⌉, w, lanes), zeros at the end; w is the power of two from d on."""
    n, d = vectors.shape
    padded = np.pad(vectors, ((0, -n % LANES), (0, (1 << (d - 1).bit_length()) - d)))
    return np.ascontiguousarray(padded.reshape(-1, LANES, padded.shape[1]).transpose(0, 2, 1), np.float32)


@njit(cache=True, parallel=True)
def _compared_in_lanes(
    lanes: np.ndarray, codebook: np.ndarray, coordinates: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`_compared`, (blocks, lanes), of as many coordinates as the tuple has: the compiler knows its length."""
    index, distance = np.empty((len(lanes), LANES), np.int32), np.empty((len(lanes), LANES), np.float32)
    for block in prange(len(lanes)):
        x, nearest = lanes[block], np.zeros(LANES, np.int32)
        least = np.full(LANES, np.float32(np.inf), np.float32)
        for k in range(len(codebook)):
            word = np.int32(k)
            for i in range(LANES):
                far = np.float32(0)
                for c in range(len(coordinates)):
                    far += (x[c, i] - codebook[k, c]) * (x[c, i] - codebook[k, c])
                closer = far < least[i]
                nearest[i] = word if closer else nearest[i]
                least[i] = far if closer else least[i]
        index[block], distance[block] = nearest, least
    return index, distance


@njit(cache=True)
def _means(vectors: np.ndarray, index: np.ndarray, codebook: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the vectors of each entry, float32 (k, d), the entry itself where there are none, and how many, (k,)."""
    sums, counts = np.zeros(codebook.shape), np.zeros(len(codebook), np.int64)
    for i in range(len(vectors)):
        counts[index[i]] += 1
        for c in range(vectors.shape[1]):
            sums[index[i], c] += vectors[i, c]
    means = codebook.copy()
    for k in range(len(codebook)):
        if counts[k]:
            means[k] = sums[k] / counts[k]
    return means, counts
