"""The nearest of many codewords in the plane, and Lloyd's iteration with it.

All distances are computed, for many points at once by vector instructions, and none is kept: in two dimensions that is
faster than the product of matrices by which faiss finds them.
"""

import numpy as np
from numba import njit, prange

POINTS = 64  # that are compared with a codeword together


@njit(cache=True, parallel=True)
def nearest_in_plane(points: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the codeword of least squared distance to each point, int64 (n,).

    Args:
        points: float32 (n, 2).
        codebook: float32 (k, 2).
    """
    index = np.empty(len(points), np.int64)
    for part in prange(-(-len(points) // POINTS)):
        some = points[part * POINTS : (part + 1) * POINTS]
        x, y = some[:, 0].copy(), some[:, 1].copy()
        least, nearest = np.full(len(x), np.inf, np.float32), np.zeros(len(x), np.int32)
        for k in range(len(codebook)):
            a, b, word = codebook[k, 0], codebook[k, 1], np.int32(k)
            for i in range(len(x)):
                d = (x[i] - a) * (x[i] - a) + (y[i] - b) * (y[i] - b)
                closer = d < least[i]
                nearest[i] = word if closer else nearest[i]
                least[i] = d if closer else least[i]
        index[part * POINTS : (part + 1) * POINTS] = nearest
    return index


@njit(cache=True)
def lloyd_in_plane(points: np.ndarray, codebook: np.ndarray, iterations: int) -> np.ndarray:
    """The codebook, each word moved to the mean of the points nearest to it, so many times.

    A word without points stays where it is.

    References:
        Lloyd 1982, doi:10.1109/TIT.1982.1056489.
    """
    codebook = codebook.copy()
    for _ in range(iterations):
        index = nearest_in_plane(points, codebook)
        sums, counts = np.zeros(codebook.shape), np.zeros(len(codebook), np.int64)
        for i in range(len(points)):
            sums[index[i], 0] += points[i, 0]
            sums[index[i], 1] += points[i, 1]
            counts[index[i]] += 1
        for k in range(len(codebook)):
            if counts[k]:
                codebook[k] = sums[k] / counts[k]
    return codebook
