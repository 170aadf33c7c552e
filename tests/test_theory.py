"""Closed forms, theorems that hold between the bounds, and the published values that both must meet."""

import doctest
import inspect
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from scipy import integrate, optimize, stats

from rdlib import histogram, theory
from rdlib.code import ans
from rdlib.measure import errors, gaps
from rdlib.theory import blahut, gaussian
from rdlib.theory.blahut import blahut_arimoto
from rdlib.theory.entropy import (
    differential_entropy,
    entropy_power,
    shannon_distortion,
    shannon_rate,
)
from rdlib.theory.entropy_coded import entropy_coded_uniform, entropy_coded_uniform_at
from rdlib.theory.gaussian import bits_to_nats, gaussian_distortion, gaussian_rate, nats_to_bits
from rdlib.theory.high_resolution import (
    NORMALIZED_SECOND_MOMENTS,
    PANTER_DITE_GAUSSIAN,
    high_resolution,
    space_filling_loss_db,
)
from rdlib.theory.water_filling import water_filling, water_filling_at_rate

pytestmark = pytest.mark.filterwarnings("error")

GAUSSIAN_ENTROPY = np.log2(2 * np.pi * np.e) / 2  # of unit variance, bits (Shannon 1948, section 20)
LAPLACIAN_ENTROPY = np.log2(2 * np.e**2) / 2  # of unit variance, bits (Cover and Thomas 2006, table 17.1)


def student_entropy(nu):
    """Of unit variance, in bits (Lazo and Rathie 1978, doi:10.1109/TIT.1978.1055832)."""
    return float(nats_to_bits(stats.t(nu, scale=(1 - 2 / nu) ** 0.5).entropy()))


SOURCES = {  # all of unit variance
    "gaussian": (stats.norm(), GAUSSIAN_ENTROPY),
    "laplacian": (stats.laplace(scale=0.5**0.5), LAPLACIAN_ENTROPY),
    "student": (stats.t(3, scale=3**-0.5), student_entropy(3)),
}
BITS = st.floats(0, 20)
VARIANCE = st.floats(1e-12, 1e12)


def sample(name, n, dtype, seed=0):
    """Samples, and their histogram in ``dtype``."""
    x = SOURCES[name][0].rvs(n, random_state=seed)
    return x, *np.unique(x.astype(dtype).astype(float), return_counts=True)


def cells(source, width, reach):
    """A source gathered to the centroids of cells: values, probabilities and the variance that this hides."""
    edges = width * np.arange(-round(reach / width), round(reach / width) + 1)
    p = np.diff(source.cdf(edges))
    p = np.minimum(p, p[::-1])  # the tails of a cdf near 1 are rounded: take those near 0
    middle = (edges[1:] + edges[:-1]) / 2
    offset, weight = np.polynomial.legendre.leggauss(5)
    points = middle[:, None] + offset * width / 2
    density = source.pdf(points) * weight
    values = (density * points).sum(1) / density.sum(1)
    return values, p, source.var() - p @ values**2 / p.sum()


# --------------------------------------------------------------------------- units, Gaussian, Shannon's bound


@pytest.mark.parametrize(
    "module",
    [gaussian, sys.modules["rdlib.theory.water_filling"], histogram, errors, gaps, ans],
    ids=lambda m: m.__name__,
)
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_units():
    assert nats_to_bits(np.log(8)) == pytest.approx(3)
    assert bits_to_nats(nats_to_bits(0.7)) == pytest.approx(0.7)
    assert theory.to_db(4) == pytest.approx(theory.DB_PER_BIT) == pytest.approx(6.0206, abs=1e-5)
    assert theory.to_db(0) == -np.inf


@given(BITS, VARIANCE)
def test_gaussian_rate_inverts_distortion(R, variance):
    D = gaussian_distortion(R, variance)
    assert gaussian_rate(D, variance) == pytest.approx(R, abs=1e-12)


@given(BITS, st.floats(-10, 10))
def test_shannon_bound_is_a_gaussian_of_the_entropy_power(R, h):
    assert shannon_rate(shannon_distortion(R, h), h) == pytest.approx(R, abs=1e-12)
    assert shannon_distortion(R, GAUSSIAN_ENTROPY + 1) == pytest.approx(gaussian_distortion(R, 4.0))


def test_gaussian_rate_at_the_ends():
    assert gaussian_rate(2.0, 1.0) == 0
    assert gaussian_rate(0.0, 1.0) == np.inf
    assert gaussian_rate(0.0, 0.0) == 0 and gaussian_distortion(3, 0.0) == 0
    assert gaussian_rate(5e-324, 1e300) == np.inf
    assert isinstance(gaussian_rate(0.5), float)
    np.testing.assert_allclose(gaussian_rate([[0.25], [1]], [1, 4, 0]), [[1, 2, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    "call",
    [
        lambda: gaussian_rate(-0.1),
        lambda: gaussian_rate(0.1, -1),
        lambda: gaussian_distortion(-1),
        lambda: water_filling([1, -1], 0.1),
        lambda: water_filling([1], 0.1, weights=[0]),
        lambda: water_filling([1, 2], 0.1, weights=[1]),
        lambda: water_filling([1], 0.1, side_rate=-1),
        lambda: water_filling_at_rate([1], -0.1),
        lambda: differential_entropy([2, 1], [1, 1]),
        lambda: differential_entropy([1, 1], [1, 1]),
        lambda: differential_entropy([1, np.nan], [1, 1]),
        lambda: entropy_coded_uniform(0),
        lambda: entropy_coded_uniform_at(17),
        lambda: blahut_arimoto([1, 2], [1, 1], max_rate=0),
        lambda: blahut_arimoto([1, 2], [1, 1], max_rate=np.inf),
    ],
)
def test_nonsense_is_refused(call):
    with pytest.raises(ValueError):
        call()


NUMERIC = {  # every public function that takes numbers, and numbers that it takes
    "blahut_arimoto": ([1.0, 2.0], [1.0, 1.0], 4.0, 0.01),
    "det_distortion": ([1.0, 2.0], 1.0, 1.0),
    "differential_entropy": ([1.0, 2.0], [1.0, 1.0]),
    "check_histogram": ([1.0, 2.0], [1.0, 1.0]),
    "entropy_coded_uniform": (1.0,),
    "entropy_coded_uniform_at": (1.0,),
    "entropy_power": (1.0,),
    "gaussian_block_density": (0.5, 4),
    "gaussian_block_levels": (4,),
    "gaussian_block_mse": ([-1.0, 0.0, 1.0], 4),
    "gaussian_distortion": (1.0, 1.0),
    "gaussian_rate": (1.0, 1.0),
    "high_resolution": (1.0, 1.0),
    "output_distortion": ([1.0, 2.0], 1.0, 1.0),
    "output_rate": ([1.0, 2.0], 1.0, 1.0),
    "rate_lower_at": ([1.0, 2.0], [1.0, 1.0], 0.1),
    "sample_size_bias": (4, 9),
    "shannon_distortion": (1.0, 1.0),
    "shannon_rate": (1.0, 1.0),
    "space_filling_loss_db": (0.1,),
    "spectrum": ([[1.0, 0.0], [0.0, 1.0]],),
    "sphere_second_moment": (2.0,),
    "water_filling": ([1.0, 2.0], 0.5, [1.0, 1.0], 0.0),
    "water_filling_at_rate": ([1.0, 2.0], 0.5, [1.0, 1.0], 0.0),
}
CONVERSIONS = {"bits_to_nats", "nats_to_bits", "to_db"}  # of units: NaN stays NaN
CURVE = ("rate_upper", "rate_lower", "distortion_upper", "distortion_lower")


def with_nan(argument):
    """The same numbers, the last of them NaN."""
    array = np.array(argument, float)
    array.reshape(-1)[-1] = np.nan
    return array if array.ndim else np.nan


def test_every_function_that_takes_numbers_is_listed():
    functions = {name for name, value in vars(theory).items() if inspect.isfunction(value)}
    assert functions - CONVERSIONS - {"block_normalised"} == set(NUMERIC)  # which takes weights


@pytest.mark.parametrize("name", NUMERIC)
def test_nan_is_refused_in_a_sentence(name):
    function, arguments = getattr(theory, name), NUMERIC[name]
    function(*arguments)
    for place, argument in enumerate(arguments):
        spoiled = [*arguments[:place], with_nan(argument), *arguments[place + 1 :]]
        with pytest.raises(ValueError, match=r"nan|NaN|finite|must"):
            function(*spoiled)


@pytest.mark.parametrize("name", CURVE)
@pytest.mark.parametrize("refused", [-1.0, np.nan, [1.0, np.nan]])
def test_a_curve_refuses_what_is_no_rate_and_no_distortion(name, refused):
    with pytest.raises(ValueError, match="is (negative|NaN)"):
        getattr(blahut_arimoto([1, 2], [1, 1]), name)(refused)


# --------------------------------------------------------------------------------------- differential entropy


@pytest.mark.parametrize("name", SOURCES)
def test_closed_forms_of_the_entropy(name):
    source, h = SOURCES[name]
    assert h == pytest.approx(nats_to_bits(source.entropy()), abs=1e-6)
    assert entropy_power(h) <= 1 + 1e-12  # the Gaussian has the largest entropy at a given variance


def test_published_entropy_powers():
    assert entropy_power(GAUSSIAN_ENTROPY + 1) == pytest.approx(4)
    assert (
        entropy_power(LAPLACIAN_ENTROPY) == pytest.approx(np.e / np.pi) == pytest.approx(0.865256, abs=1e-6)
    )
    powers = [entropy_power(student_entropy(nu)) for nu in (3, 5, 10)]
    assert powers == pytest.approx([0.677372, 0.910558, 0.981674], abs=1e-6)
    assert entropy_power(student_entropy(1e6)) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("dtype", [np.float64, np.float16, bfloat16])
@pytest.mark.parametrize("n, repeats, bias", [(10_000, 20, 0.0065), (200_000, 3, 0.0015)])
def test_entropy_estimate(name, dtype, n, repeats, bias):
    """Against the mean of -log2 of the true density at the samples, which scatters with them."""
    source, h = SOURCES[name]
    errors, scatter = [], nats_to_bits(np.std(source.logpdf(source.rvs(1000, random_state=1)))) / np.sqrt(n)
    for seed in range(repeats):
        x, values, counts = sample(name, n, dtype, seed)
        estimate = differential_entropy(values, counts)
        errors.append(estimate + nats_to_bits(source.logpdf(x).mean()))
        assert estimate == pytest.approx(h, abs=5 * scatter + bias)
    assert abs(np.mean(errors)) < bias


def test_entropy_of_a_uniform_grid_is_exact_but_for_the_correction():
    assert differential_entropy(np.arange(1000) / 8, np.full(1000, 10**6)) == pytest.approx(
        np.log2(125), abs=1e-5
    )


def test_shares_are_no_samples():
    """ψ(k) counts samples: of shares it makes a number that means nothing."""
    _, values, counts = sample("gaussian", 1000, np.float64)
    with pytest.raises(ValueError, match="count 0.001 is not whole: give how many samples"):
        differential_entropy(values, counts / 1000)
    differential_entropy(values, counts.astype(float))


def test_entropy_scales_and_does_not_see_a_shift():
    _, values, counts = sample("student", 20_000, np.float64)
    h = differential_entropy(values, counts)
    assert differential_entropy(values * 8, counts) == pytest.approx(h + 3)
    assert differential_entropy(values - 2, counts) == pytest.approx(h)


@pytest.mark.parametrize("values, counts", [([], []), ([3], [7]), ([1, 2], [0, 9])])
def test_a_source_that_does_not_vary(values, counts):
    assert differential_entropy(values, counts) == -np.inf
    assert shannon_rate(0.0, -np.inf) == 0 and entropy_power(-np.inf) == 0
    curve = blahut_arimoto(values, counts)
    assert curve.distortion.size == 0 and curve.variance == curve.entropy == 0
    for bound in (curve.rate_upper, curve.rate_lower, curve.distortion_upper, curve.distortion_lower):
        np.testing.assert_array_equal(bound([0, 1.5]), [0, 0])


# ---------------------------------------------------------------------------------------------- water-filling


@given(st.lists(VARIANCE, min_size=1, max_size=6), st.floats(1e-6, 1))
def test_water_filling_spends_the_distortion_and_inverts(variances, share):
    D = share * np.mean(variances)
    filled = water_filling(variances, D)
    assert filled.distortion == pytest.approx(D) == pytest.approx(filled.components.mean())
    assert filled.rate == pytest.approx(gaussian_rate(filled.components, variances).mean())
    assert filled.rate <= gaussian_rate(D, np.mean(variances)) + 1e-9  # what one variance for all would cost
    again = water_filling_at_rate(variances, filled.rate)
    assert again.rate == pytest.approx(filled.rate, abs=1e-9)
    assert again.distortion == pytest.approx(D, rel=1e-6)


def test_water_filling_of_one_component_is_the_scalar_case():
    D = np.array([0, 1e-3, 0.5, 2, 5])
    np.testing.assert_allclose(water_filling([2.0], D).rate, gaussian_rate(D, 2.0))
    R = np.array([0, 0.5, 3, 8])
    np.testing.assert_allclose(water_filling_at_rate([2.0, 2.0], R).distortion, gaussian_distortion(R, 2.0))


@pytest.mark.parametrize("D", [0.05, 0.4, 1.0, 1.7])
def test_water_filling_against_brute_force(D):
    variances, weights = np.array([4.0, 1.0, 0.25, 0.0]), np.array([0.3, 0.4, 0.2, 0.1])
    positive = variances > 0
    best = optimize.minimize(
        lambda d: weights[positive] @ np.log2(variances[positive] / d) / 2,
        x0=variances[positive] * D / (weights @ variances),
        bounds=[(1e-9, v) for v in variances[positive]],
        constraints={"type": "eq", "fun": lambda d: weights[positive] @ d - D},
        tol=1e-12,
    )
    filled = water_filling(variances, D, weights * 7)  # the scale of the weights does not matter
    assert filled.rate == pytest.approx(best.fun, abs=1e-5)
    np.testing.assert_allclose(filled.components[positive], best.x, atol=1e-3)


def test_water_filling_at_high_rate_knows_only_the_geometric_mean():
    variances = np.array([9.0, 1.0, 0.5, 3.0])
    filled = water_filling_at_rate(variances, 5.0)
    assert filled.distortion == pytest.approx(stats.gmean(variances) * 4.0**-5)


def test_water_filling_shapes_zero_variances_and_the_side_rate():
    filled = water_filling([1, 0, 2], np.full((2, 5), 0.1))
    assert filled.rate.shape == filled.level.shape == (2, 5) and filled.components.shape == (2, 5, 3)
    assert water_filling([0, 0], 0.0).rate == 0 == water_filling_at_rate([0, 0], 3.0).distortion
    assert water_filling([1, 0], 0.0).rate == np.inf
    assert water_filling([1, 2], 0.1, side_rate=0.25).rate == pytest.approx(
        water_filling([1, 2], 0.1).rate + 0.25
    )
    paid = water_filling_at_rate([1, 2], [0.1, 2.25], side_rate=0.25)
    np.testing.assert_allclose(paid.distortion, water_filling_at_rate([1, 2], [0.0, 2.0]).distortion)


# -------------------------------------------------------------------------------------------- high resolution


def test_panter_dite():
    norm = 2 * integrate.quad(lambda x: np.cbrt(stats.norm.pdf(x)), 0, 60)[0]
    assert norm**3 / 12 == pytest.approx(PANTER_DITE_GAUSSIAN, rel=1e-6)
    assert theory.to_db(PANTER_DITE_GAUSSIAN) == pytest.approx(4.34681, abs=1e-5)
    assert high_resolution(3, 2.0) == 2 / 64


def nearest_d(x):
    """The nearest point of the lattice D_n: integers with an even sum (Conway and Sloane 1982)."""
    y = np.rint(x)
    odd = y.sum(-1) % 2 == 1
    worst = np.abs(x - y).argmax(-1)
    rows = np.arange(len(x))
    other = y[rows, worst] + np.where(x[rows, worst] > y[rows, worst], 1, -1)
    y[rows, worst] = np.where(odd, other, y[rows, worst])
    return y


def test_second_moments_of_lattices_by_monte_carlo():
    """D4 (volume 2) and E8 = D8 and its shift by 1/2 (volume 1), from their decoders."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-4, 4, (200_000, 4))
    assert ((x - nearest_d(x)) ** 2).mean() / 2**0.5 == pytest.approx(
        NORMALIZED_SECOND_MOMENTS["D4"], rel=2e-3
    )
    x = rng.uniform(-4, 4, (200_000, 8))
    cosets = [((x - nearest_d(x)) ** 2).mean(-1), ((x - nearest_d(x - 0.5) - 0.5) ** 2).mean(-1)]
    assert np.minimum(*cosets).mean() == pytest.approx(NORMALIZED_SECOND_MOMENTS["E8"], rel=2e-3)


def test_lattices_approach_the_limit():
    dimensions = {"Z": 1, "A2": 2, "D4": 4, "E8": 8, "Leech": 24, "limit": 10**7}
    balls = {name: theory.sphere_second_moment(d) for name, d in dimensions.items()}
    assert all(balls[name] < G * (1 + 1e-5) for name, G in NORMALIZED_SECOND_MOMENTS.items()), (
        "no cell is rounder than a ball"
    )
    assert balls["Z"] == pytest.approx(1 / 12) and balls["A2"] == pytest.approx(1 / (4 * np.pi))
    assert balls["limit"] == pytest.approx(NORMALIZED_SECOND_MOMENTS["limit"], rel=1e-5)
    gaps = [space_filling_loss_db(G) / theory.DB_PER_BIT for G in NORMALIZED_SECOND_MOMENTS.values()]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] == pytest.approx(0, abs=1e-12)
    assert gaps[0] == pytest.approx(0.2546143, abs=1e-7)
    assert space_filling_loss_db(NORMALIZED_SECOND_MOMENTS["Z"]) == pytest.approx(1.532931, abs=1e-6)
    published = {"A2": 0.0801875, "D4": 0.0766032, "E8": 0.0716821, "limit": 0.0585498}
    assert {name: NORMALIZED_SECOND_MOMENTS[name] for name in published} == pytest.approx(published, abs=1e-7)


# -------------------------------------------------------------------------------------- entropy-coded uniform


@pytest.mark.parametrize(
    "rate, midpoint, centroid",
    [
        (1, 0.4681723, 0.3483386),
        (2, 0.0976409, 0.0889412),
        (3, 0.0227447, 0.0222388),
        (4, 0.0055908, 0.0055597),
    ],
)
def test_entropy_coded_uniform_at_published_rates(rate, midpoint, centroid):
    point = entropy_coded_uniform_at(rate)
    assert point.rate == pytest.approx(rate, abs=1e-9)
    assert (point.midpoint, point.centroid) == pytest.approx((midpoint, centroid), abs=1e-7)


def test_entropy_coded_uniform_against_integration():
    point, step = entropy_coded_uniform(1.3), 1.3
    rate = midpoint = centroid = 0.0
    for y in step * np.arange(-6, 7):
        a, b = y - step / 2, y + step / 2
        p, m, s = (integrate.quad(lambda x, k=k: x**k * stats.norm.pdf(x), a, b)[0] for k in range(3))
        rate -= p * np.log2(p)
        midpoint += s - 2 * y * m + y * y * p
        centroid += s - m * m / p
    assert point[1:] == pytest.approx((rate, midpoint, centroid), rel=1e-6)


def test_what_plain_rounding_loses():
    """Fault 13 of the guide: the quarter of a bit holds at high rate, or with centroids."""
    at = {rate: entropy_coded_uniform_at(rate) for rate in (1, 2, 10)}
    assert at[10].rate - gaussian_rate(at[10].midpoint) == pytest.approx(0.254615, abs=1e-4)
    assert 2 - gaussian_rate(at[2].midpoint) == pytest.approx(0.322, abs=1e-3)
    assert 1 - gaussian_rate(at[1].midpoint) == pytest.approx(0.453, abs=1e-3)
    for rate, point in at.items():
        assert gaussian_distortion(rate) < point.centroid < point.midpoint
        assert rate - gaussian_rate(point.centroid) < 0.254615


# --------------------------------------------------------------------------------------------- Blahut-Arimoto


@pytest.fixture(scope="module")
def bfloat():
    """A heavy-tailed source on the bfloat16 grid: values, counts and R(D)."""
    _, values, counts = sample("student", 300_000, bfloat16)
    return values, counts, blahut_arimoto(values, counts)


def assert_sandwich(curve, gap=0.0021, reach=8):
    """The bounds are in order, nowhere more than ``gap`` apart, and each other's inverses."""
    D = curve.variance * np.geomspace(0.9, 4.0**-reach, 300)
    lower, upper = curve.rate_lower(D), curve.rate_upper(D)
    assert (lower <= upper).all() and (upper - lower).max() <= gap
    assert (np.diff(upper) >= -1e-12).all() and (np.diff(lower) >= -1e-12).all()
    assert (upper <= gaussian_rate(D, curve.variance) + 1e-9).all()  # the Gaussian is the hardest source
    assert (upper <= curve.entropy + 1e-9).all()
    np.testing.assert_allclose(curve.rate_upper(curve.distortion_upper(upper)), upper, atol=1e-8)
    np.testing.assert_allclose(curve.rate_lower(curve.distortion_lower(lower)), lower, atol=1e-8)
    np.testing.assert_allclose(curve.distortion_upper(0), curve.variance)
    assert curve.rate_upper(0) == pytest.approx(curve.entropy) and curve.rate_upper(2 * curve.variance) == 0
    assert curve.distortion_upper(curve.entropy + 1) == 0


def test_binary_source_in_closed_form():
    """+-1: if P(X = 1 | Y) = p, the error is 4 p (1 - p) and the rate 1 - h(p); a convex trade-off."""
    curve = blahut_arimoto([-1, 1], [1, 1])
    assert_sandwich(curve)
    D = np.linspace(1e-4, 0.999, 500)
    p = (1 - np.sqrt(1 - D)) / 2
    true = 1 + p * np.log2(p) + (1 - p) * np.log2(1 - p)
    assert (curve.rate_lower(D) <= true).all() and (true <= curve.rate_upper(D) + 1e-12).all()


def test_gaussian_source_in_closed_form():
    """R_X(D + v) <= R_cells(D) and R_X(D) >= R_cells((sqrt D + sqrt v)^2), if cells hide the variance v."""
    values, p, hidden = cells(stats.norm(), 1 / 256, 9)
    curve = blahut_arimoto(values, p)
    assert_sandwich(curve)
    D = np.geomspace(0.9, 4.0**-5, 50)
    upper = curve.rate_upper(D)
    assert (gaussian_rate(D + hidden) <= upper).all() and (upper <= gaussian_rate(D + hidden) + 0.002).all()
    assert (curve.rate_lower((np.sqrt(D) + np.sqrt(hidden)) ** 2) <= gaussian_rate(D)).all()


def test_laplacian_source_at_published_points():
    """And Shannon's bound below them, which is tight at high rate but not at half a bit."""
    values, p, hidden = cells(SOURCES["laplacian"][0], 1 / 4096, 18)
    curve = blahut_arimoto(values, p, max_rate=5)
    R = np.array([0.5, 1, 2, 3, 4])
    published = np.array([0.4402, 0.21714, 0.054093, 0.013520, 0.003380])
    rounding = np.array([5e-5, 5e-6, 5e-7, 5e-7, 5e-7])
    least = (np.sqrt(curve.distortion_lower(R)) - np.sqrt(hidden)) ** 2
    most = curve.distortion_upper(R) + hidden
    assert (least <= published + rounding).all() and (published - rounding <= most).all()
    assert (gaussian_rate(least, most) < 0.004)[:4].all()
    bound = shannon_distortion(R, LAPLACIAN_ENTROPY)
    assert (bound < most).all() and most[-1] / bound[-1] < 1.001 and least[0] / bound[0] > 1.01


def test_heavy_tails_pass_below_the_gaussian_and_meet_shannon(bfloat):
    values, counts, curve = bfloat
    assert_sandwich(curve)
    D = curve.variance * 4.0 ** -np.array([2.0, 3, 4])
    bound = shannon_rate(D, differential_entropy(values, counts))
    np.testing.assert_allclose(curve.rate_upper(D), bound, atol=0.01)
    assert (curve.rate_upper(D) < gaussian_rate(D, curve.variance) - 0.2).all()


def test_float32_values_that_are_all_different():
    _, values, counts = sample("laplacian", 5_000, np.float32)
    curve = blahut_arimoto(values, counts, max_rate=4)
    assert_sandwich(curve, reach=4)
    assert curve.entropy == pytest.approx(np.log2(5_000), abs=1e-3)  # but for a few ties


@pytest.mark.parametrize("step", [0.02, 0.2, 1.0, 3.0])
def test_no_scalar_quantizer_passes_the_lower_bound(bfloat, step):
    values, counts, curve = bfloat
    index = np.rint(values / step).astype(int)
    mass = np.bincount(index - index.min(), counts) / counts.sum()
    first = np.bincount(index - index.min(), counts * values) / counts.sum()
    used = mass > 0
    rate = -mass[used] @ np.log2(mass[used])
    D = counts @ values**2 / counts.sum() - (first[used] ** 2 / mass[used]).sum()
    assert curve.rate_lower(D) < rate < curve.rate_lower(D) + 0.3
    assert curve.distortion_lower(rate) < D


def test_certificates_hold_where_nothing_has_converged(bfloat, monkeypatch):
    values, counts, curve = bfloat
    monkeypatch.setattr(blahut, "ITERATIONS", (1,))
    monkeypatch.setattr(blahut, "REFINEMENTS", 0)
    rough = blahut_arimoto(values, counts)
    D = curve.variance * np.geomspace(0.99, 4.0**-8, 300)
    assert (rough.rate_lower(D) <= curve.rate_upper(D)).all()
    assert (rough.rate_upper(D) >= curve.rate_lower(D)).all()
    assert (rough.rate_upper(D) - rough.rate_lower(D)).max() > 0.01


CERTIFIED = {
    "binary": ([-1.0, 1.0], [0.5, 0.5]),
    "ternary": ([-1.0, 0.0, 1.0], [0.1, 0.8, 0.1]),
    "gaussian": sample("gaussian", 500, np.float64)[1:],
    "uniform": (np.linspace(-1, 1, 501), np.ones(501)),
    "student": sample("student", 1_000, bfloat16)[1:],
}


@pytest.mark.parametrize("name", CERTIFIED)
def test_the_lower_bound_is_what_the_certificates_prove(name, monkeypatch):
    """R(D) ≥ max(0, a − s·D, L − ½·log₂⁺(D/D_i)) of each raw certificate, with L = a − s·D_i, and no more."""
    certify, raw = blahut._certify, []

    def kept(*arguments):
        raw.append(certify(*arguments))
        return raw[-1]

    monkeypatch.setattr(blahut, "_certify", kept)
    curve = blahut_arimoto(*CERTIFIED[name], 5.0)
    D = np.concatenate([np.geomspace(4.0**-8, 0.5, 500), np.linspace(0.5, 1.01, 4000)])
    proved = np.zeros(D.size)
    for at, _, slope, intercept in raw:
        proved = np.maximum(proved, nats_to_bits(intercept - slope * D))
        if at > 0:
            proved = np.maximum(
                proved, nats_to_bits(intercept - slope * at - np.log(np.maximum(D / at, 1)) / 2)
            )
    assert (curve.rate_lower(D * curve.variance) - proved).max() < 1e-9
    rates = np.linspace(0, curve.entropy, 200)
    assert (curve.rate_lower(curve.distortion_lower(rates)) <= rates + 1e-9).all()


@settings(max_examples=8)
@given(
    st.lists(
        st.tuples(st.integers(-(10**6), 10**6), st.integers(1, 10**6)),
        min_size=2,
        max_size=6,
        unique_by=lambda t: t[0],
    )
)
def test_any_small_source_is_sandwiched_whatever_its_scale(atoms):
    values, counts = np.array(sorted(atoms), float).T
    curve = blahut_arimoto(values, counts, max_rate=4)
    assert_sandwich(curve, reach=4)
    scaled = blahut_arimoto(values * 1e-20 - 3e-18, counts, max_rate=4)
    D = np.geomspace(0.9, 4.0**-4, 50)
    np.testing.assert_allclose(
        scaled.rate_lower(D * scaled.variance), curve.rate_lower(D * curve.variance), atol=0.003
    )


def test_an_outlier_beyond_all_kernels():
    values, weights = np.append(np.linspace(-1, 1, 200), 1e3), np.append(np.ones(200), 1e-6)
    assert_sandwich(blahut_arimoto(values, weights, max_rate=5), reach=5)


def test_knowing_the_variances_helps_by_no_more_than_their_entropy():
    """R(D | S) <= R(D) <= R(D | S) + H(S), for a mixture of two Gaussians of known variances."""
    values, p, _ = cells(stats.norm(scale=0.4), 1 / 128, 12)
    _, q, _ = cells(stats.norm(scale=1.7), 1 / 128, 12)
    curve = blahut_arimoto(values, 0.75 * p + 0.25 * q, max_rate=4)
    D = curve.variance * np.geomspace(0.9, 4.0**-3, 20)
    known = water_filling([0.16, 2.89], D, [0.75, 0.25]).rate
    switch = -0.75 * np.log2(0.75) - 0.25 * np.log2(0.25)
    assert (known < curve.rate_upper(D) + 0.001).all() and (curve.rate_lower(D) < known + switch).all()
    assert (known < gaussian_rate(D, curve.variance) - 0.05)[5:].all()
