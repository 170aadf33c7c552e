"""What is possible: rate-distortion functions, their bounds and the constants of quantization theory.

Rates are in bits per weight, distortions are mean squared errors, and both may be arrays.  A source is known
either by its variance, or by its *histogram*: its distinct values, ascending, and how often each occurs (all
ones for values that are all different).  R(D) of a histogram is computed in `rdlib.blahut`.

The textbook behind this file: Cover and Thomas, Elements of Information Theory, 2nd edition (2006), chapters
8 and 10; Gray and Neuhoff, Quantization, IEEE Trans. Inf. Theory 44 (1998), doi:10.1109/18.720541.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaln, digamma, gammaln, ndtr

Array = np.ndarray

# ---------------------------------------------------------------------------------------------------- units

BITS_PER_NAT = 1 / np.log(2)
DB_PER_BIT = 20 * np.log10(2)  # 6.0206: one bit more, four times less error


def nats_to_bits(nats: Array | float) -> Array | float:
    """Bits from nats: bits = nats / ln 2."""
    return nats * BITS_PER_NAT


def bits_to_nats(bits: Array | float) -> Array | float:
    """Nats from bits: nats = bits ln 2."""
    return bits / BITS_PER_NAT


def to_db(ratio: Array | float) -> Array | float:
    """10 log10(ratio), for ratios of powers such as variance / MSE; -inf for a ratio of 0."""
    with np.errstate(divide="ignore"):
        return 10 * np.log10(ratio)


def from_db(db: Array | float) -> Array | float:
    """10^(db / 10), the inverse of `to_db`."""
    return 10 ** (np.asarray(db, float) / 10)[()]


# ------------------------------------------------------------------------------------- the Gaussian source


def gaussian_rate(D: Array | float, variance: Array | float = 1.0) -> Array | float:
    """R(D) = log2(variance / D) / 2, or 0 where D >= variance: the Gaussian source, bits per weight.

    Of all sources with this variance it is the hardest, so that R(D) suffices for any of them.

    Args:
        D: mean squared error >= 0, any shape; R(0) is infinite, unless the variance is 0 as well.
        variance: >= 0, broadcast against ``D``.

    Raises:
        ValueError: if ``D`` or ``variance`` is negative.

    References:
        Shannon, A mathematical theory of communication, Bell Syst. Tech. J. 27 (1948), theorem 22,
        doi:10.1002/j.1538-7305.1948.tb00917.x.
    """
    D, variance = np.broadcast_arrays(at_least_zero(D, "distortion"), at_least_zero(variance, "variance"))
    ratio = np.where(variance > 0, np.inf, 1.0)
    with np.errstate(over="ignore"):
        np.divide(variance, D, out=ratio, where=D > 0)
    return (np.log2(np.maximum(ratio, 1)) / 2)[()]


def gaussian_distortion(R: Array | float, variance: Array | float = 1.0) -> Array | float:
    """D(R) = variance 2^(-2R): the Gaussian source, mean squared error.

    Args:
        R: bits per weight >= 0, any shape.
        variance: >= 0, broadcast against ``R``.

    Raises:
        ValueError: if ``R`` or ``variance`` is negative.

    References:
        Shannon (1948), theorem 22, doi:10.1002/j.1538-7305.1948.tb00917.x.
    """
    return at_least_zero(variance, "variance") * 4.0 ** -at_least_zero(R, "rate")


# ------------------------------------------------------------------- differential entropy and Shannon's bound


def gaussian_entropy(variance: float = 1.0) -> float:
    """Differential entropy h = log2(2 pi e variance) / 2, bits (Shannon 1948, section 20)."""
    return float(np.log2(2 * np.pi * np.e * variance) / 2)


def laplacian_entropy(variance: float = 1.0) -> float:
    """Differential entropy h = log2(2 e^2 variance) / 2, bits (Cover and Thomas 2006, table 17.1)."""
    return float(np.log2(2 * np.e**2 * variance) / 2)


def student_entropy(nu: float, variance: float = 1.0) -> float:
    """Entropy h = (nu+1)/2 (psi((nu+1)/2) - psi(nu/2)) + ln(sqrt(nu) B(nu/2, 1/2) scale), here in bits.

    Args:
        nu: degrees of freedom > 2 (else there is no variance).
        variance: scale^2 nu / (nu - 2).

    Raises:
        ValueError: if ``nu`` <= 2.

    References:
        Lazo and Rathie, On the entropy of continuous probability distributions, IEEE Trans. Inf. Theory 24
        (1978), doi:10.1109/TIT.1978.1055832.
    """
    if not nu > 2:
        raise ValueError(f"a Student-t with nu = {nu} has no variance; nu must be above 2")
    standard = (nu + 1) / 2 * (digamma((nu + 1) / 2) - digamma(nu / 2)) + np.log(nu) / 2 + betaln(nu / 2, 0.5)
    return float(nats_to_bits(standard + np.log(variance * (nu - 2) / nu) / 2))


def entropy_power(h: Array | float) -> Array | float:
    """N = 2^(2h) / (2 pi e): the variance of the Gaussian that has this differential entropy.

    It never exceeds the variance of the source itself; the ratio of the two is what its shape is worth.

    Args:
        h: differential entropy in bits, any shape; -inf (a source that does not vary) gives 0.

    References:
        Shannon (1948), section 21, doi:10.1002/j.1538-7305.1948.tb00917.x.
    """
    return 4.0 ** np.asarray(h, float)[()] / (2 * np.pi * np.e)


def shannon_rate(D: Array | float, h: Array | float) -> Array | float:
    """R(D) >= h - log2(2 pi e D) / 2, and >= 0: Shannon's lower bound, bits per weight.

    It is the R(D) of the Gaussian of the same entropy power, and exact in the limit of small D for every
    source with a density.  (Weights on a 16-bit grid have none: once D falls to the squared spacing of the
    grid, R(D) stays below H(X), and only `rdlib.blahut` tells.)

    Args:
        D: mean squared error >= 0, any shape.
        h: differential entropy in bits, broadcast against ``D``.

    Raises:
        ValueError: if ``D`` is negative.

    References:
        Shannon (1948), theorem 23, doi:10.1002/j.1538-7305.1948.tb00917.x; Shannon, Coding theorems for a
        discrete source with a fidelity criterion, IRE Nat. Conv. Rec. 7 (1959); tightness: Linder and Zamir,
        On the asymptotic tightness of the Shannon lower bound, IEEE Trans. Inf. Theory 40 (1994).
    """
    return gaussian_rate(D, entropy_power(h))


def shannon_distortion(R: Array | float, h: Array | float) -> Array | float:
    """D(R) >= 2^(2h) / (2 pi e) 2^(-2R): Shannon's lower bound, mean squared error.

    Args:
        R: bits per weight >= 0, any shape.
        h: differential entropy in bits, broadcast against ``R``.

    Raises:
        ValueError: if ``R`` is negative.

    References:
        As for `shannon_rate`.
    """
    return gaussian_distortion(R, entropy_power(h))


def differential_entropy(values: Array, counts: Array, spacing: int | None = None) -> float:
    """Differential entropy h = sum_b k_b / n (ln(n w_b) - psi(k_b)), in bits, from k_b samples in width w_b.

    The density is taken as constant over bins.  Each distinct value owns the cell that reaches half-way to
    its neighbours; cells are joined from left to right to bins of about ``spacing`` samples.  Where all
    samples differ, this is the m-spacing estimate of Vasicek without overlap; where many tie, as they do on a
    16-bit grid, the bins are cells of that grid.  Writing psi(k) for ln k removes the bias of both: of the
    logarithm of a spacing, and (to order 1/k) of the plug-in entropy of counts.

    Mean error on Gaussian, Laplacian and Student-t (nu = 3) samples, in float64, float16 or bfloat16: below
    0.005 bits at n = 1e4, 0.002 at 1e5, 0.0006 at 1e6, 0.0001 at 1e7, always less than half of what the
    samples themselves scatter by, sqrt(var(log2 p) / n).

    If the source is discrete for another reason (weights already quantized), the number is the entropy of
    the histogram seen as a density, and says nothing about distortions below the squared gaps.

    Args:
        values: (n,) distinct values, ascending, finite.
        counts: (n,) how often each occurs.
        spacing: samples a bin, by default the cube root of their number.

    Returns:
        Bits, for values in their own unit; -inf for a source that does not vary.

    Raises:
        ValueError: if values are not ascending and finite, or counts negative.

    References:
        Vasicek, A test for normality based on sample entropy, J. R. Stat. Soc. B 38 (1976),
        doi:10.1111/j.2517-6161.1976.tb01566.x; Grassberger, Finite sample corrections to entropy and
        dimension estimates, Phys. Lett. A 128 (1988), doi:10.1016/0375-9601(88)90193-4.
    """
    k, width = _bins(values, counts, spacing)
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


def _bins(values: Array, counts: Array, spacing: int | None) -> tuple[Array, Array]:
    """Samples and width of each bin of `differential_entropy`; none for a source that does not vary."""
    values, counts = check_histogram(values, counts)
    if values.size < 2:
        return np.empty(0), np.empty(0)
    spacing = spacing or max(round(np.cbrt(counts.sum())), 1)
    inner = (values[1:] + values[:-1]) / 2
    edges = np.concatenate([[2 * values[0] - inner[0]], inner, [2 * values[-1] - inner[-1]]])
    before = np.cumsum(counts) - counts
    first = np.flatnonzero(np.diff(before // spacing, prepend=-1))
    return np.add.reduceat(counts, first), np.diff(edges[first], append=edges[-1])


# --------------------------------------------------------------------- components of different variances


class WaterFilling(NamedTuple):
    """Reverse water-filling: how a distortion is best shared out.

    Attributes:
        rate: bits per weight, the shape of the question.
        distortion: mean squared error, the same shape.
        level: of the water: the distortion of every component that is coded at all.
        components: distortion of each component, min(level, variance), shape (..., k).
    """

    rate: Array | float
    distortion: Array | float
    level: Array | float
    components: Array


def water_filling(
    variances: Array, D: Array | float, weights: Array | None = None, price: float = 0.0
) -> WaterFilling:
    """R = sum_i w_i log2(v_i / min(t, v_i)) / 2 with the level t such that sum_i w_i min(t, v_i) = D.

    The R(D) of rows or groups that are Gaussian with variances v_i known on both sides.  Given the entropy
    powers of the components instead, it is their Shannon lower bound, whatever their shape.

    Args:
        variances: (k,) >= 0, of rows, groups or eigenvectors.
        D: mean squared error >= 0, any shape; beyond the mean variance the rate is 0.
        weights: (k,) share of the weights in each component, any scale; equal by default.
        price: bits per weight spent on sending the variances (16 k / n for float16), added to the rate.

    Raises:
        ValueError: if a variance, a weight, ``D`` or ``price`` is negative, or no weight positive.

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
    return _filled(variances, weights, level, price)


def water_filling_at_rate(
    variances: Array, R: Array | float, weights: Array | None = None, price: float = 0.0
) -> WaterFilling:
    """The inverse of `water_filling`: the least distortion for ``R`` bits per weight in total.

    Args:
        variances: (k,) >= 0.
        R: bits per weight >= 0, any shape, with the price; up to the price, nothing is left for the weights.
        weights: (k,) share of the weights in each component, any scale; equal by default.
        price: bits per weight spent on sending the variances.

    Raises:
        ValueError: if a variance, a weight, ``R`` or ``price`` is negative, or no weight positive.

    References:
        As for `water_filling`.
    """
    variances, weights = _components(variances, weights)
    spare = np.maximum(at_least_zero(R, "rate") - price, 0)
    alive = np.flatnonzero((variances > 0) & (weights > 0))
    if alive.size == 0:
        return _filled(variances, weights, np.zeros_like(spare), price)
    alive = alive[np.argsort(-variances[alive])]
    kinks, share = np.log2(variances[alive]), np.cumsum(weights[alive])
    nodes = (np.cumsum(weights[alive] * kinks) - share * kinks) / 2  # R is piecewise linear in log2(level)
    under = np.maximum(spare - nodes[-1], 0)
    level = 2.0 ** (np.interp(spare, nodes, kinks) - 2 * under / share[-1])
    return _filled(variances, weights, level, price)


def _components(variances: Array, weights: Array | None) -> tuple[Array, Array]:
    """Both as float64 vectors of one length, the weights with the sum 1."""
    variances = at_least_zero(variances, "variance")
    weights = np.ones_like(variances) if weights is None else at_least_zero(weights, "weight")
    if variances.ndim != 1 or variances.shape != weights.shape:
        raise ValueError(f"variances {variances.shape} and weights {weights.shape} are no equal vectors")
    if not weights.sum() > 0:
        raise ValueError("no component has a positive weight")
    return variances, weights / weights.sum()


def _filled(variances: Array, weights: Array, level: Array, price: float) -> WaterFilling:
    """Rate and distortion of every component filled up to ``level``."""
    components = np.minimum(np.asarray(level)[..., None], variances)
    used = weights > 0
    rates = gaussian_rate(components[..., used], variances[used])
    rate = at_least_zero(price, "price") + rates @ weights[used]
    return WaterFilling(rate[()], (components @ weights)[()], np.asarray(level)[()], components)


# ------------------------------------------------------------------------------ high resolution, fixed rate

PANTER_DITE_GAUSSIAN = np.sqrt(3) * np.pi / 2  # 2.7207: D 4^R of a scalar quantizer, unit variance
PANTER_DITE_LAPLACIAN = 9 / 2


def panter_dite(values: Array, counts: Array, spacing: int | None = None) -> float:
    """C = (integral p(x)^(1/3) dx)^3 / 12: then D = C 2^(-2R) for the best 2^R levels, at high resolution.

    The density is that of `differential_entropy`, constant over bins; k^(1/3) is corrected to
    Gamma(k+1) / Gamma(k+2/3), which makes a spacing unbiased.  The integral weighs the tails: for a
    Student-t of nu = 3 it is 20.5 times the variance, of which 1e7 samples show 15.8.

    Args:
        values: (n,) distinct values, ascending, finite.
        counts: (n,) how often each occurs.
        spacing: samples a bin, by default the cube root of their number.

    Returns:
        In squared units of the values; 0 for a source that does not vary.

    Raises:
        ValueError: if values are not ascending and finite, or counts negative.

    References:
        Panter and Dite, Quantization distortion in pulse-count modulation with nonuniform spacing of levels,
        Proc. IRE 39 (1951), doi:10.1109/JRPROC.1951.230419.
    """
    k, width = _bins(values, counts, spacing)
    if k.size == 0:
        return 0.0
    cube_root = np.exp(gammaln(k + 1) - gammaln(k + 2 / 3)) / np.cbrt(k.sum())
    return float((width ** (2 / 3) @ cube_root) ** 3 / 12)


def zador_gaussian(k: int, moment: float) -> float:
    """C = 2 pi G ((k + 2) / k)^(k/2 + 1): then D = C 2^(-2R) for the best codebook of 2^(kR) vectors.

    Of the unit Gaussian at high resolution.  k = 1 is Panter and Dite; as k grows, C tends to 2 pi e G.

    Args:
        k: dimension of the vectors.
        moment: G, the normalised second moment of the cells (`LATTICE_MOMENTS`).

    References:
        Zador, Asymptotic quantization error of continuous signals and the quantization dimension, IEEE
        Trans. Inf. Theory 28 (1982), doi:10.1109/TIT.1982.1056490.
    """
    return float(2 * np.pi * moment * ((k + 2) / k) ** (k / 2 + 1))


def high_resolution(R: Array | float, coefficient: Array | float) -> Array | float:
    """D = C 2^(-2R): a line of one bit per 6.0206 dB, with the constant of a method.

    Args:
        R: bits per weight >= 0, any shape.
        coefficient: C = D 4^R, in squared units of the weights.

    Raises:
        ValueError: if either is negative.
    """
    return gaussian_distortion(R, coefficient)


# ------------------------------------------------------------------------------------ space-filling, lattices

LATTICE_MOMENTS: dict[str, float] = {
    "Z": 1 / 12,
    "A2": 5 / (36 * np.sqrt(3)),
    "D4": 13 / (120 * np.sqrt(2)),
    "E8": 929 / 12960,
    "Leech": 0.065771,
    "limit": 1 / (2 * np.pi * np.e),
}
"""G: mean squared error per dimension of a cell of unit volume.  Z, A2, D4, E8 in closed form, Leech by Monte
Carlo, and what no lattice of any dimension passes.  Conway and Sloane, Voronoi regions of lattices, second
moments of polytopes, and quantization, IEEE Trans. Inf. Theory 28 (1982), doi:10.1109/TIT.1982.1056483, and
Sphere Packings, Lattices and Groups, 3rd edition (1999), table 2.3; limit: Zador (1982)."""


def ball_moment(d: Array | float) -> Array | float:
    """G = Gamma(d/2 + 1)^(2/d) / ((d + 2) pi): of a ball, less than of any cell that fills space, d >= 1.

    Args:
        d: dimension, any shape.

    References:
        Zador (1982); Conway and Sloane (1999), chapter 2, equation (82).
    """
    d = np.asarray(d, float)
    return np.exp(gammaln(d / 2 + 1) * 2 / d) / ((d + 2) * np.pi)


def lattice_gap_bits(moment: Array | float) -> Array | float:
    """log2(2 pi e G) / 2: what an entropy-coded lattice of second moment G wastes at high resolution, bits.

    For Z this is the 0.2546 bits of entropy-coded uniform scalar quantization (with centroids, or at rates
    where the midpoint is as good).

    Args:
        moment: G, per dimension, of a cell of unit volume; any shape.

    References:
        Gish and Pierce, Asymptotically efficient quantizing, IEEE Trans. Inf. Theory 14 (1968),
        doi:10.1109/TIT.1968.1054193; Zador (1982).
    """
    return np.log2(2 * np.pi * np.e * moment) / 2


def lattice_gap_db(moment: Array | float) -> Array | float:
    """10 log10(2 pi e G): the same in decibels; 1.5329 dB for Z."""
    return to_db(2 * np.pi * np.e * moment)


# ---------------------------------------------------------------------- entropy-coded uniform, unit Gaussian


class EntropyCodedUniform(NamedTuple):
    """A uniform grid on the unit Gaussian: entropy, and mean squared error with either reconstruction.

    Attributes:
        step: of the grid; the cells are (k - 1/2) step ... (k + 1/2) step.
        rate: entropy of the index, bits per weight.
        midpoint: D if a cell is decoded to its middle.
        centroid: D if a cell is decoded to the mean of the source in it.
    """

    step: float
    rate: float
    midpoint: float
    centroid: float


def entropy_coded_uniform(step: float) -> EntropyCodedUniform:
    """H = -sum p log2 p, D = sum of E[(X - y)^2; cell] over the cells of a uniform grid on the unit Gaussian.

    Exact: with a, b the ends of a cell, its mass is Phi(b) - Phi(a) and its first moment phi(a) - phi(b).  So
    D = 1 - 2 sum y m + sum y^2 p for midpoints y, and 1 - sum m^2 / p for centroids.

    Args:
        step: > 0.

    Raises:
        ValueError: if ``step`` is not positive.

    References:
        Goblick and Holsinger, Analog source digitization: a comparison of theory and practice, IEEE Trans.
        Inf. Theory 13 (1967); Gish and Pierce (1968), doi:10.1109/TIT.1968.1054193.
    """
    if not step > 0:
        raise ValueError(f"step {step} must be positive")
    y = step * np.arange(1, np.ceil(12 / step) + 1)  # the cells right of the middle one; the left are alike
    a, b = y - step / 2, y + step / 2
    p = ndtr(-a) - ndtr(-b)
    y, a, b, p = y[p > 0], a[p > 0], b[p > 0], p[p > 0]
    m = (np.exp(-(a**2) / 2) - np.exp(-(b**2) / 2)) / np.sqrt(2 * np.pi)
    middle = 1 - 2 * ndtr(-step / 2)
    entropy = -middle * np.log2(middle) - 2 * p @ np.log2(p)
    midpoint, centroid = 1 - 2 * y @ (2 * m - y * p), 1 - 2 * m @ (m / p)
    return EntropyCodedUniform(float(step), float(entropy), float(midpoint), float(centroid))


def entropy_coded_uniform_at(rate: float) -> EntropyCodedUniform:
    """The same, with the step at which H = ``rate``.

    Args:
        rate: 1e-6 ... 16 bits per weight.

    Raises:
        ValueError: if the rate is outside this range.
    """
    if not 1e-6 <= rate <= 16:
        raise ValueError(f"rate {rate} is outside 1e-6 ... 16 bits")
    log_step = brentq(lambda t: entropy_coded_uniform(np.exp(t)).rate - rate, np.log(3e-5), np.log(20))
    return entropy_coded_uniform(np.exp(log_step))


# ------------------------------------------------------------------------------------------------------------


def at_least_zero(a: Array | float, name: str) -> Array:
    """``a`` as float64; a ValueError names the offender if anything in it is negative."""
    a = np.asarray(a, float)
    if (a < 0).any():
        raise ValueError(f"{name} {a.min()} is negative")
    return a
