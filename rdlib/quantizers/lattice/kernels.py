"""The lattice point nearest to each of many points, exactly: A2, D4 and E8, compiled.

All three are of Construction A: a point has integer coordinates x whose remainders modulo 2 are a word of a
binary code.  To find the nearest is to decode that code with soft decisions: every coordinate says how much it
would cost to have the other remainder.  Between points that are equally near, either may be returned.

References:
    Conway and Sloane, Fast quantizing and decoding algorithms for lattice quantizers and codes, IEEE Trans.
    Inf. Theory 28 (1982), doi:10.1109/TIT.1982.1056484.
"""

import numpy as np
from numba import njit

SQRT3 = np.sqrt(3.0)


@njit(cache=True, inline="always")
def _butterflies(values: np.ndarray, half: int) -> None:
    """One of the three passes of a Hadamard transform of 8 values, in place."""
    for start in range(0, 8, 2 * half):
        for k in range(start, start + half):
            a, b = values[k], values[k + half]
            values[k], values[k + half] = a + b, a - b


@njit(cache=True)
def nearest_a2(points: np.ndarray) -> np.ndarray:
    """The x of least (p₁ − x₁)² + (p₂ − √3·x₂)² with x₁ + x₂ even: the hexagonal lattice.

    It is two rectangular grids, of even and of odd coordinates; the better of the nearest points of both.

    Args:
        points: float64, (n, 2).

    Returns:
        int32, (n, 2).
    """
    x = np.empty(points.shape, np.int32)
    for i in range(len(points)):
        p, q = points[i, 0], points[i, 1] / SQRT3
        even_p, even_q = 2 * np.rint(p / 2), 2 * np.rint(q / 2)
        odd_p, odd_q = 2 * np.floor(p / 2) + 1, 2 * np.floor(q / 2) + 1
        even = (p - even_p) ** 2 + 3 * (q - even_q) ** 2
        odd = (p - odd_p) ** 2 + 3 * (q - odd_q) ** 2
        x[i, 0] = even_p if even <= odd else odd_p
        x[i, 1] = even_q if even <= odd else odd_q
    return x


@njit(cache=True)
def nearest_d4(points: np.ndarray) -> np.ndarray:
    """The x of least Σ (p − x)² with an even sum: the checkerboard lattice.

    Every coordinate is rounded; if the sum is odd, the one that was rounded furthest goes to the other side.

    Args:
        points: float64, (n, 4).

    Returns:
        int32, (n, 4).
    """
    x = np.empty(points.shape, np.int32)
    for i in range(len(points)):
        total, worst, furthest = 0, 0, -1.0
        for k in range(4):
            x[i, k] = np.int32(np.rint(points[i, k]))
            total += x[i, k]
            if abs(points[i, k] - x[i, k]) > furthest:
                worst, furthest = k, abs(points[i, k] - x[i, k])
        if total & 1:
            x[i, worst] += 1 if points[i, worst] > x[i, worst] else -1
    return x


@njit(cache=True)
def nearest_e8(points: np.ndarray) -> np.ndarray:
    """The x of least Σ (p − x)² with x modulo 2 in the extended Hamming code [8, 4]: Gosset's lattice.

    A coordinate at the distance δ from the nearest integer pays (1 − |δ|)² − δ² = 1 − 2·|δ| for the other
    remainder.  The code is the Reed–Muller code RM(1, 3), whose words are the rows of the Hadamard matrix and
    their complements: a fast Hadamard transform, 24 additions, gives what all 16 words pay.

    Args:
        points: float64, (n, 8).

    Returns:
        int32, (n, 8).
    """
    x = np.empty(points.shape, np.int32)
    nearest = np.empty(8)
    gain = np.empty(8)  # of remainder 0 over remainder 1; after the transform, of a word over its complement
    for i in range(len(points)):
        for k in range(8):
            nearest[k] = np.rint(points[i, k])
            gain[k] = (1 - 2 * abs(points[i, k] - nearest[k])) * (1 - 2 * (np.int32(nearest[k]) & 1))
        _butterflies(gain, 4)
        _butterflies(gain, 2)
        _butterflies(gain, 1)
        word = 0
        for k in range(1, 8):
            if abs(gain[k]) > abs(gain[word]):
                word = k
        complement = 1 if gain[word] < 0 else 0
        for k in range(8):
            common = k & word
            remainder = (common ^ (common >> 1) ^ (common >> 2) ^ complement) & 1
            side = 1 if points[i, k] > nearest[k] else -1
            integer = np.int32(nearest[k])
            x[i, k] = integer + side * ((integer & 1) ^ remainder)
    return x
