"""Proxies: what of a weight error can be had without running the network, and how well it ranks the damage."""

from dataclasses import dataclass

import numpy as np

from rdlib.measure import Signal, output_error, squared_errors
from rdlib.weights import as_float32

FEWEST = 6  # clusters of which a bootstrap says something


def error_sizes(
    W: np.ndarray, W_hat: np.ndarray, H: np.ndarray, signal: Signal | None = None
) -> dict[str, float]:
    """Sizes of the error E = W − Ŵ of one matrix; each may be added up over matrices.

    Args:
        W: (out, in).
        W_hat: Ŵ, (out, in).
        H: E[x xᵀ] of the inputs, (in, in).
        signal: of W, where it is known already.

    Returns:
        ``squared`` ‖E‖²; ``relative`` t² = ‖E‖²/‖W‖²; ``diagonal`` tr(E diag(H) Eᵀ); ``output`` tr(E H Eᵀ),
        the squared error of the layer's output; ``relative_output`` tr(E H Eᵀ) / (‖W‖² tr(H)/in), which is t²
        where the error is white and less where it avoids the strong inputs.

    Raises:
        ValueError: ``W`` is no weight matrix or holds NaN or Inf.
    """
    values, signal = as_float32(W), signal or Signal.of(W)
    columns, _ = squared_errors(values, W_hat)
    squared, power = float(columns.sum()), signal.power * signal.size
    output = output_error(values - W_hat, H) * len(values)
    return {
        "squared": squared,
        "relative": squared / power if squared else 0.0,
        "diagonal": float(columns @ H.diagonal()),
        "output": output,
        "relative_output": output / (power * float(H.diagonal().mean())) if output else 0.0,
    }


def with_noise(W: np.ndarray, relative: float, seed: int = 0) -> np.ndarray:
    """W + t‖W‖·G/‖G‖, G Gaussian: white noise with a relative error ‖E‖²/‖W‖² of t² = ``relative``.

    Args:
        W: (out, in).
        relative: t² ≥ 0.
        seed: of the noise.

    Returns:
        (out, in), float32.

    Raises:
        ValueError: ``W`` is no weight matrix or holds NaN or Inf.
    """
    values = as_float32(W)
    G = np.random.default_rng(seed).standard_normal(values.shape)
    scale = np.sqrt(relative * (values.astype(np.float64) ** 2).sum() / (G**2).sum())
    return (values + scale * G).astype(np.float32)


def slope(x: np.ndarray, y: np.ndarray) -> float:
    """α = Σ xy / Σ x², of y ≈ αx: least squares through the origin.

    Args:
        x: (n,).
        y: (n,).
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    return float((x * y).sum() / (x * x).sum())


@dataclass(frozen=True, eq=False)
class RankCorrelation:
    """Spearman's ρ, and what it would have been on other draws of the points.

    Args:
        rho: 1 where one quantity ranks as the other does; NaN where one is constant.
        resampled: ρ on bootstrap resamples; those of two correlations with the same seed are paired.  NaN for a
            draw in which one quantity is constant.
        clusters: how many were drawn from.
    """

    rho: float
    resampled: np.ndarray
    clusters: int

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The percentile bootstrap interval: from the (1 − level)/2 quantile of the resamples to the (1 + level)/2.

        Args:
            level: how often it should cover the true ρ, 0 … 1.

        Returns:
            Its lower and its upper end; NaN where ρ is.

        Raises:
            ValueError: the points are of fewer than 6 clusters: too few to say how much their draws scatter.

        References:
            Efron 1979, doi:10.1214/aos/1176344552.
        """
        if self.clusters < FEWEST:
            raise ValueError(
                f"{self.clusters} clusters are too few for an interval: at least {FEWEST} are needed."
            )
        if np.isnan(self.rho):
            return self.rho, self.rho
        low, high = np.nanquantile(self.resampled, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def spearman(
    x: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None, resamples: int = 1000, seed: int = 0
) -> RankCorrelation:
    """Rank correlation of x and y with a bootstrap.

    Args:
        x: (n,).
        y: (n,).
        clusters: (n,) labels; points of one label are drawn together, because they are not independent (the
            same tensor, the same method).  Every point by itself where None.
        resamples: draws of as many clusters as there are, with replacement.
        seed: of the draws.

    Raises:
        ValueError: x and y differ in length, have less than two points, or hold NaN.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.shape != y.shape or x.ndim != 1 or len(x) < 2:
        raise ValueError(f"Ranks of {x.shape} and {y.shape} points cannot be compared.")
    if np.isnan(x).any() or np.isnan(y).any():
        raise ValueError("NaN has no rank: leave out the points that were not measured.")
    labels = (
        np.arange(len(x)) if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    )
    size = int(labels.max(initial=-1)) + 1
    drawn = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), resamples)
    return RankCorrelation(float(_rho(x, y, np.ones((1, len(x))))[0]), _rho(x, y, drawn[:, labels]), size)


def _rho(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's correlation of the ranks where the points occur so many times, (resamples, n)."""
    a, b = (_ranks(v, counts) - counts.sum(axis=1, keepdims=True) / 2 for v in (x, y))
    ab, aa, bb = ((counts * p).sum(axis=1) for p in (a * b, a * a, b * b))
    with np.errstate(invalid="ignore"):
        return ab / np.sqrt(aa * bb)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Ranks less ½ of the points, (resamples, n); points that tie have the mean of their ranks."""
    order = np.argsort(values)
    _, starts, place = np.unique(values[order], return_index=True, return_inverse=True)
    tied = np.add.reduceat(counts[:, order], starts, axis=1)
    ranks = np.empty(counts.shape)
    ranks[:, order] = (np.cumsum(tied, axis=1) - tied / 2)[:, place]
    return ranks
