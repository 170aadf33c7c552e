"""The entropy-coded uniform quantizer of a Gaussian, exactly: its rate and its error at any step."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr


class EntropyCodedUniform(NamedTuple):
    """A uniform grid on the unit Gaussian: entropy, and mean squared error with either reconstruction.

    Attributes:
        step: of the grid; the cells are (k − ½)·step … (k + ½)·step.
        rate: entropy of the index, bits per weight.
        midpoint: D if a cell is decoded to its middle.
        centroid: D if a cell is decoded to the mean of the source in it.
    """

    step: float
    rate: float
    midpoint: float
    centroid: float


def entropy_coded_uniform(step: float) -> EntropyCodedUniform:
    """H = −Σ p·log₂ p, D = Σ E[(X − y)²; cell] over the cells of a uniform grid on the unit Gaussian.

    Exact: with a, b the ends of a cell, its mass is Φ(b) − Φ(a) and its first moment φ(a) − φ(b).  So
    D = 1 − 2·Σ ym + Σ y²p for midpoints y, and 1 − Σ m²/p for centroids.

    Args:
        step: > 0.

    Raises:
        ValueError: if ``step`` is not positive and finite.

    References:
        Goblick and Holsinger, Analog source digitization: a comparison of theory and practice, IEEE Trans.
        Inf. Theory 13 (1967); Gish and Pierce (1968), doi:10.1109/TIT.1968.1054193.
    """
    if not 0 < step < np.inf:
        raise ValueError(f"step {step} must be positive and finite")
    y = step * np.arange(1, np.ceil(12 / step) + 1)  # the cells right of the middle one; the left are alike
    a, b = y - step / 2, y + step / 2
    p = ndtr(-a) - ndtr(-b)
    y, a, b, p = y[p > 0], a[p > 0], b[p > 0], p[p > 0]
    m = (np.exp(-(a**2) / 2) - np.exp(-(b**2) / 2)) / np.sqrt(2 * np.pi)
    middle = 1 - 2 * ndtr(-step / 2)
    entropy = -middle * np.log2(middle) - 2 * p @ np.log2(p)
    midpoint, centroid = 1 - 2 * y @ (2 * m - y * p), 1 - 2 * m @ (m / p)
    return EntropyCodedUniform(float(step), float(entropy), float(midpoint), float(centroid))


def entropy_coded_uniform_at(rate: float) -> EntropyCodedUniform:
    """The same, with the step at which H = ``rate``.

    Args:
        rate: 1e-6 … 16 bits per weight.

    Raises:
        ValueError: if the rate is outside this range.
    """
    if not 1e-6 <= rate <= 16:
        raise ValueError(f"rate {rate} is outside 1e-6 ... 16 bits")
    log_step = brentq(lambda t: entropy_coded_uniform(np.exp(t)).rate - rate, np.log(3e-5), np.log(20))
    return entropy_coded_uniform(np.exp(log_step))
