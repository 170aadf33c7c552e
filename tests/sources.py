"""Seeded weight matrices for tests."""

import ml_dtypes
import numpy as np
from scipy.stats import norm

DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32)


def gaussian(shape: tuple[int, ...], dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """N(0, 1) samples."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def heavy(shape: tuple[int, ...], dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Student-t samples, ν = 3, of the size of weights."""
    return (0.02 * np.random.default_rng(seed).standard_t(3, shape)).astype(dtype)


def gaussian_quantiles(n: int) -> np.ndarray:
    """The n midpoint quantiles of N(0, 1) as one float32 row: a Gaussian sample without sampling error."""
    return norm.ppf((np.arange(n) + 0.5) / n).astype(np.float32)[None]
