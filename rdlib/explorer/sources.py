"""Synthetic sources: weights whose tail, or whose rows, one number sets."""

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from scipy import stats

SIDE = 256  # of the matrix, (SIDE, SIDE)


@dataclass(frozen=True)
class Source:
    """A kind of source.

    Args:
        name: for a reader.
        symbol: of its one number; empty where it has none.
        numbers: that the number may be.
        draw: number, where it has one → (SIDE, SIDE), σ = 1, bfloat16.
    """

    name: str
    symbol: str
    numbers: tuple[float, ...]
    draw: Callable[..., np.ndarray]

    def weights(self, number: float) -> np.ndarray:
        """Weights of the source."""
        return self.draw(number) if self.symbol else self.draw()

    def label(self, number: float) -> str:
        """``Student-t, ν = 3``."""
        return f"{self.name}, {self.symbol} = {written(number)}" if self.symbol else self.name

    def python(self, number: float) -> str:
        """What makes these weights, in Python."""
        given = f'float("{number}")' if np.isinf(number) else f"{number:g}"
        return f"{self.draw.__name__}({given if self.symbol else ''})"


def written(number: float) -> str:
    """A number of a source for a reader: ``∞`` for infinity."""
    return "∞" if np.isinf(number) else f"{number:g}"


def student_t(nu: float) -> np.ndarray:
    """Independent weights with density ∝ (1 + x²/ν)^(−(ν+1)/2): the smaller ν, the heavier the tail; ∞ is Gaussian.

    They are the (i − ½)/n quantiles in random order, so that the same ν gives the same weights.

    Args:
        nu: ν > 2, so that the variance is finite.
    """
    return _shuffled(lambda u: stats.norm.ppf(u) if np.isinf(nu) else stats.t.ppf(u, nu))


def laplacian() -> np.ndarray:
    """Independent weights with density ∝ e^(−√2·|x|/σ)."""
    return _shuffled(stats.laplace.ppf)


def scattered_variances(ratio: float) -> np.ndarray:
    """Gaussian weights, every tenth with a σ that is ``ratio`` times as large, anywhere in the matrix."""
    W = rows_of_two_variances(ratio).astype(np.float64).ravel()
    return np.random.default_rng(1).permutation(W).reshape(SIDE, SIDE).astype(ml_dtypes.bfloat16)


def rows_of_two_variances(ratio: float) -> np.ndarray:
    """The same weights as :func:`scattered_variances`, but the large ones fill a tenth of the rows."""
    W = student_t(float("inf")).astype(np.float64)
    W[::10] *= ratio
    return (W / W.std()).astype(ml_dtypes.bfloat16)


def _shuffled(quantile: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    x = quantile((np.arange(SIDE * SIDE) + 0.5) / SIDE**2)
    x = np.random.default_rng(0).permutation(x / x.std())
    return x.reshape(SIDE, SIDE).astype(ml_dtypes.bfloat16)


RATIOS = (1, 2, 4, 8, 16)
SOURCES = {
    source.name: source
    for source in (
        Source("Student-t", "ν", (3, 4, 5, 6, 8, 12, 20, 50, float("inf")), student_t),
        Source("Laplacian", "", (1,), laplacian),
        Source("two variances, scattered", "σ₂/σ₁", RATIOS, scattered_variances),
        Source("two variances, by rows", "σ₂/σ₁", RATIOS, rows_of_two_variances),
    )
}
