"""The limit when the inputs are known: R(D) of Gaussian weights under tr(E H Eᵀ), the error of a layer's output.

In the basis of the eigenvectors of H the weights of a row are independent and Gaussian, and an error in direction i
counts λ_i-fold.  That is a Gaussian source with components of variance σ²λ_i: reverse water-filling over the spectrum
of H.  For weights that are Gaussian and independent no code passes it, whatever its feedback; real weights may be
below it where their rows or columns differ in power or their tails are heavy, which σ² does not show.

References:
    Kolmogorov 1956, doi:10.1109/TIT.1956.1056823; for layers, Lifar et al. 2026 (WaterSIC), arXiv:2603.04956.
"""

import numpy as np
from scipy.special import digamma

from rdlib.theory.gaussian import at_least_zero
from rdlib.theory.water_filling import water_filling, water_filling_at_rate
from rdlib.weights import SOLVER

Array = np.ndarray


def spectrum(H: Array) -> Array:
    """The eigenvalues λ of H, ascending; those below 0 by rounding are 0.

    Args:
        H: E[x xᵀ] of the inputs of a layer, (in, in).

    Returns:
        (in,), float64.

    Raises:
        ValueError: if H is not square or holds NaN or Inf.
    """
    H = np.asarray(H, np.float64)
    if H.ndim != 2 or H.shape[0] != H.shape[1] or not np.isfinite(H).all():
        raise ValueError(f"H of shape {H.shape} must be square and finite")
    return np.maximum(SOLVER.get().eigenvalues(H), 0)


def output_rate(spectrum: Array, D: Array | float, variance: float = 1.0) -> Array | float:
    """R = mean_i ½·log₂⁺(σ²λ_i / θ), θ such that Σ_i min(θ, σ²λ_i) = D: bits per weight.

    Args:
        spectrum: eigenvalues λ of H, (in,).
        D: tr(E H Eᵀ) / out, as :func:`rdlib.measure.output_error` gives it, any shape.
        variance: σ² of the weights, whose mean is taken as 0; for real ones, their power P = mean w².

    Raises:
        ValueError: if an eigenvalue, the variance or ``D`` is negative or NaN.
    """
    return water_filling(
        at_least_zero(variance, "variance") * at_least_zero(spectrum, "eigenvalue"),
        np.asarray(D, float) / len(spectrum),
    ).rate


def output_distortion(spectrum: Array, R: Array | float, variance: float = 1.0) -> Array | float:
    """The inverse of :func:`output_rate`: the least tr(E H Eᵀ) / out for R bits per weight.

    Args:
        spectrum: eigenvalues λ of H, (in,).
        R: bits per weight ≥ 0, any shape.
        variance: σ² of the weights, whose mean is taken as 0; for real ones, their power P = mean w².

    Raises:
        ValueError: if an eigenvalue, the variance or ``R`` is negative or NaN.
    """
    return (
        len(spectrum)
        * water_filling_at_rate(
            at_least_zero(variance, "variance") * at_least_zero(spectrum, "eigenvalue"), R
        ).distortion
    )


def det_distortion(spectrum: Array, R: Array | float, variance: float = 1.0) -> Array | float:
    """D = in·σ²·det(H)^(1/in)·2^(−2R): the limit while no component is under water, else below it.

    It depends on H by its determinant only, which no rotation changes; 0 where H is singular.

    Args:
        spectrum: eigenvalues λ of H, (in,).
        R: bits per weight ≥ 0, any shape.
        variance: σ² of the weights, whose mean is taken as 0; for real ones, their power P = mean w².

    Raises:
        ValueError: if an eigenvalue, the variance or ``R`` is negative or NaN.
    """
    with np.errstate(divide="ignore"):
        power = np.exp(np.log(at_least_zero(spectrum, "eigenvalue")).mean())
    return len(spectrum) * at_least_zero(variance, "variance") * power * 4.0 ** -at_least_zero(R, "rate")


def sample_size_bias(inputs: int, tokens: int) -> float:
    """E[½·log₂ det(Ĥ) − ½·log₂ det(H)] / in = Σ_i (ψ((n − i) / 2) − ln(n / 2)) / (2·in·ln 2), i = 0 … in − 1: < 0.

    By so many bits the high-rate limit of an H estimated from n independent Gaussian inputs x lies too low: what the
    calibration text promises and another text does not keep.  Tokens of a text are not independent, which makes it
    worse.

    Args:
        inputs: in, of the layer.
        tokens: n.

    Returns:
        Bits per weight; −∞ where there are fewer tokens than inputs, because Ĥ is then singular.

    Raises:
        ValueError: if either is less than 1.

    References:
        Bartlett's decomposition of a Wishart matrix, e.g. Anderson, An Introduction to Multivariate Statistical
        Analysis, 3rd edition (2003), theorem 7.5.3.
    """
    if not (inputs >= 1 and tokens >= 1):
        raise ValueError(f"{inputs} inputs and {tokens} tokens must be at least 1")
    if tokens < inputs:
        return -np.inf
    i = np.arange(inputs)
    return float(np.mean(digamma((tokens - i) / 2) - np.log(tokens / 2)) / (2 * np.log(2)))
