"""R(D) of one source as a certified sandwich: what `rdlib.theory.blahut` returns."""

from dataclasses import dataclass

import numpy as np

from rdlib.theory.gaussian import Array, at_least_zero, gaussian_rate


@dataclass(frozen=True)
class RateDistortion:
    """R(D) of one source, between an upper and a lower bound, at every distortion and at every rate.

    The k computed points are joined without losing rigour, by three facts: R is convex, R(variance) = 0 and
    R(0) = H(X); the lines below R stay below it; and R(D) + ½·log₂ D never decreases with D, because the
    error that a code leaves can be described further, to D' < D, with at most ½·log₂(D/D') bits.

    The bounds take a mean squared error D, or a rate R in bits per value, of any shape; they raise a ValueError where
    one is negative or NaN.

    Attributes:
        distortion: (k,) mean squared errors, from the steepest slope to the flattest: ascending.
        upper: (k,) rates achieved there, bits per value.
        slope: (k,) s of the certified lines R(D) ≥ a − s·D below the whole curve, bits per unit MSE.
        intercept: (k,) their a, bits per value.
        variance: of the source; there the rate is 0.
        entropy: H(X) in bits per value; at that rate the distortion is 0.
    """

    distortion: Array
    upper: Array
    slope: Array
    intercept: Array
    variance: float
    entropy: float

    @property
    def lower(self) -> Array:
        """(k,) a − s·D at the computed points, and ≥ 0: rates below which no code gets there, bits per value."""
        return np.maximum(self.intercept - self.slope * self.distortion, 0)

    def rate_upper(self, D: Array | float) -> Array | float:
        """R(D) ≤ the chords, and R_i + ½·log₂⁺(D_i/D): a rate that suffices for ``D``, bits per value."""
        D = at_least_zero(D, "distortion")
        points, rates = self._achieved()
        refined = rates[1:] + gaussian_rate(D[..., None], points[1:])
        return np.minimum(refined.min(axis=-1), np.interp(D, points, rates))[()]

    def rate_lower(self, D: Array | float) -> Array | float:
        """R(D) ≥ 0, the lines, and L_i − ½·log₂⁺(D/D_i): no code within ``D`` has less, bits per value."""
        D = at_least_zero(D, "distortion")[..., None]
        lines = self.intercept - self.slope * D
        unrefined = self.lower - gaussian_rate(self.distortion, np.maximum(D, self.distortion))
        return np.maximum(lines, unrefined).max(axis=-1, initial=0.0)[()]

    def distortion_upper(self, R: Array | float) -> Array | float:
        """The inverse of `rate_upper`: a mean squared error that ``R`` bits per value suffice for."""
        R = at_least_zero(R, "rate")
        points, rates = self._achieved()
        refined = np.where(rates <= R[..., None], points * 4.0 ** (rates - R[..., None]), np.inf)
        return np.minimum(refined.min(axis=-1), np.interp(R, rates[::-1], points[::-1]))[()]

    def distortion_lower(self, R: Array | float) -> Array | float:
        """The inverse of `rate_lower`: no code of ``R`` bits per value has a smaller mean squared error."""
        R = at_least_zero(R, "rate")[..., None]
        lines, spare = (self.intercept - R) / self.slope, self.lower - R
        unrefined = np.where(spare > 0, self.distortion * 4.0 ** np.maximum(spare, 0), 0.0)
        return np.maximum(lines, unrefined).max(axis=-1, initial=0.0)[()]

    def _achieved(self) -> tuple[Array, Array]:
        """All achieved points (distortion ascending, rate descending), with (0, H) and (variance, 0)."""
        order = np.argsort(self.distortion)
        points = np.concatenate([[0.0], self.distortion[order], [self.variance]])
        rates = np.concatenate([[self.entropy], self.upper[order], [0.0]])
        return points, np.minimum.accumulate(rates)
