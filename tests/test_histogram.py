"""The histogram is the tensor, and the Lloyd–Max quantizer designed on it is the optimum."""

from itertools import product

import ml_dtypes
import numpy as np
import pytest
import scipy.stats
from benchmark_lloyd_max import seed_lloyd_max, seed_lloyd_max_in_a_loop
from sources import DTYPES, gaussian, heavy, one_thread  # noqa: F401

import rdlib.histogram
from rdlib.histogram import Histogram, entropy_of, lloyd_max, lloyd_max_curve, occurrences
from rdlib.measure import measure
from rdlib.quantizers import LloydMax

pytestmark = pytest.mark.filterwarnings("error")

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)

# ../shared/REFERENCE.md: MSE of the N-level Lloyd–Max quantizer at unit variance.
GAUSSIAN = {2: 1 - 2 / np.pi, 3: 0.1901740392, 4: 0.1174818478, 8: 0.0345477608, 16: 0.0095010080}
GAUSSIAN |= {32: 0.0025046684, 64: 0.0006442397, 128: 0.0001634782, 256: 0.0000411851}
LAPLACIAN = {2: 0.5, 3: 1 - 2 / np.e, 4: 0.1761948811, 8: 0.0544759879, 16: 0.0153725271, 256: 0.0000680617}


def distortion(histogram: Histogram, levels: np.ndarray) -> float:
    """Mean (w − t)², t the level nearest to w."""
    values = histogram.values.astype(np.float64)
    nearest = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, values)]
    return histogram.mean_of((values - nearest) ** 2)


def of_density(density, edge: float, points: int = 65001) -> tuple[Histogram, float]:
    """A density as a fine histogram on [−edge, edge], and the variance within a bin."""
    values = np.linspace(-edge, edge, points)
    counts = np.rint(1e14 * density(values) / density(0)).astype(np.int64)
    kept = counts > 0
    return Histogram(values[kept].astype(np.float32), counts[kept]), (values[1] - values[0]) ** 2 / 12


def lloyd(histogram: Histogram, levels: np.ndarray) -> np.ndarray:
    """Lloyd's iteration, as everybody has it."""
    for _ in range(200):
        cells = np.searchsorted((levels[1:] + levels[:-1]) / 2, histogram.values)
        counts = np.bincount(cells, histogram.counts, len(levels))
        sums = np.bincount(cells, histogram.counts * histogram.values.astype(np.float64), len(levels))
        levels = np.where(counts > 0, sums / np.maximum(counts, 1), levels)
    return levels


# The histogram


@every_dtype
def test_a_histogram_is_what_unique_says(dtype):
    for W in (
        heavy((40, 33), dtype),
        gaussian((7, 5), dtype),
        np.zeros((3, 3), dtype),
        np.empty((0, 4), dtype),
    ):
        histogram = Histogram.of(W)
        values, counts = np.unique(W.astype(np.float32), return_counts=True)
        assert np.array_equal(histogram.values, values)
        assert np.array_equal(histogram.counts, counts)
        assert histogram.values.dtype == np.float32
        assert histogram.counts.dtype == np.int64
        assert histogram.size == W.size


@every_dtype
def test_both_zeros_are_one_value(dtype):
    histogram = Histogram.of(np.array([[0.0, -0.0, 1.0, -0.0]], dtype))
    assert histogram.values.tolist() == [0.0, 1.0]
    assert histogram.counts.tolist() == [3, 1]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=lambda dtype: dtype.__name__)
def test_every_finite_16_bit_number_is_counted_as_itself(dtype):
    patterns = np.arange(65536, dtype=np.uint16).view(dtype)
    finite = patterns[np.isfinite(patterns.astype(np.float32))][None]
    histogram = Histogram.of(finite)
    assert np.array_equal(histogram.values, np.unique(finite.astype(np.float32)))
    assert histogram.counts.sum() == finite.size == len(histogram.values) + 1  # two zeros


@every_dtype
def test_moments_are_those_of_the_weights(dtype):
    W = heavy((50, 64), dtype) + dtype(0.01)
    wide, histogram = W.astype(np.float64).ravel(), Histogram.of(W)
    assert histogram.mean == pytest.approx(wide.mean(), rel=1e-11)
    assert histogram.power == pytest.approx(np.mean(wide**2), rel=1e-12)
    assert histogram.variance == pytest.approx(wide.var(), rel=1e-12)
    assert histogram.kurtosis == pytest.approx(scipy.stats.kurtosis(wide, fisher=False), rel=1e-11)
    assert histogram.largest == np.abs(wide).max()
    p = np.unique(wide, return_counts=True)[1] / wide.size
    assert histogram.entropy == pytest.approx(scipy.stats.entropy(p, base=2), rel=1e-12)


@pytest.mark.parametrize("size", [1e-44, 1e-25, 1e-15, 1e15, 1e37])
def test_moments_neither_underflow_nor_overflow(size):
    unit = np.array([[1.0, 2.0, 3.0, 6.0]])
    W = (size * unit).astype(np.float32)
    histogram, exact = Histogram.of(W), W.astype(np.float64)
    assert histogram.power == pytest.approx(np.mean(exact**2), rel=1e-12)
    assert histogram.variance == pytest.approx(exact.var(), rel=1e-12)
    assert histogram.kurtosis == pytest.approx(
        scipy.stats.kurtosis(exact / size, None, fisher=False), rel=1e-9
    )


def test_a_far_mean_does_not_hide_the_variance():
    W = (1000 + np.arange(8) / 1024).astype(np.float32)[None]
    assert Histogram.of(W).variance == pytest.approx(W.astype(np.float64).var(), rel=1e-9)


def test_constant_and_empty_tensors_have_moments_too():
    constant = Histogram.of(np.full((3, 4), 0.3, np.float32))
    assert (constant.variance, constant.entropy, constant.largest) == (0, 0, np.float32(0.3))
    assert np.isnan(constant.kurtosis)
    empty = Histogram.of(np.empty((0, 4), np.float16))
    assert (empty.size, empty.mean, empty.power, empty.variance, empty.entropy, empty.largest) == (0,) * 6


# Lloyd–Max: theorems


@pytest.mark.parametrize("seed", range(6))
def test_no_partition_of_a_small_set_is_better(seed):
    """Against all assignments of 7 points to N cells, contiguous or not."""
    rng = np.random.default_rng(seed)
    values = np.unique(rng.standard_t(2, 7).astype(np.float32))
    counts = rng.integers(1, 9, len(values))
    histogram = Histogram(values, counts.astype(np.int64))
    for levels in (1, 2, 3, 4):
        cells = np.array(list(product(range(levels), repeat=len(values))))
        one_hot = cells[:, None, :] == np.arange(levels)[:, None]
        mass, total = one_hot @ counts, one_hot @ (counts * values.astype(np.float64))
        between = np.divide(total**2, mass, out=np.zeros_like(total), where=mass > 0).sum(axis=1)
        best = histogram.power - between.max() / counts.sum()
        assert distortion(histogram, lloyd_max(histogram, levels)) == pytest.approx(best, rel=1e-9, abs=1e-14)


@every_dtype
@pytest.mark.parametrize("levels", [1, 2, 3, 8, 100, 256])
def test_the_centroid_condition(dtype, levels):
    """D = E[w²] − E[t²], for every level is the mean of its cell."""
    histogram = Histogram.of(heavy((64, 64), dtype))
    found = lloyd_max(histogram, levels)
    nearest = found[np.searchsorted((found[1:] + found[:-1]) / 2, histogram.values)]
    gain = histogram.mean_of(nearest**2)
    assert np.all(np.diff(found) > 0)
    assert distortion(histogram, found) == pytest.approx(histogram.power - gain, rel=1e-7)


@pytest.mark.parametrize("source", [gaussian, heavy], ids=lambda source: source.__name__)
@pytest.mark.parametrize("levels", [2, 4, 8, 16])
def test_no_run_of_lloyds_iteration_is_better(source, levels):
    histogram, rng = Histogram.of(source((40, 50))), np.random.default_rng(1)
    best = distortion(histogram, lloyd_max(histogram, levels))
    for _ in range(15):
        start = np.sort(rng.choice(histogram.values.astype(np.float64), levels, replace=False))
        assert distortion(histogram, lloyd(histogram, start)) >= best * (1 - 1e-12)
    assert distortion(histogram, lloyd(histogram, lloyd_max(histogram, levels))) == pytest.approx(
        best, rel=1e-12
    )


def test_one_level_is_the_mean_and_enough_levels_are_the_values():
    W = np.array([[1.0, 1.0, 4.0, -2.0]], np.float32)
    histogram = Histogram.of(W)
    assert lloyd_max(histogram, 1) == pytest.approx([1.0])
    for levels in (3, 4, 200):
        assert lloyd_max(histogram, levels) == pytest.approx([-2.0, 1.0, 4.0], abs=1e-12)


def test_a_far_mean_does_not_hide_the_levels():
    near = np.array([[0, 1, 2, 7, 8, 9]], np.float32) / 1024
    found = lloyd_max(Histogram.of(near + np.float32(1000)), 2)
    assert found == pytest.approx(1000 + np.array([1, 8]) / 1024, abs=1e-9)


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e30])
def test_levels_scale_with_the_weights(size):
    unit = gaussian((20, 20)).astype(np.float64)
    unit_levels, levels = (lloyd_max(Histogram.of((s * unit).astype(np.float32)), 16) for s in (1, size))
    assert levels == pytest.approx(size * unit_levels, rel=1e-5)


def test_a_curve_is_its_points_and_falls():
    histogram = Histogram.of(heavy((64, 64), np.float16))
    sizes = [2, 3, 4, 8, 16, 64, 256]
    curve = lloyd_max_curve(histogram, sizes)
    assert list(curve) == sizes
    for size in sizes:
        assert np.array_equal(curve[size], lloyd_max(histogram, size))
    falling = [distortion(histogram, levels) for levels in curve.values()]
    assert all(later < earlier for earlier, later in zip(falling, falling[1:], strict=False))


def test_no_weights_have_no_levels():
    empty = Histogram.of(np.empty((4, 0), np.float32))
    assert lloyd_max(empty, 4).size == 0
    assert {size: levels.size for size, levels in lloyd_max_curve(empty, [2, 4]).items()} == {2: 0, 4: 0}


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 8])
def test_the_seeds_lloyd_max_is_never_better(bits):
    """Nor is it far off where the optimum is easy; the time of both is in benchmark_lloyd_max.py."""
    for W in (gaussian((30, 100), ml_dtypes.bfloat16), heavy((30, 100), ml_dtypes.bfloat16)):
        histogram, values = Histogram.of(W), W.astype(np.float64).ravel()
        optimum = distortion(histogram, lloyd_max(histogram, 2**bits))
        seed = seed_lloyd_max(values, bits)
        assert distortion(histogram, seed) >= optimum * (1 - 1e-12)
        assert distortion(histogram, seed) == pytest.approx(
            distortion(histogram, seed_lloyd_max_in_a_loop(values, bits)), rel=1e-9
        )


# Lloyd–Max: more than 65,536 distinct values, which are merged into cells first


def with_outliers(kind: str) -> np.ndarray:
    x = np.random.default_rng(3).standard_normal(120_000)
    if kind == "one far weight":
        x[7] = 250
    elif kind == "twenty far weights":
        x[:20] *= 100
    elif kind == "a small far cluster":
        x = 1e-3 * x + 50 * (np.random.default_rng(4).random(x.size) < 1e-4)
    elif kind == "Cauchy":
        x = np.random.default_rng(5).standard_cauchy(x.size)
    return x.astype(np.float32)[None]


@pytest.mark.parametrize(
    "kind", ["Gaussian", "one far weight", "twenty far weights", "a small far cluster", "Cauchy"]
)
def test_merging_values_first_costs_nothing(kind, monkeypatch):
    """Against the dynamic programme over all values, wherever the outliers are."""
    histogram = Histogram.of(with_outliers(kind))
    assert len(histogram.values) > rdlib.histogram.DISTINCT
    merged = lloyd_max_curve(histogram, [2, 3, 4, 8, 16])
    monkeypatch.setattr(rdlib.histogram, "DISTINCT", histogram.size)
    for size, levels in lloyd_max_curve(histogram, [2, 3, 4, 8, 16]).items():
        assert distortion(histogram, merged[size]) <= distortion(histogram, levels) * (1 + 1e-5)


def test_float32_is_no_worse_than_bfloat16():
    W = with_outliers("twenty far weights")
    for bits in (2, 4, 6):
        narrow = LloydMax(bits).encode(W.astype(ml_dtypes.bfloat16))
        error = W.astype(np.float64) - LloydMax(bits).decode(narrow)
        assert measure(W, LloydMax(bits)).mse <= np.mean(error**2) * (1 + 1e-4)


# Lloyd–Max: remembered numbers


@pytest.mark.parametrize(
    ("density", "edge", "reference"),
    [(scipy.stats.norm.pdf, 7.9, GAUSSIAN), (lambda x: np.exp(-np.sqrt(2) * np.abs(x)), 16.0, LAPLACIAN)],
    ids=["Gaussian", "Laplacian"],
)
def test_the_design_on_a_fine_histogram_is_the_published_one(density, edge, reference):
    histogram, within = of_density(density, edge)
    assert histogram.variance + within == pytest.approx(1, rel=1e-5)
    for size, levels in lloyd_max_curve(histogram, list(reference)).items():
        assert distortion(histogram, levels) + within == pytest.approx(reference[size], rel=1e-4)
        assert levels == pytest.approx(-levels[::-1], abs=1e-3)


def test_samples_agree_with_the_published_values_to_the_sampling_error():
    """10⁶ samples of N(0, 1): mean e² is within four of its standard errors of D, at 1 … 8 bits.

    And below it by what a design fitted to the sample gains: each cell has 1/N of D (Panter and Dite) and
    loses to its two edges and its mean about 3/n of that, n its samples.
    """
    W = gaussian((1000, 1000), seed=7)
    for bits in (1, 2, 3, 4, 6, 8):
        code = LloydMax(bits).encode(W)
        squares = (W.astype(np.float64) - LloydMax(bits).decode(code)) ** 2
        fitted = np.minimum(3 / np.bincount(code["index"].ravel()), 1).mean() * GAUSSIAN[2**bits]
        error, sampling = squares.mean() - GAUSSIAN[2**bits], 4 * squares.std() / 1000
        assert -sampling - fitted < error < sampling, bits


# Symbols


@pytest.mark.parametrize(
    "symbols", [[], [3], [0, 0, 255, 7], [-5, 2, -5], [-(1 << 40), 0, 1 << 40], [(1 << 63) - 1, 0]], ids=str
)
@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int64, np.uint64], ids=lambda dtype: dtype.__name__
)
def test_occurrences_are_those_that_sorting_finds(symbols, dtype):
    limits = np.iinfo(dtype)
    symbols = np.array([[s for s in symbols if limits.min <= s <= limits.max]], dtype)
    found, wanted = occurrences(symbols), np.unique(symbols, return_counts=True)[1]
    assert np.array_equal(found[found > 0], wanted)
    assert len(found) <= max(symbols.size, 1 << 16) + 1
    assert entropy_of(found) == entropy_of(wanted)
