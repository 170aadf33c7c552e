"""Entropy-coded quantizers: they meet their closed forms, and no bound is passed but by what it does not know."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr
from sources import gaussian_quantiles

from rdlib.code.ans import huffman_bits, rice_bits
from rdlib.code.code import Code
from rdlib.histogram import Histogram, entropy_of
from rdlib.measure import average_gap, measure
from rdlib.models.checkpoint import open_checkpoint
from rdlib.quantizers import (
    D4,
    EcsqCentroid,
    EcsqMidpoint,
    EcsqOptimal,
    EntropyCoded,
    EntropyCodedTrellis,
    FeedbackTrellis,
    LatticeCoded,
    LeastSquares,
    LloydMax,
    PerChannel,
    RowClassified,
    Scaled,
    Uniform,
    WaterSIC,
)
from rdlib.theory.blahut import blahut_arimoto
from rdlib.theory.entropy_coded import entropy_coded_uniform_at
from rdlib.theory.gaussian import gaussian_rate
from rdlib.theory.water_filling import water_filling

SCALAR = [
    Uniform(2, clipping=LeastSquares()),
    LloydMax(2),
    EntropyCoded(LloydMax(2)),
    EcsqMidpoint(2),
    EcsqCentroid(2),
    EcsqOptimal(2),
]


@pytest.fixture(scope="module")
def gaussian():
    return gaussian_quantiles(1 << 17)


def unequal_rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    powers = 10 ** rng.uniform(-1.5, 1.5, (128, 1))
    return (rng.standard_normal((128, 1024)) * powers**0.5).astype(np.float32)


@pytest.mark.parametrize("bits", [1, 1.25, 2, 2.75, 3, 4])
def test_a_uniform_grid_meets_its_closed_form_on_a_gaussian(gaussian, bits):
    for quantizer, form in ((EcsqMidpoint(bits), "midpoint"), (EcsqCentroid(bits), "centroid")):
        point = measure(gaussian, quantizer)
        assert point.index_entropy == pytest.approx(bits, abs=1e-3)
        exact = getattr(entropy_coded_uniform_at(point.index_entropy), form)
        assert point.mse == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("bits", range(1, 7))
def test_the_optimum_is_no_worse_than_the_grid_with_centroids(gaussian, bits):
    """At equal entropy, to the width of the search for it: compare D·4^H."""
    grid, best = (measure(gaussian, kind(bits)) for kind in (EcsqCentroid, EcsqOptimal))
    assert best.mse * 4**best.index_entropy <= 1.002 * grid.mse * 4**grid.index_entropy


@pytest.mark.parametrize("bits", [2.25, 3.5])
@pytest.mark.parametrize(
    "quantizer", [EcsqOptimal(4), LatticeCoded(4, D4), EntropyCodedTrellis(4, 8)], ids=str
)
def test_the_payload_costs_the_nominal_rate_at_quarters_of_a_bit(quantizer, bits):
    W = np.random.default_rng(0).standard_normal((128, 256)).astype(np.float32)
    point = measure(W, quantizer.at(bits))
    assert point.rate - point.side_rate == pytest.approx(bits, abs=0.02)


@pytest.mark.parametrize("bits", range(1, 7))
def test_ans_reaches_the_entropy_and_huffman_does_not(gaussian, bits):
    code = EcsqCentroid(bits).encode(gaussian)
    counts = np.unique(code["index"], return_counts=True)[1]
    entropy, written = entropy_of(counts), code.rates["index"]
    assert entropy - 1e-9 <= written <= 1.001 * entropy + 64 / code.weights
    assert entropy <= huffman_bits(counts) / code.weights < entropy + 1


def test_huffman_is_the_best_prefix_code_of_a_dyadic_source():
    counts = np.array([8, 4, 2, 1, 1])
    assert huffman_bits(counts) == 8 * 1 + 4 * 2 + 2 * 3 + 4 + 4 == round(16 * entropy_of(counts))


@pytest.mark.parametrize(
    ("bits", "huffman", "rice"), [(1, 0.340, 0.340), (2, 0.105, 0.105), (3, 0.066, 0.113), (4, 0.042, 0.087)]
)
def test_what_whole_bits_cost_on_a_rounded_gaussian(bits, huffman, rice):
    """Bits a weight above the entropy, where ANS is within a thousandth: no table saves Rice's code from that."""
    z = np.arange(-400, 401)

    def rounded(s: float) -> np.ndarray:
        return np.rint(1e9 * (ndtr((z + 0.5) / s) - ndtr((z - 0.5) / s))).astype(np.int64)

    counts = rounded(brentq(lambda s: entropy_of(rounded(s)) - bits, 0.1, 100))
    assert huffman_bits(counts) / counts.sum() - bits == pytest.approx(huffman, abs=1e-3)
    assert rice_bits(counts, -400) / counts.sum() - bits == pytest.approx(rice, abs=1e-3)


@pytest.mark.parametrize("wrapper", [EntropyCoded, RowClassified])
def test_entropy_coding_changes_the_rate_and_nothing_else(wrapper):
    W = unequal_rows()
    inner, outer = LloydMax(4), wrapper(LloydMax(4))
    code = outer.encode(W)
    assert np.array_equal(outer.decode(code), inner.decode(inner.encode(W)))
    assert np.array_equal(outer.decode(Code.from_bytes(code.to_bytes())), outer.decode(code))
    assert code.rate < inner.encode(W).rate


def test_no_scalar_code_passes_the_rate_distortion_function_of_its_own_tensor():
    """Rate ≥ H(index) ≥ R(D); notebook 06 asserts it of a whole layer."""
    checkpoint = open_checkpoint("embedded")
    W = checkpoint.tensor(next(w for w in checkpoint.layer(0) if w.group == "k"))
    histogram = Histogram.of(W)
    bound = blahut_arimoto(histogram.values, histogram.counts, 6.0)
    for quantizer in SCALAR:
        for bits in (1, 3, 5):
            point = measure(W, quantizer.at(bits))
            assert point.rate >= point.index_entropy - 1e-9, point
            assert point.index_entropy >= bound.rate_lower(point.mse) - 1e-6, point


def test_row_classes_pass_the_pooled_bound_but_not_the_one_that_knows_the_rows():
    W = unequal_rows()
    histogram, powers = Histogram.of(W), (W.astype(np.float64) ** 2).mean(axis=1)
    pooled = blahut_arimoto(histogram.values, histogram.counts, 3.5)
    for bits in (1, 3):
        point = measure(W, RowClassified(EcsqCentroid(bits)))
        assert water_filling(powers, point.mse).rate < point.rate < pooled.rate_lower(point.mse)
        scaled = measure(W, Scaled(EcsqCentroid(bits), PerChannel()))
        assert scaled.rate > pooled.rate_lower(scaled.mse), "equal relative error is not water-filling"


def test_heavy_tails_lie_below_the_gaussian_curve():
    W = np.random.default_rng(0).standard_t(3, (256, 1024)).astype(np.float32)
    for bits in (1, 2):
        point = measure(W, EcsqCentroid(bits))
        assert point.rate < gaussian_rate(point.nmse)


def test_the_average_gap_of_a_shifted_curve_is_the_shift():
    reference = pd.DataFrame({"rate": [1.0, 2.0, 3.0, 4.0], "nmse": [0.3, 0.08, 0.02, 0.005]})
    assert average_gap(reference, reference) == pytest.approx(0, abs=1e-12)
    assert average_gap(reference.assign(rate=reference.rate + 0.37), reference) == pytest.approx(0.37)
    assert np.isnan(average_gap(reference.assign(nmse=reference.nmse * 1e-6), reference))


@pytest.mark.parametrize("quantizer", [LloydMax(4), *SCALAR[3:]], ids=lambda q: q.method)
@pytest.mark.parametrize("mean", [1e3, 1e5])
def test_a_mean_far_beyond_sigma_costs_no_precision(quantizer, mean):
    """Found by a user: levels were float16 numbers from zero, and steps no finer than 2⁻¹⁵ of the largest weight."""
    W = np.random.default_rng(0).standard_normal((128, 256)).astype(np.float32)
    plain, shifted = measure(W, quantizer.at(4)), measure(np.float32(mean) + W, quantizer.at(4))
    assert shifted.rate == pytest.approx(plain.rate, abs=0.02)
    assert shifted.nmse == pytest.approx(plain.nmse, rel=0.05)


OUTLIER = [*SCALAR[3:], LatticeCoded(4, D4), EntropyCodedTrellis(4, 8), WaterSIC(4), FeedbackTrellis(4, 8)]


@pytest.mark.parametrize("quantizer", OUTLIER, ids=lambda q: q.method)
@pytest.mark.parametrize("deviations", [50, 5000])
def test_one_outlier_costs_a_few_bytes(quantizer, deviations):
    """Found by a user: it cost a byte for every symbol between it and the other weights, 8.7 bits in all for 4."""
    W = np.random.default_rng(0).standard_normal((128, 256)).astype(np.float32)
    plain = measure(W, quantizer.at(4))
    W[0, 0] = deviations
    point = measure(W, quantizer.at(4))
    assert point.rate <= plain.rate + 0.02
    assert point.mse == pytest.approx(plain.mse, rel=0.05)
