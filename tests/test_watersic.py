"""WaterSIC, and a trellis in its place: spacings, distance from the limit, side information."""

from dataclasses import replace

import numpy as np
import pytest
from sources import gaussian, one_thread  # noqa: F401
from test_feedback import correlated

from rdlib import theory
from rdlib.code.code import Code
from rdlib.code.normal import NARROWEST, scales_of
from rdlib.measure import measure
from rdlib.quantizers import FeedbackEcsq, FeedbackTrellis, WaterSIC
from rdlib.quantizers.feedback.feedback import feedback_factor
from rdlib.theory.output import output_rate, spectrum

BOTH = [WaterSIC(3), FeedbackTrellis(3, states=32)]
ALL = [FeedbackEcsq(3), *BOTH]


def method(quantizer: object) -> str:
    return quantizer.method


def side_free_gap(W: np.ndarray, quantizer: object, H: np.ndarray) -> float:
    """Bits of the indices beyond the limit."""
    point = measure(W, quantizer, H)
    return point.rate - point.side_rate - output_rate(spectrum(H), point.output_mse, float(np.mean(W**2)))


def test_with_white_inputs_it_is_uniform_spacing():
    """H = I: one spacing for all columns, every index the nearest multiple of it."""
    W = gaussian((64, 80))
    for H in (None, np.eye(80), 3 * np.eye(80)):
        code = WaterSIC(3).encode(W, H)
        assert not code["spacing"].any()
        rows, columns = scales_of({name: stream.array for name, stream in code.streams.items()})
        z = WaterSIC(3)._indices(code, rows[:, None] + columns)
        assert np.array_equal(z, np.rint(W.astype(np.float64) / code["step"][0]))
    assert np.array_equal(WaterSIC(3).encode(W)["index"], WaterSIC(3).encode(W, np.eye(80))["index"])


def test_spacings_are_inverse_to_the_residuals():
    """α_j ∝ 1 / R_jj = U_jj, to a sixteenth of an octave."""
    H = correlated(60)
    code = WaterSIC(3).encode(gaussian((40, 60)), H)
    octaves = np.log2(np.diagonal(feedback_factor(H, 1e-4)))
    assert np.abs(code["spacing"] / 8 - (octaves - octaves.min())).max() <= 1 / 16 + 1e-12


def test_every_coded_column_leaves_the_same_error():
    """α²/12 in each column of E·R: reverse water-filling with nothing under water."""
    W, H = gaussian((4000, 24)), correlated(24) + 3 * np.eye(24)
    quantizer = WaterSIC(5, damping=0.0)
    E = W - quantizer.decode(quantizer.encode(W, H)).astype(np.float64)
    R = np.linalg.inv(feedback_factor(H, 0.0))
    power = ((E @ R) ** 2).mean(axis=0)
    assert power.max() / power.min() < 1.35  # spacings are rounded to an eighth of an octave: 2^(2/8) = 1.19
    assert np.median(power) == pytest.approx(power.mean(), rel=0.05)


@pytest.mark.parametrize(
    ("quantizer", "gap"), [(BOTH[0], 0.2546), (BOTH[1], 0.053)], ids=["intervals", "trellis"]
)
def test_the_gap_to_the_limit_is_that_of_the_cells(quantizer, gap):
    """½·log₂(2πe/12) = 0.2546 bit for intervals; 0.053 for 32 states (1.214 dB less), at high rate."""
    W, H = gaussian((8192, 64)), correlated(64) + 2 * np.eye(64)
    assert side_free_gap(W, quantizer.at(6), H) == pytest.approx(gap, abs=0.015)


def test_one_spacing_costs_what_the_residuals_differ_by():
    """½·log₂ of the arithmetic over the geometric mean of R_jj², at high rate; and no bit of ``spacing``."""
    W, H = gaussian((8192, 64)), correlated(64) + 2 * np.eye(64)
    residuals = np.diagonal(feedback_factor(H, 0.0)) ** -2.0
    spread = (np.log2(residuals.mean()) - np.log2(residuals).mean()) / 2
    one, own = (replace(q(6), damping=0.0) for q in (FeedbackEcsq, WaterSIC))
    assert one.encode(W, H).streams["spacing"].bits == 0
    assert (
        side_free_gap(W, one, H) - side_free_gap(W, own, H) == pytest.approx(spread, abs=0.015)
        and spread > 0.1
    )


@pytest.mark.parametrize("quantizer", ALL, ids=method)
def test_the_indices_cost_the_nominal_rate(quantizer):
    W, H = gaussian((256, 64)), correlated(64)
    for bits in (1, 1.5, 2.25, 3, 5, 7):
        point = measure(W, quantizer.at(bits), H)
        assert point.rate - point.side_rate == pytest.approx(bits, abs=0.05)


@pytest.mark.parametrize("quantizer", BOTH, ids=method)
def test_columns_under_water_cost_nothing(quantizer):
    """Where half of the inputs hardly matter, their columns are zeros."""
    W, power = gaussian((256, 32)), np.repeat([1.0, 1e-6], 16)
    point = measure(W, quantizer.at(1), np.diag(power))
    decoded = quantizer.decode(quantizer.at(1).encode(W, np.diag(power)))
    assert not decoded[:, 16:].any()
    assert decoded[:, :16].any(axis=0).all()
    assert point.rate - point.side_rate == pytest.approx(1, abs=0.08)


def test_a_column_pays_ten_bits_of_side_information_and_a_row_five():
    """Sixteen a column and sixteen a row are what the paper spends."""
    code = WaterSIC(3).encode(gaussian((64, 256)), correlated(256))
    columns, rows = (
        sum(code.streams[name].bits for name in names)
        for names in (("spacing", "deviation"), ("row_deviation",))
    )
    assert columns <= 10 * 256
    assert rows <= 5 * 64


def test_scales_are_those_of_rows_and_columns():
    """Row i and column j of a_i·b_j·N(0, 1), in units of the spacing, to an eighth of an octave or so."""
    a, b = 2.0 ** np.linspace(-2, 2, 64), 2.0 ** np.linspace(-1, 1, 512)
    W = (a[:, None] * b * gaussian((64, 512))).astype(np.float32)
    code = WaterSIC(4).encode(W)
    rows, columns = scales_of({name: stream.array for name, stream in code.streams.items()})
    found = (rows[:, None] + columns + NARROWEST) / 8
    assert np.abs(found - np.log2(a[:, None] * b / code.number("step"))).mean() < 0.12


@pytest.mark.parametrize("quantizer", ALL, ids=method)
def test_scales_cost_less_than_the_differences_that_they_tell(quantizer):
    """Rows of different power, H = I: at the error of one scale for all, fewer bits, all of them counted."""
    W = 2.0 ** np.linspace(-2, 2, 128)[:, None] * gaussian((128, 512))
    point = measure(W.astype(np.float32), quantizer)
    flat = theory.water_filling((W**2).mean(axis=1), point.mse)
    assert 0 < point.rate - flat.rate < 0.33, "intervals lose 0.25 bit"
    assert point.rate < theory.gaussian_rate(point.mse, float((W**2).mean())) - 0.2


@pytest.mark.parametrize("quantizer", [WaterSIC(3), FeedbackTrellis(3, states=32)], ids=method)
def test_the_model_of_scales_costs_a_hundredth_of_a_bit(quantizer):
    """On a Gaussian: what the file has for its indices, against their entropy in each column."""
    W = gaussian((2048, 64))
    code = quantizer.encode(W, correlated(64))
    entropy = measure(W, quantizer, correlated(64)).index_entropy
    assert 0 < code.rates["index"] - entropy < 0.01


OUTLIERS = {
    "8 × 64 and 1000 σ": (gaussian((8, 64)), 1e3, 10),
    "8 × 64 and −300 σ": (gaussian((8, 64)), -3e2, 10),
    "256 × 256 and 5000 σ": (np.float32(0.02) * gaussian((256, 256)), 100, 4.3),
    "beyond twelve powers of ten": (np.float32(1e-8) * gaussian((8, 256)), 6e4, 2),
}


@pytest.mark.parametrize(("W", "outlier", "rate"), OUTLIERS.values(), ids=OUTLIERS)
@pytest.mark.parametrize("quantizer", ALL, ids=method)
def test_a_weight_far_from_all_others_has_no_table_of_its_own(quantizer, W, outlier, rate):
    """A table from here to there once took 289 bits a weight."""
    W = W.copy()
    W[0, 0] = outlier
    code = quantizer.at(4).encode(W)
    assert code.rate < rate
    decoded = quantizer.decode(Code.from_bytes(code.to_bytes()))
    assert np.array_equal(decoded, quantizer.decode(code))
    assert decoded[0, 0] == pytest.approx(outlier, rel=0.02)
    assert np.abs(decoded - W).max() < 0.02 * abs(outlier)


def test_a_trellis_that_is_none_is_refused():
    with pytest.raises(ValueError, match="states, not 5"):
        FeedbackTrellis(3, states=5)


def test_the_trellis_is_worth_most_of_a_decibel():
    W, H = gaussian((512, 64)), correlated(64)
    plain, trellis = (side_free_gap(W, q.at(3), H) for q in (WaterSIC(3), FeedbackTrellis(3)))
    assert 0.15 < plain - trellis < 0.2546


def test_more_states_are_closer_to_the_limit():
    W, H = gaussian((512, 48)), correlated(48)
    gaps = [side_free_gap(W, FeedbackTrellis(3, states=s), H) for s in (4, 32, 256)]
    assert gaps[0] > gaps[1] > gaps[2]


@pytest.mark.parametrize("quantizer", [WaterSIC(4), WaterSIC(8), FeedbackTrellis(4, states=8)], ids=method)
def test_one_weight_takes_no_endless_table(quantizer):
    """Found by timing: its entropy is 0 at any step, and the search for 4 bits ended at a table of 2·10⁹ bits."""
    code = quantizer.encode(np.array([[0.5]], np.float32))
    assert code.bits < 1e5
    assert abs(quantizer.decode(code)[0, 0] - 0.5) < 0.1
