"""The Gaussian source: R(D) and D(R), and the units of all theory (bits, nats, decibels)."""

import numpy as np

Array = np.ndarray

BITS_PER_NAT = 1 / np.log(2)
DB_PER_BIT = 20 * np.log10(2)  # 6.0206: one bit more, four times less error


def nats_to_bits(nats: Array | float) -> Array | float:
    """Bits from nats: bits = nats / ln 2."""
    return nats * BITS_PER_NAT


def bits_to_nats(bits: Array | float) -> Array | float:
    """Nats from bits: nats = bits · ln 2."""
    return bits / BITS_PER_NAT


def to_db(ratio: Array | float) -> Array | float:
    """10·log₁₀(ratio), for ratios of powers such as variance / MSE; −∞ for a ratio of 0.

    >>> float(to_db(100))
    20.0
    """
    with np.errstate(divide="ignore"):
        return 10 * np.log10(ratio)


def gaussian_rate(D: Array | float, variance: Array | float = 1.0) -> Array | float:
    """R(D) = ½·log₂(σ²/D), or 0 where D ≥ σ²: the Gaussian source, bits per weight.

    Of all sources with this variance it is the hardest, so that R(D) suffices for any of them.

    >>> gaussian_rate([1, 0.25, 0.0625]).tolist()
    [0.0, 1.0, 2.0]

    Args:
        D: mean squared error ≥ 0, any shape; R(0) is infinite, unless σ² is 0 as well.
        variance: σ² ≥ 0, broadcast against ``D``.

    Raises:
        ValueError: if ``D`` or ``variance`` is negative or NaN.

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
    """D(R) = σ²·2^(−2R): the Gaussian source, mean squared error.

    >>> float(gaussian_distortion(2, variance=16))
    1.0

    Args:
        R: bits per weight ≥ 0, any shape.
        variance: σ² ≥ 0, broadcast against ``R``.

    Raises:
        ValueError: if ``R`` or ``variance`` is negative or NaN.

    References:
        Shannon (1948), theorem 22, doi:10.1002/j.1538-7305.1948.tb00917.x.
    """
    return at_least_zero(variance, "variance") * 4.0 ** -at_least_zero(R, "rate")


def at_least_zero(a: Array | float, name: str) -> Array:
    """``a`` as float64.

    Raises:
        ValueError: a number in ``a`` is negative or NaN; the message shows it behind ``name``.
    """
    a = np.asarray(a, float)
    refused = a[~(a >= 0)]
    if refused.size:
        raise ValueError(f"{name} {refused[0]} is {'NaN' if np.isnan(refused[0]) else 'negative'}")
    return a
