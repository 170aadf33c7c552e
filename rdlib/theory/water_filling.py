"""Reverse water-filling: R(D) of Gaussian components of different variances."""

from typing import NamedTuple

import numpy as np

from rdlib.theory.gaussian import Array, at_least_zero, gaussian_rate


class WaterFilling(NamedTuple):
    """Reverse water-filling: how a distortion is best shared out.

    Attributes:
        rate: bits per weight, the shape of the question.
        distortion: mean squared error, the same shape.
        level: θ, of the water: the distortion of every component that is coded at all.
        components: distortion of each component, min(θ, variance), shape (..., k).
    """

    rate: Array | float
    distortion: Array | float
    level: Array | float
    components: Array


def water_filling(
    variances: Array, D: Array | float, weights: Array | None = None, side_rate: float = 0.0
) -> WaterFilling:
    """R = Σ_i w_i·½·log₂(v_i / min(θ, v_i)), the level θ such that Σ_i w_i·min(θ, v_i) = D.

    The R(D) of rows or groups that are Gaussian with variances v_i known on both sides.  Given the entropy
    powers of the components instead, it is their Shannon lower bound, whatever their shape.

    >>> filled = water_filling([4, 1, 0.25], 0.75)  # the third component is under water
    >>> float(filled.level), float(filled.rate)
    (1.0, 0.3333333333333333)

    Args:
        variances: (k,) ≥ 0, of rows, groups or eigenvectors.
        D: mean squared error ≥ 0, any shape; beyond the mean variance the rate is 0.
        weights: (k,) share of the weights in each component, any scale; equal by default.
        side_rate: bits per weight spent on sending the variances (16 k / n for float16), added to the rate.

    Raises:
        ValueError: if a variance, a weight, ``D`` or ``side_rate`` is negative or NaN, or no weight positive.

    References:
        Kolmogorov, On the Shannon theory of information transmission in the case of continuous signals, IRE
        Trans. Inf. Theory 2 (1956), doi:10.1109/TIT.1956.1056823; Cover and Thomas (2006), theorem 10.3.3.
    """
    variances, weights = _components(variances, weights)
    order = np.argsort(variances)
    v, w = variances[order], weights[order]
    below, above = np.cumsum(w * v), 1 - np.cumsum(w)  # D is piecewise linear in the level, with kinks at v
    kinks, nodes = np.append(0, v), np.append(0, below + v * above)
    level = np.interp(at_least_zero(D, "distortion"), nodes, kinks)
    return _filled(variances, weights, level, side_rate)


def water_filling_at_rate(
    variances: Array, R: Array | float, weights: Array | None = None, side_rate: float = 0.0
) -> WaterFilling:
    """The inverse of `water_filling`: the least distortion for ``R`` bits per weight in total.

    Args:
        variances: (k,) ≥ 0.
        R: bits per weight ≥ 0, any shape, side rate included; up to the side rate, nothing is left for the weights.
        weights: (k,) share of the weights in each component, any scale; equal by default.
        side_rate: bits per weight spent on sending the variances.

    Raises:
        ValueError: if a variance, a weight, ``R`` or ``side_rate`` is negative or NaN, or no weight positive.

    References:
        As for `water_filling`.
    """
    variances, weights = _components(variances, weights)
    spare = np.maximum(at_least_zero(R, "rate") - side_rate, 0)
    alive = np.flatnonzero((variances > 0) & (weights > 0))
    if alive.size == 0:
        return _filled(variances, weights, np.zeros_like(spare), side_rate)
    alive = alive[np.argsort(-variances[alive])]
    kinks, share = np.log2(variances[alive]), np.cumsum(weights[alive])
    nodes = (np.cumsum(weights[alive] * kinks) - share * kinks) / 2  # R is piecewise linear in log₂ θ
    under = np.maximum(spare - nodes[-1], 0)
    level = 2.0 ** (np.interp(spare, nodes, kinks) - 2 * under / share[-1])
    return _filled(variances, weights, level, side_rate)


def _components(variances: Array, weights: Array | None) -> tuple[Array, Array]:
    """Both as float64 vectors of one length, the weights with the sum 1."""
    variances = at_least_zero(variances, "variance")
    weights = np.ones_like(variances) if weights is None else at_least_zero(weights, "weight")
    if variances.ndim != 1 or variances.shape != weights.shape:
        raise ValueError(f"variances {variances.shape} and weights {weights.shape} are no equal vectors")
    if not weights.sum() > 0:
        raise ValueError("no component has a positive weight")
    return variances, weights / weights.sum()


def _filled(variances: Array, weights: Array, level: Array, side_rate: float) -> WaterFilling:
    """Rate and distortion of every component filled up to ``level``."""
    components = np.minimum(np.asarray(level)[..., None], variances)
    used = weights > 0
    rates = gaussian_rate(components[..., used], variances[used])
    rate = at_least_zero(side_rate, "side rate") + rates @ weights[used]
    return WaterFilling(rate[()], (components @ weights)[()], np.asarray(level)[()], components)
