"""The limit of a whole model: the least bits for a KL that is quadratic in the errors of Gaussian weights.

Near the model, KL ≈ Σ_ℓ ½ tr(G_ℓ E_ℓ H_ℓ E_ℓᵀ): the Fisher information in Kronecker form, H of what enters a matrix
and G of the gradients of what leaves it.  In the eigenvectors of both, weights are independent, and each has a share
of the KL: all matrices are one Gaussian source of many variances, and reverse water-filling with one level for the
whole model gives the least rate.

References:
    Kolmogorov 1956, doi:10.1109/TIT.1956.1056823; Martens and Grosse 2015 (K-FAC), arXiv:1503.05671; for two-sided
    feedback, Tseng et al. 2025 (YAQA), arXiv:2505.22988.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from scipy.optimize import brentq

from rdlib.theory.gaussian import Array, at_least_zero

TOLERANCE = 1e-13  # of ln θ


class Share:
    """The part of one matrix in the KL: α·γ_j·λ_i / Σγ·Σλ of the component (j, i), for out·in of them.

    Args:
        alpha: α, KL of the model where this matrix is zero, by the quadratic law, in nats per token.
        columns: λ, (in,) ≥ 0: eigenvalues of H, or any other sizes of the input directions.
        rows: γ, (out,) ≥ 0: eigenvalues of G, or any other sizes of the output directions; ones for equal ones.

    Raises:
        ValueError: a number is negative or NaN, or there are no directions, or all of one side are 0.
    """

    def __init__(self, alpha: float, columns: Array, rows: Array):
        self.alpha = float(at_least_zero(alpha, "α"))
        columns, rows = (at_least_zero(x, "direction") for x in (columns, rows))
        if min(columns.sum(), rows.sum()) <= 0:
            raise ValueError("A matrix has at least one input and one output direction that is not 0.")
        self.weights = len(columns) * len(rows)
        self._columns = np.sort(columns)[::-1] * (self.alpha / columns.sum())
        self._rows, self._outputs = np.unique(rows / rows.sum(), return_counts=True)
        with np.errstate(divide="ignore"):
            self._logs = np.append(0, np.cumsum(np.log2(self._columns)))
        self._rest = np.append(np.cumsum(self._columns[::-1])[::-1], 0)

    @property
    def largest(self) -> float:
        """The largest component: above this level nothing is coded."""
        return float(self._columns[0] * self._rows[-1])

    def at(self, level: float) -> tuple[float, float]:
        """Bits and KL of the matrix, of components that are filled up to the level θ > 0."""
        thresholds = np.divide(level, self._rows, out=np.full(len(self._rows), np.inf), where=self._rows > 0)
        coded = np.searchsorted(-self._columns, -thresholds)  # how many columns of a row are above the water
        with np.errstate(invalid="ignore"):
            bits = np.where(coded > 0, self._logs[coded] - coded * np.log2(thresholds), 0) / 2
        kl = coded * level + self._rows * self._rest[coded]
        return float(bits @ self._outputs), float(kl @ self._outputs)


class ModelLimit:
    """R(KL) = (1/N) Σ_ℓ Σ_ji ½·log₂⁺(s_ℓji / θ), θ such that Σ min(s_ℓji, θ) = KL: bits per weight of a whole model.

    It bounds every code of weights that are Gaussian and independent, if KL is quadratic in the errors.  Real weights
    may lie below where their power differs between rows or columns, or where they are on a grid.

    Args:
        shares: of every matrix that is coded, at least one.

    Raises:
        ValueError: there is no share, or all are 0.
    """

    def __init__(self, shares: Mapping[str, Share]):
        if not shares or not any(share.alpha for share in shares.values()):
            raise ValueError("The limit of a model needs at least one matrix whose α is not 0.")
        self.shares = dict(shares)

    @cached_property
    def weights(self) -> int:
        """N, of all matrices."""
        return sum(share.weights for share in self.shares.values())

    @cached_property
    def zero_rate_kl(self) -> float:
        """KL where every matrix is zero, by the quadratic law: Σ α."""
        return sum(share.alpha for share in self.shares.values())

    def at(self, level: float) -> tuple[float, float]:
        """Bits per weight and KL at a water level θ > 0."""
        bits, kl = zip(*(share.at(level) for share in self.shares.values()), strict=True)
        return sum(bits) / self.weights, sum(kl)

    def level(self, kl: float) -> float:
        """θ for a KL, 0 < KL ≤ Σ α.

        Raises:
            ValueError: KL is not positive, or it is NaN.
        """
        if not kl > 0:
            raise ValueError(f"a KL of {kl} is not positive: no finite rate reaches it")
        high = max(share.largest for share in self.shares.values())
        if kl >= self.zero_rate_kl * (1 - 1e-12):
            return high
        low = min(kl / self.weights, high) / 2  # KL(θ) ≤ N·θ: the level for a KL is at least KL/N
        found = brentq(
            lambda t: np.log(self.at(np.exp(t))[1] / kl), np.log(low), np.log(high), xtol=TOLERANCE
        )
        return float(np.exp(found))

    def rate(self, kl: float) -> float:
        """The least bits per weight for a KL > 0 in nats per token; 0 from Σ α on.

        Raises:
            ValueError: KL is not positive, or it is NaN.
        """
        return self.at(self.level(kl))[0]

    def kl(self, rate: float) -> float:
        """The inverse of :meth:`rate`: the least KL for so many bits per weight.

        Raises:
            ValueError: the rate is negative or NaN.
        """
        if not rate >= 0:
            raise ValueError(f"a rate of {rate} bits is negative or NaN")
        high = np.log(max(share.largest for share in self.shares.values()))
        low = high - 1
        while self.at(np.exp(low))[0] < rate:
            low -= 2 * (high - low)
        found = brentq(lambda t: self.at(np.exp(t))[0] - rate, low, high, xtol=TOLERANCE)
        return self.at(np.exp(found))[1]

    def rates(self, kl: float) -> dict[str, float]:
        """Bits per weight of every matrix at the least total rate for a KL: where the bits should go.

        Raises:
            ValueError: KL is not positive, or it is NaN.
        """
        level = self.level(kl)
        return {name: share.at(level)[0] / share.weights for name, share in self.shares.items()}
