"""The fast Walsh–Hadamard transform."""

import numpy as np
from numba import njit


@njit(cache=True)
def butterflies(flat: np.ndarray, lanes: int) -> None:
    """√n·𝓗ₙ times a matrix (n, lanes), n a power of two, in place: sums and differences of rows 1, 2, 4, … apart.

    Args:
        flat: the matrix, row by row, (n·lanes,).
        lanes: of its columns.
    """
    half = lanes
    while half < len(flat):
        for start in range(0, len(flat), 2 * half):
            for j in range(start, start + half):
                one, other = flat[j], flat[j + half]
                flat[j], flat[j + half] = one + other, one - other
        half *= 2
