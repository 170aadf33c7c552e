"""The rate–distortion function of the weights themselves, between two certificates.

A tensor is a discrete source: its exact histogram says with which probability p(x) each value x occurs.  The
least rate at which it can be coded, value by value or in long blocks of independent values, within a mean
squared error D is R(D) = min I(X; Y) over all test channels with E(X − Y)² ≤ D (Shannon 1959).  There is no
formula for it.  Here every slope of the curve is solved numerically and returned as a sandwich:

* **upper** – a test channel that was built, with its exact D and its exact mutual information;
* **lower** – a straight line below the whole curve, from the dual problem; it holds for *every* real
  reproduction value, not only for those that were tried.

Nothing has to be believed about convergence: where the two agree, that is R(D).

Inside, the source has unit variance, rates are in nats, ``s`` is the slope −dR/dD and
K(x, y) = exp(−s·(x − y)²) the kernel, cut off where s·(x − y)² > 16.

References:
    Shannon, Coding theorems for a discrete source with a fidelity criterion, IRE Nat. Conv. Rec. 7 (1959).
    Blahut, Computation of channel capacity and rate–distortion functions, IEEE Trans. Inf. Theory 18
        (1972), doi:10.1109/TIT.1972.1054855.
    Arimoto, An algorithm for computing the capacity of arbitrary discrete memoryless channels, IEEE Trans.
        Inf. Theory 18 (1972), doi:10.1109/TIT.1972.1054753.
    Csiszár, On the computation of rate–distortion functions, IEEE Trans. Inf. Theory 20 (1974),
        doi:10.1109/TIT.1974.1055146 (the dual bound).
    Matz and Duhamel, Information geometric formulation and interpretation of accelerated Blahut–Arimoto-type
        algorithms, IEEE Inf. Theory Workshop (2004) (longer steps).
    Rose, A mapping approach to rate–distortion computation and analysis, IEEE Trans. Inf. Theory 40 (1994),
        doi:10.1109/18.340468 (reproduction points that move).
"""

import numpy as np
from numba import njit
from scipy.ndimage import maximum_filter1d

from rdlib.theory.entropy import check_histogram
from rdlib.theory.gaussian import Array, at_least_zero, bits_to_nats, nats_to_bits
from rdlib.theory.rate_distortion import RateDistortion

REACH = 4.0  # the kernel is cut at this many 1/√s …
CUT_OFF = 3e-7  # … which adds at most 2·e^¼·(e⁻¹⁶ + e⁻²⁵ + …) < 3e-7 to the dual constraint
BIN = 0.04  # width of the bins that the source is gathered in, in units of 1/√(2s), about √D
START = 0.5  # spacing of the first reproduction points, in units of 1/√s
NODES = 0.025  # spacing of the points where the dual constraint is checked, in units of 1/√s
TOLERANCE = 3e-4  # nats between the certificates at which the iteration stops
REFINEMENTS = 5  # rounds of halving the steps between slopes, from 2 slopes a bit to 64
ATTEMPTS, NEAR = 6, 0.02  # slopes that are tried for one distortion, and how near is near enough
STRIDE = 1.5  # steps are longer than those of Blahut and Lloyd by this factor: a third fewer are needed
ITERATIONS = (4, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)  # between looks at the certificates


def blahut_arimoto(
    values: Array, counts: Array, max_rate: float = 8.0, tolerance: float = 0.002
) -> RateDistortion:
    """R(D) = min I(X; Y), E(X − Y)² ≤ D, of a histogram: certified points from rate 0 to ``max_rate`` bits.

    At a slope s, Blahut's iteration q(y) ← Σ_x p(x)·q(y)·K(x, y) / Z(x), with Z(x) = Σ_y q(y)·K(x, y),
    finds the best weights of given reproduction points; a Lloyd step, y ← E[X | y], moves the points as well
    (together: expectation-maximisation of a Gaussian mixture of variance 1/2s, whose likelihood never falls).
    `_certify` turns the result into two bounds.  Slopes are added where the bounds are still apart.

    Values are gathered in bins of 0.04/√(2s) or less where they lie denser than that.  The bounds pay for
    it, by about 0.0004 bit together (see `_certify`), so that they hold for the histogram as given.

    Args:
        values: (n,) distinct values, ascending, finite.
        counts: (n,) how often each occurs; they need not be integers.
        max_rate: the curve reaches down to a distortion of 4^−max_rate times the variance.
        tolerance: bits per value that the bounds should be apart at most, at every distortion in the range.

    Returns:
        The curve.  A constant or an empty source has no points, and rate and distortion 0 everywhere.

    Raises:
        ValueError: if values are not ascending and finite, counts negative, or ``max_rate`` or ``tolerance``
            not positive.

    References:
        Blahut (1972), doi:10.1109/TIT.1972.1054855; Rose (1994), doi:10.1109/18.340468.
    """
    values, counts = check_histogram(values, counts)
    if not (0 < max_rate < np.inf and tolerance > 0):
        raise ValueError(
            f"max_rate {max_rate} and tolerance {tolerance} must be positive, and max_rate finite"
        )
    p = counts / max(counts.sum(), 1e-300)
    centred = values - p @ values
    variance = float(p @ centred**2)
    entropy = float(nats_to_bits(-(p @ np.log(p))))
    if variance == 0:
        return RateDistortion(*np.empty((4, 0)), variance=0.0, entropy=0.0)
    steepest = 4.0**max_rate / 2  # D ≤ 1/2s, for every source
    x, p, _ = _gather_for(centred / np.sqrt(variance), p, steepest, BIN)
    points = [_certify(x, p, steepest)]
    while points[-1][1] > TOLERANCE:
        points.append(_certify(x, p, steepest / 2 ** len(points)))
    curve = _join(points, variance, entropy)
    for _ in range(REFINEMENTS):
        between = np.linspace(curve.distortion[:-1], curve.distortion[1:], 33)[1:-1]
        wide = (curve.rate_upper(between) - curve.rate_lower(between)).max(axis=0) > tolerance
        slopes = bits_to_nats(np.sqrt(curve.slope[:-1] * curve.slope[1:]))[wide] * variance
        points += [_certify(x, p, s) for s in slopes]
        curve = _join(points, variance, entropy)
    return curve


def rate_lower_at(values: Array, counts: Array, D: float) -> float:
    """R(D) ≥ a − s·D ≥ 0 at one distortion, by the certified line of a slope s that meets R near D.

    A hundredth of the work of the whole curve, and as rigorous: every such line is below R everywhere.

    Args:
        values: (n,) distinct values, ascending, finite.
        counts: (n,) how often each occurs.
        D: mean squared error; H(X) is the answer where it is 0.

    Returns:
        Bits per value.

    Raises:
        ValueError: if values are not ascending and finite, or counts or ``D`` negative or NaN.
    """
    values, counts = check_histogram(values, counts)
    p = counts / max(counts.sum(), 1e-300)
    centred = values - p @ values
    variance, D = float(p @ centred**2), float(at_least_zero(D, "distortion"))
    if D >= variance:
        return 0.0
    if D == 0:
        return float(nats_to_bits(-(p @ np.log(p))))
    x, D, best = centred / np.sqrt(variance), D / variance, 0.0
    s = 1 / (2 * D)  # exact for a Gaussian
    for _ in range(ATTEMPTS):
        reached, _, slope, intercept = _certify(x, p, s)
        best = max(best, intercept - slope * D)
        if abs(reached / D - 1) < NEAR:
            break
        s *= np.clip(reached / D, 0.25, 4)
    return float(nats_to_bits(best))


def _join(points: list[tuple[float, ...]], variance: float, entropy: float) -> RateDistortion:
    """The curve through what `_certify` returned, in bits and in the unit of the values."""
    distortion, upper, slope, intercept = np.array(sorted(points, key=lambda point: -point[2])).T
    return RateDistortion(
        distortion * variance,
        nats_to_bits(upper),
        nats_to_bits(slope) / variance,
        nats_to_bits(intercept),
        variance,
        entropy,
    )


def _certify(x: Array, p: Array, s: float) -> tuple[float, float, float, float]:
    """(D, I, slope, a) such that I(X; Y) achieves D, and R(D') ≥ a − slope·D' for every D' (nats).

    **Upper.**  X = x + e, where x is the centroid of the bin and e what the bin hides, E[e | x] = 0.  The
    channel q(y)·K(x, y) / Z(x), read as y' = E[x | y], has D = E(x − y')² + E e² exactly.

    **Lower.**  For any function l(x) > 0, R(D) ≥ E ln l(X) − s·D − ln sup_y E[l(X)·K(X, y)], the
    supremum being over all real y.  With l = 1/Z, c(y) = E[l(X)·K(X, y)] and −E ln Z − ln sup c this is
    Blahut's bound.  Here l is lowered, to l(x) / m(x), only where c exceeds 1 nearby: if m(x) is the largest
    c(y) with y in reach of x, every term of c(y) falls by c(y) or more, so the new c is at most 1; a sparse
    tail no longer spoils the whole.  Three things make it rigorous:

    * between nodes a distance g apart, c cannot hide a peak: ln c(y) + s·y² is convex in y, a sum of
      exponentials, so ln c ≤ max at the two nodes + s·g²/4;
    * what the cut-off of the kernel neglects is at most CUT_OFF;
    * bins of a width w: E[K(X, y) | x] ≤ K(x, y) at the slope s' = s·(1 − s·w²/2), by Hoeffding's lemma;
      so the whole computation, done at s', certifies the line of the steeper slope s.
    """
    x, p, width = _gather_for(x, p, s, BIN)
    y, q = _design(x, p, s)
    y, q, Z, mass, first, second = _posterior(x, p, y, q, s)
    likelihood = p @ np.log(Z)
    rate = -s * second.sum() - likelihood - mass @ np.log(mass / q)
    distortion = second.sum() - first @ (first / mass) + 1 - p @ x**2
    slope = (1 - np.sqrt(1 - 2 * s * width**2)) / width**2
    intercept = -likelihood - _local_excess(x, p, Z, s, NODES) - NODES**2 / 4 - CUT_OFF
    return max(distortion, 0.0), max(rate, 0.0), slope, intercept


def _design(x: Array, p: Array, s: float) -> tuple[Array, Array]:
    """A nearly optimal test channel, points y and weights q, shape (m,): on coarse bins, then on all."""
    y, q = _gather(x, p, START / np.sqrt(s))
    for width in (4 * BIN, BIN):
        y, q = _iterate(*_gather_for(x, p, s, width)[:2], y, q, s)
    return y, q


def _iterate(x: Array, p: Array, y: Array, q: Array, s: float) -> tuple[Array, Array]:
    """Steps of Blahut and Lloyd, ``STRIDE`` times as long, from points y and weights q until the certificates meet.

    Near its end the iteration closes in by a factor λ from 0 to 1 in every direction; with a stride a it is
    1 − a·(1 − λ), still within ±1 for a < 2.
    """
    for steps in ITERATIONS:
        for _ in range(steps):
            y, q, Z, mass, first, _ = _posterior(x, p, y, q, s)
            divergence = mass @ np.log(mass / q)
            y, q = y + STRIDE * first / mass, q * (mass / q) ** STRIDE
            order = np.argsort(y)
            y, q = y[order], q[order] / q.sum()
        if _local_excess(x, p, Z, s, 4 * NODES) - divergence < TOLERANCE:
            break
    return y, q


def _posterior(x: Array, p: Array, y: Array, q: Array, s: float) -> tuple[Array, ...]:
    """y, q, Z(x) and Σ_x p(x)·q(y|x)·(x − y)^k, k = 0, 1, 2, with q(y|x) = q(y)·K(x, y) / Z(x).

    Points that no value uses are dropped; a value that no point reaches is given a point of its own.
    """
    Z, mass, first, second = _posterior_sums(x, p, y, q, s)
    bare = Z == 0
    if bare.any():
        y, q = np.concatenate([y, x[bare]]), np.concatenate([q, p[bare]]) / (1 + p[bare].sum())
        order = np.argsort(y)
        return _posterior(x, p, y[order], q[order], s)
    used = mass > 0
    return y[used], q[used], Z, mass[used], first[used], second[used]


@njit(cache=True, nogil=True)
def _posterior_sums(x: Array, p: Array, y: Array, q: Array, s: float) -> tuple[Array, ...]:
    """Z, shape (n,), and the three sums of `_posterior`, shape (m,); x and y ascending."""
    Z, kernel = np.zeros(x.size), np.empty(y.size)
    mass, first, second = np.zeros(y.size), np.zeros(y.size), np.zeros(y.size)
    reach, start, end = REACH / np.sqrt(s), 0, 0
    for i in range(x.size):
        while start < y.size and y[start] < x[i] - reach:
            start += 1
        while end < y.size and y[end] <= x[i] + reach:
            end += 1
        for j in range(start, end):
            d = x[i] - y[j]
            kernel[j] = q[j] * np.exp(-s * d * d)
            Z[i] += kernel[j]
        if Z[i] > 0:
            for j in range(start, end):
                d, share = x[i] - y[j], p[i] * kernel[j] / Z[i]
                mass[j] += share
                first[j] += share * d
                second[j] += share * d * d
    return Z, mass, first, second


def _local_excess(x: Array, p: Array, Z: Array, s: float, spacing: float) -> float:
    """E ln m(X), where c(y)/m ≤ 1 at all nodes y in reach of x; nodes ``spacing``/√s apart (nats).

    A first pass with a short reach smooths c, so that the second, which makes it safe, costs little.  Beyond
    the outermost values c only falls.  Gaps that no kernel spans are closed first: only differences of values
    in reach of each other count, and the nodes need not fill an empty tail.
    """
    apart = np.minimum(np.diff(x), 2.001 * REACH / np.sqrt(s))
    x = np.concatenate([[0.0], np.cumsum(apart)]) * np.sqrt(s)
    nearest = np.rint(x / spacing).astype(np.int64)
    dual, excess = p / Z, 0.0
    for reach in (1.0, REACH):
        c = _sums_at_nodes(x, dual, nearest, spacing)
        m = maximum_filter1d(c, 2 * int(np.ceil(reach / spacing)) + 3, mode="nearest")[nearest]
        m = np.maximum(m, 1)
        dual, excess = dual / m, excess + p @ np.log(m)
    return float(excess)


@njit(cache=True, nogil=True)
def _sums_at_nodes(x: Array, weights: Array, nearest: Array, spacing: float) -> Array:
    """Σ_i w_i·exp(−(x_i − k·spacing)²) at the nodes k = 0, 1, … up to the last value, cut beyond REACH.

    With g the spacing and d = x_i − k·g at the nearest node k, the term of node k + j is exp(−(d − j·g)²) =
    exp(−d²)·exp(2dg)^j·exp(−(jg)²): the last factor is a table, the second a product carried along.
    """
    last, far = nearest[-1] + 1, int(np.ceil(REACH / spacing)) + 2
    table = np.exp(-((np.arange(far + 1) * spacing) ** 2))
    sums = np.zeros(last + 1)
    for i in range(x.size):
        k = nearest[i]
        d = x[i] - k * spacing
        term, ratio = weights[i] * np.exp(-d * d), np.exp(2 * d * spacing)
        for j in range(min(far, last - k) + 1):
            sums[k + j] += term * table[j]
            term *= ratio
        term = weights[i] * np.exp(-d * d) / ratio
        for j in range(1, min(far, k) + 1):
            sums[k - j] += term * table[j]
            term /= ratio
    return sums


def _gather(x: Array, p: Array, width: float) -> tuple[Array, Array]:
    """Centroids and masses of the bins [k width, (k + 1) width) that are not empty."""
    bins = np.floor(x / width)
    first = np.flatnonzero(np.diff(bins, prepend=-np.inf))
    mass = np.add.reduceat(p, first)
    return np.add.reduceat(p * x, first) / mass, mass


def _gather_for(x: Array, p: Array, s: float, width: float) -> tuple[Array, Array, float]:
    """Bins of ``width``/√(2s), rounded down to a power of 2, so that bins nest; and that width."""
    width = 2.0 ** np.floor(np.log2(width / np.sqrt(2 * s)))
    return *_gather(x, p, width), width
