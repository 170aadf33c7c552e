"""Scales of rows and columns on a logarithmic scale of 8 steps an octave, robust against outliers."""

import numpy as np
from numba import njit, prange

from rdlib.code.normal import NARROWEST, OCTAVE

WEAKEST = 5 * OCTAVE  # below the strongest row
FAR = 36.0  # times the mean power: six standard deviations
CLIPS = 12  # rounds that bring the mean down to where it is without outliers


def row_scales(power: np.ndarray) -> np.ndarray:
    """8·log₂ of the root of the mean power of each row over the least, rounded, (out,): at most ``WEAKEST``."""
    mean = _usual_means(power)
    mean = np.maximum(mean / (mean.max(initial=0) or 1), 4.0 ** (-WEAKEST / OCTAVE))
    octaves = np.rint(OCTAVE / 2 * np.log2(mean)).astype(np.int64)
    return octaves - octaves.min(initial=0)


def column_scales(power: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The same of each column, over the scales of its rows, (in,): at least ``NARROWEST``."""
    mean = _usual_means(np.ascontiguousarray((power / powers_of(rows)[:, None]).T))
    return np.rint(OCTAVE / 2 * np.log2(np.maximum(mean, 4.0 ** (NARROWEST / OCTAVE)))).astype(np.int64)


@njit(cache=True)
def scale_of(target: np.ndarray, alpha: float, powers: np.ndarray) -> int:
    """8·log₂ of the standard deviation of a column in units of α, over that of its rows; as :func:`column_scales`."""
    mean = usual_mean(target * target / (powers * alpha * alpha))
    return max(int(np.rint(OCTAVE / 2 * np.log2(mean))), NARROWEST) if mean > 0 else NARROWEST


@njit(cache=True)
def usual_mean(power: np.ndarray) -> float:
    """The mean, (n,), in which no entry counts more than ``FAR`` times the mean, so that outliers are few."""
    mean = power.mean()
    for _ in range(CLIPS):
        if power.max() <= FAR * mean:
            break
        mean = np.minimum(power, FAR * mean).mean()
    return mean


@njit(parallel=True, cache=True)
def _usual_means(power: np.ndarray) -> np.ndarray:
    """:func:`usual_mean` of every row, (rows,); 1 of rows of nothing."""
    means = np.ones(len(power))
    if power.size:
        for i in prange(len(power)):
            means[i] = usual_mean(power[i])
    return means


def powers_of(rows: np.ndarray) -> np.ndarray:
    """s² of a row's scale."""
    return 4.0 ** (rows / OCTAVE)


def ratios_of(spacing: np.ndarray) -> np.ndarray:
    """Spacings in units of the least one, float64."""
    return 2.0 ** (spacing.astype(np.float64) / OCTAVE)
