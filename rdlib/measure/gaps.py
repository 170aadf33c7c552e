"""Points beside bounds, and curves beside each other."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator


def gap(rate: float, D: float, bound: Callable[[float], float]) -> float:
    """R − R(D) in bits per weight: what a point spends above a bound at its own distortion.

    NaN where the bound is infinite, as that of a density is at D = 0.

    Args:
        rate: R of the point.
        D: of the point, in the unit of the bound.
        bound: D → R(D); of bounds known between two sides, the lower one: the gap is then no smaller than it is.
    """
    least = float(bound(D))
    return float(rate) - least if np.isfinite(least) else float("nan")


def average_gap(curve: pd.DataFrame, reference: pd.DataFrame) -> float:
    """Mean over log D of R(D) − R_reference(D): how many bits a curve lies to the right of another, on average.

    Both are interpolated as R over log D by monotone cubics (PCHIP), over the distortions that both cover.

    Args:
        curve: columns rate and nmse, at least two points of different distortion.
        reference: the same.

    Returns:
        Bits per weight; NaN where the curves have no distortion in common.

    References:
        Bjøntegaard 2001, ITU-T VCEG-M33; with PCHIP instead of one cubic, as VCEG-AI11 advises.
    """
    rates = [_rate_over_log_distortion(points) for points in (curve, reference)]
    low, high = max(r.x[0] for r in rates), min(r.x[-1] for r in rates)
    if not low < high:
        return float("nan")
    a, b = (r.integrate(low, high) / (high - low) for r in rates)
    return float(a - b)


def _rate_over_log_distortion(points: pd.DataFrame) -> PchipInterpolator:
    """R as a function of ln D through the points that no other point of the curve beats."""
    points = points[points.nmse > 0].sort_values("rate")
    points = points[points.nmse < points.nmse.cummin().shift(fill_value=np.inf)].iloc[::-1]
    return PchipInterpolator(np.log(points.nmse), points.rate)


def rate_at(rates: Iterable[float], distortions: Iterable[float], target: float) -> float:
    """The rate at which a measured curve first comes down to a target distortion, in bits per weight.

    Between two measured points log D is taken as linear in R, as high-resolution theory says.

    >>> rate_at([2, 4], [0.4, 0.025], 0.1)
    3.0

    Args:
        rates: of the points, (n,), in any order.
        distortions: of the points, (n,).
        target: D, in the same unit.

    Returns:
        NaN where the curve does not cover the target: nothing is extrapolated.
    """
    r0 = d0 = float("nan")
    for r1, d1 in sorted(zip(rates, distortions, strict=True)):
        if d1 == target:
            return float(r1)
        if d1 < target and d1 <= 0:  # log 0 cannot be interpolated
            return float(r1) if d0 > target else float("nan")
        if d1 < target:
            return float(r0 + (r1 - r0) * np.log(d0 / target) / np.log(d0 / d1))
        r0, d0 = r1, d1
    return float("nan")
