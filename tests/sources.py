"""Seeded weight matrices for tests, codes of them, and a fixture for tests of thousands of small matrices."""

from collections.abc import Iterator
from functools import cache

import ml_dtypes
import numba
import numpy as np
import pytest
from scipy.stats import norm

from rdlib.code.code import Code
from rdlib.quantizers import Quantizer

DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On small matrices threads only wait for each other, for long where the machine is busy.

    A test module that imports this fixture runs on one thread.
    """
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    yield
    numba.set_num_threads(threads)


def gaussian(shape: tuple[int, ...], dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """N(0, 1) samples."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def heavy(shape: tuple[int, ...], dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    """Student-t samples, ν = 3, of the size of weights."""
    return (0.02 * np.random.default_rng(seed).standard_t(3, shape)).astype(dtype)


def gaussian_quantiles(n: int) -> np.ndarray:
    """The n midpoint quantiles of N(0, 1) as one float32 row: a Gaussian sample without sampling error."""
    return norm.ppf((np.arange(n) + 0.5) / n).astype(np.float32)[None]


# What many tests write with every quantizer.
SOURCES = {"heavy": heavy((24, 172)), "gaussian": gaussian((32, 256))}


@cache
def coded(quantizer: Quantizer, source: str) -> Code:
    """The code of a source: each quantizer writes each only once in a process."""
    return quantizer.encode(SOURCES[source])
