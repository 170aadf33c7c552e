"""High resolution: the constants of fixed-rate and lattice quantizers, and what their cells lose in space filling."""

import numpy as np
from scipy.special import gammaln

from rdlib.theory.gaussian import Array, at_least_zero, to_db

PANTER_DITE_GAUSSIAN = np.sqrt(3) * np.pi / 2
"""2.7207 = (∫ φ^(1/3) dx)³ / 12: D·4^R of the best 2^R levels for the unit Gaussian, at high resolution.  Panter and
Dite, Quantization distortion in pulse-count modulation with nonuniform spacing of levels, Proc. IRE 39 (1951),
doi:10.1109/JRPROC.1951.230419."""


def high_resolution(R: Array | float, coefficient: Array | float) -> Array | float:
    """D = C·2^(−2R): a line of one bit per 6.0206 dB, with the constant of a method.

    Args:
        R: bits per weight ≥ 0, any shape.
        coefficient: C = D·4^R, in squared units of the weights.

    Raises:
        ValueError: if either is negative or NaN.
    """
    return at_least_zero(coefficient, "coefficient") * 4.0 ** -at_least_zero(R, "rate")


NORMALIZED_SECOND_MOMENTS: dict[str, float] = {
    "Z": 1 / 12,
    "A2": 5 / (36 * np.sqrt(3)),
    "D4": 13 / (120 * np.sqrt(2)),
    "E8": 929 / 12960,
    "Leech": 0.065771,
    "limit": 1 / (2 * np.pi * np.e),
}
"""G: mean squared error per dimension of a cell of unit volume.  Z, A2, D4, E8 in closed form, Leech by Monte
Carlo, and what no lattice of any dimension passes.  Conway and Sloane, Voronoi regions of lattices, second
moments of polytopes, and quantization, IEEE Trans. Inf. Theory 28 (1982), doi:10.1109/TIT.1982.1056483, and
Sphere Packings, Lattices and Groups, 3rd edition (1999), table 2.3; limit: Zador (1982)."""


def sphere_second_moment(d: Array | float) -> Array | float:
    """G = Γ(d/2 + 1)^(2/d) / ((d + 2)·π): of a ball, less than of any cell that fills space, d ≥ 1.

    Args:
        d: dimension, any shape.

    Raises:
        ValueError: if a dimension is less than 1.

    References:
        Zador (1982); Conway and Sloane (1999), chapter 2, equation (82).
    """
    d = np.asarray(d, float)
    if not (d >= 1).all():
        raise ValueError("dimensions must be 1 or more")
    return np.exp(gammaln(d / 2 + 1) * 2 / d) / ((d + 2) * np.pi)


def space_filling_loss_db(moment: Array | float) -> Array | float:
    """10·log₁₀(2πeG): what an entropy-coded lattice of second moment G wastes at high resolution, decibels.

    For Z this is 1.5329 dB, or 0.2546 bit: that of entropy-coded rounding.

    Args:
        moment: G, per dimension, of a cell of unit volume; any shape.

    Raises:
        ValueError: if a moment is negative or NaN.

    References:
        Gish and Pierce, Asymptotically efficient quantizing, IEEE Trans. Inf. Theory 14 (1968),
        doi:10.1109/TIT.1968.1054193; Zador (1982).
    """
    return to_db(2 * np.pi * np.e * at_least_zero(moment, "second moment"))
