"""What dividing a block of weights by its largest magnitude does to their distribution.

A table of 16 levels such as NF4 never meets a Gaussian: it meets w / max |w| of a block.  One weight of every
block is −1 or 1 exactly, the others are a Gaussian cut at a random place.  Which table is best for them depends on
the size of the block as well as on the source, so that one table's victory over another says little about
whether weights are Gaussian.

The integrals over the largest magnitude m of n = ``size`` weights follow from the distribution of an extreme,
P(max |w| ≤ m) = (2Φ(m) − 1)^n (David and Nagaraja, Order Statistics, 3rd edition 2003, section 2.1).  Yoshida 2023,
NF4 Isn't Information Theoretically Optimal (and that's Good), arXiv:2306.06965, uses the same distribution.
"""

from collections.abc import Collection
from functools import cache

import numpy as np
from scipy.special import ndtr

from rdlib.weights import as_float32, ratio

FARTHEST = 12.0  # standard deviations: beyond them are 10⁻³² of all weights
ITERATIONS = 500  # of Lloyd's: the distortion then falls by less than 10⁻⁶ of itself
NODES = 200  # of the quadrature over m, from 0 to FARTHEST


def block_normalised(W: np.ndarray, size: int) -> np.ndarray:
    """u = w / max |w| over blocks of ``size`` neighbours, float32 from −1 to 1, the shape of W.

    Blocks run over the whole matrix, row after row, as those of NF4; the last one may be shorter.  Blocks of
    zeros stay zero.

    Raises:
        ValueError: ``size`` is less than 1, or ``W`` is no weight matrix or holds NaN or Inf.
    """
    _check_size(size, 1)
    flat = as_float32(W).ravel()
    padded = np.zeros((-(-flat.size // size), size), np.float32)
    padded.ravel()[: flat.size] = flat
    largest = np.abs(padded).max(axis=1, keepdims=True, initial=0)
    return ratio(padded, largest).ravel()[: flat.size].reshape(W.shape)


def gaussian_block_density(u: np.ndarray | float, size: int) -> np.ndarray | float:
    """Density of u = w / max |w| at −1 < u < 1 for Gaussian w: 2(n − 1) ∫ m φ(mu) φ(m) (2Φ(m) − 1)^(n−2) dm.

    Its integral is 1 − 1/n; the rest are the largest weights themselves, of probability 1/(2n) at −1 and at 1.

    Args:
        u: any shape.
        size: n, weights in a block.

    Returns:
        the shape of ``u``; 0 beyond ±1.

    Raises:
        ValueError: ``size`` is less than 2, or ``u`` is NaN.
    """
    m, weight = _largest_of(size)
    u = np.asarray(u, float)
    if np.isnan(u).any():
        raise ValueError("u is NaN")
    inside = (weight * m * _phi(m * u[..., None])).sum(axis=-1)
    return np.where(np.abs(u) <= 1, inside, 0.0)[()]


def gaussian_block_mse(levels: np.ndarray, size: int) -> float:
    """E (w − m·t(w / m))² of N(0, 1), m = max |w| of its block, t the nearest level; no bit spent on m.

    2(n − 1) ∫ φ(m) (2Φ(m) − 1)^(n−2) g(m) dm, g(m) = ∫ (x − m·t(x / m))² φ(x) dx from −m to m.  The largest weight
    of a block is a level, and has no error.

    Args:
        levels: t, rising, in units of m; 1 or −1 is among them.  With −1 only, blocks are understood to be
            divided by the largest weight *with* its sign, as in Q4_0.
        size: n, weights in a block.

    Raises:
        ValueError: ``size`` is less than 2, or ``levels`` do not rise from −1 or to 1.
    """
    levels = np.asarray(levels, float)
    if np.any(np.diff(levels) < 0) or not np.isclose(np.abs(levels).max(initial=0), 1):
        raise ValueError("Levels must rise, and reach −1 or 1, the largest magnitude of a block.")
    m, weight = _largest_of(size)
    edges = np.concatenate([[-1.0], np.clip((levels[:-1] + levels[1:]) / 2, -1, 1), [1.0]])
    low, high = np.outer(m, edges[:-1]), np.outer(m, edges[1:])
    return float(weight @ _squared_error(low, high, np.outer(m, levels)).sum(axis=1))


def gaussian_block_levels(size: int, fixed: Collection[float] = (-1.0, 1.0), count: int = 16) -> np.ndarray:
    """Levels of least :func:`gaussian_block_mse`, by Lloyd's iteration: a level moves to E[m·x] / E[m²] of its cell.

    Args:
        size: n, weights in a block.
        fixed: levels that are kept; those of the largest weight of a block: −1 and 1, or −1 where blocks are divided
            by it *with* its sign.
        count: of levels, those that are fixed among them.

    Raises:
        ValueError: ``size`` is less than 2.

    References:
        Yoshida 2023, arXiv:2306.06965 (AF4, of least mean magnitude); Blumenberg, Graave and Fingscheidt 2025,
        arXiv:2505.06653 (BOF4, of least mean square, with a level at 0).
    """
    m, weight = _largest_of(size)
    levels = np.linspace(-1, 1, count + (1.0 not in fixed))[:count]
    free = ~np.isin(levels, list(fixed))
    for _ in range(ITERATIONS):
        edges = np.concatenate([[-1.0], (levels[:-1] + levels[1:]) / 2, [1.0]])
        low, high = np.outer(m, edges[:-1]), np.outer(m, edges[1:])
        centre = (weight * m) @ (_phi(low) - _phi(high)) / ((weight * m**2) @ (ndtr(high) - ndtr(low)))
        levels = np.where(free, centre, levels)
    return levels


def _largest_of(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes m, and the weights of an integral over them with the density 2(n − 1) φ(m) (2Φ(m) − 1)^(n−2)."""
    _check_size(size, 2)
    x, w = _gauss_legendre()
    m = FARTHEST * (x + 1) / 2
    return m, FARTHEST * w * (size - 1) * _phi(m) * (2 * ndtr(m) - 1) ** (size - 2)


@cache
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(NODES)


def _squared_error(low: np.ndarray, high: np.ndarray, level: np.ndarray) -> np.ndarray:
    """∫ (x − t)² φ(x) dx from ``low`` to ``high``: (1 + t²) ΔΦ − Δ(xφ) + 2t Δφ."""
    mass = ndtr(high) - ndtr(low)
    return (
        (1 + level**2) * mass - (high * _phi(high) - low * _phi(low)) + 2 * level * (_phi(high) - _phi(low))
    )


def _phi(x: np.ndarray) -> np.ndarray:
    """Density of N(0, 1)."""
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def _check_size(size: int, least: int) -> None:
    if not size >= least:
        raise ValueError(f"A block holds at least {least} weights here, not {size}.")
