"""The Gaussian source: R(D) and D(R), and the units of all theory (bits, nats, decibels)."""

import numpy as np

Array = np.ndarray

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


def at_least_zero(a: Array | float, name: str) -> Array:
    """``a`` as float64; a ValueError names the offender if anything in it is negative."""
    a = np.asarray(a, float)
    if (a < 0).any():
        raise ValueError(f"{name} {a.min()} is negative")
    return a
