"""Differential entropy, and Shannon's lower bound on R(D) that follows from it."""

import numpy as np
from scipy.special import digamma

from rdlib.theory.gaussian import Array, at_least_zero, gaussian_distortion, gaussian_rate, nats_to_bits


def entropy_power(h: Array | float) -> Array | float:
    """N = 2^(2h) / (2πe): the variance of the Gaussian that has this differential entropy.

    It never exceeds the variance of the source itself; the ratio of the two is what its shape is worth.

    Args:
        h: differential entropy in bits, any shape; −∞ (a source that does not vary) gives 0.

    Returns:
        Mean squares, in the squared unit of the source, the shape of ``h``.

    Raises:
        ValueError: if an entropy is NaN.

    References:
        Shannon (1948), section 21, doi:10.1002/j.1538-7305.1948.tb00917.x.
    """
    h = np.asarray(h, float)[()]
    if np.isnan(h).any():
        raise ValueError("entropy is NaN")
    return 4.0**h / (2 * np.pi * np.e)


def shannon_rate(D: Array | float, h: Array | float) -> Array | float:
    """R(D) ≥ h − ½·log₂(2πeD), and ≥ 0: Shannon's lower bound, bits per weight.

    It is the R(D) of the Gaussian of the same entropy power, and exact in the limit of small D for every
    source with a density.  (Weights on a 16-bit grid have none: once D falls to the squared spacing of the
    grid, R(D) stays below H(X), which only `rdlib.theory.blahut` computes.)

    Args:
        D: mean squared error ≥ 0, any shape.
        h: differential entropy in bits, broadcast against ``D``.

    Raises:
        ValueError: if ``D`` is negative or NaN, or ``h`` is NaN.

    References:
        Shannon (1948), theorem 23, doi:10.1002/j.1538-7305.1948.tb00917.x; Shannon, Coding theorems for a
        discrete source with a fidelity criterion, IRE Nat. Conv. Rec. 7 (1959); tightness: Linder and Zamir,
        On the asymptotic tightness of the Shannon lower bound, IEEE Trans. Inf. Theory 40 (1994).
    """
    return gaussian_rate(D, entropy_power(h))


def shannon_distortion(R: Array | float, h: Array | float) -> Array | float:
    """D(R) ≥ 2^(2h) / (2πe) · 2^(−2R): Shannon's lower bound, mean squared error.

    Args:
        R: bits per weight ≥ 0, any shape.
        h: differential entropy in bits, broadcast against ``R``.

    Raises:
        ValueError: if ``R`` is negative or NaN, or ``h`` is NaN.

    References:
        As for `shannon_rate`.
    """
    return gaussian_distortion(R, entropy_power(h))


def differential_entropy(values: Array, counts: Array, samples_per_bin: int | None = None) -> float:
    """Differential entropy h = Σ_b k_b/n · (ln(n·w_b) − ψ(k_b)), in bits, from k_b samples in width w_b.

    The density is taken as constant over bins.  Each distinct value owns the cell that reaches half-way to
    its neighbours; cells are joined from left to right to bins of about ``samples_per_bin`` samples.  Where all
    samples differ, this is the m-spacing estimate of Vasicek without overlap; where many tie, as they do on a
    16-bit grid, the bins are cells of that grid.  Writing ψ(k) for ln k removes the bias of both: of the
    logarithm of a spacing, and (to order 1/k) of the plug-in entropy of counts.

    Mean error on Gaussian, Laplacian and Student-t (nu = 3) samples, in float64, float16 or bfloat16: below
    0.005 bits at n = 1e4, 0.002 at 1e5, 0.0006 at 1e6, 0.0001 at 1e7, always less than half of what the
    samples themselves scatter by, √(Var(log₂ p) / n).

    If the source is discrete for another reason (weights already quantized), the number is the entropy of
    the histogram seen as a density, and says nothing about distortions below the squared gaps.

    Args:
        values: (n,) distinct values, ascending, finite.
        counts: (n,) samples of each value, whole numbers: the correction of the bias counts samples.
        samples_per_bin: by default the cube root of the number of samples.

    Returns:
        Bits, for values in their own unit; −∞ for a source that does not vary.

    Raises:
        ValueError: if values are not ascending and finite, or counts negative or not whole.

    References:
        Vasicek, A test for normality based on sample entropy, J. R. Stat. Soc. B 38 (1976),
        doi:10.1111/j.2517-6161.1976.tb01566.x; Grassberger, Finite sample corrections to entropy and
        dimension estimates, Phys. Lett. A 128 (1988), doi:10.1016/0375-9601(88)90193-4.
    """
    k, width = bins(values, counts, samples_per_bin)
    if k.size == 0:
        return -np.inf
    n = k.sum()
    return float(nats_to_bits(k @ (np.log(n * width) - digamma(k)) / n))


def check_histogram(values: Array, counts: Array) -> tuple[Array, Array]:
    """The histogram in float64, without the values that never occur.

    Raises:
        ValueError: if values are not finite and ascending, counts negative, or their shapes differ.
    """
    values, counts = np.asarray(values, float), np.asarray(counts, float)
    if values.ndim != 1 or values.shape != counts.shape:
        raise ValueError(f"values {values.shape} and counts {counts.shape} must be vectors of one length")
    if not (np.isfinite(values).all() and np.isfinite(counts).all()):
        raise ValueError("a histogram holds NaN or Inf")
    if (np.diff(values) <= 0).any():
        raise ValueError("the values of a histogram must be distinct and ascending")
    used = at_least_zero(counts, "count") > 0
    return values[used], counts[used]


def bins(values: Array, counts: Array, samples_per_bin: int | None) -> tuple[Array, Array]:
    """Samples and width of each bin of `differential_entropy`; none for a source that does not vary.

    Raises:
        ValueError: as there.
    """
    values, counts = check_histogram(values, counts)
    if (counts != np.rint(counts)).any():
        part = counts[counts != np.rint(counts)][0]
        raise ValueError(
            f"count {part:g} is not whole: give how many samples have each value, not their shares"
        )
    if values.size < 2:
        return np.empty(0), np.empty(0)
    samples_per_bin = samples_per_bin or max(round(np.cbrt(counts.sum())), 1)
    inner = (values[1:] + values[:-1]) / 2
    edges = np.concatenate([[2 * values[0] - inner[0]], inner, [2 * values[-1] - inner[-1]]])
    before = np.cumsum(counts) - counts
    first = np.flatnonzero(np.diff(before // samples_per_bin, prepend=-1))
    return np.add.reduceat(counts, first), np.diff(edges[first], append=edges[-1])
