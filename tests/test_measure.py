"""A point is what NumPy says of W and Ŵ; a curve is read between its points and nowhere else."""

import math

import numpy as np
import pandas as pd
import pytest
from quantizer_list import method
from sources import gaussian, heavy, one_thread  # noqa: F401

from rdlib.measure import Point, average_gap, curve, measure, output_error, rate_at, save, sqnr_db, table
from rdlib.quantizers import GPTQ, LloydMax, PerGroup, Uniform, UniformAsymmetric, UniformMidTread

pytestmark = pytest.mark.filterwarnings("error")


# A point


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15, 1e25])
def test_normalised_measures_do_not_see_the_size_of_the_weights(size):
    """Squares of float32 weights neither underflow nor overflow."""
    unit = gaussian((20, 50)).astype(np.float64)
    points = [measure((s * unit).astype(np.float32), LloydMax(4)) for s in (1.0, size)]
    for name in ("rate", "nmse", "sqnr_db", "rel_max_error"):
        assert getattr(points[1], name) == pytest.approx(getattr(points[0], name), rel=1e-3)


def test_a_far_mean_does_not_hide_the_variance():
    W = (1000 + gaussian((30, 30)) / 1024).astype(np.float32)
    point = measure(W, LloydMax(3))
    error = W.astype(np.float64) - LloydMax(3).decode(LloydMax(3).encode(W))
    assert point.nmse == pytest.approx(np.mean(error**2) / W.astype(np.float64).var(), rel=1e-9)


@pytest.mark.parametrize(
    "quantizer", [Uniform(3, PerGroup(size=32)), LloydMax(2), UniformAsymmetric(3)], ids=method
)
def test_the_output_error_is_that_of_the_layer(quantizer):
    """tr(E H Eᵀ) / out is the mean of ‖X Eᵀ‖² over inputs and outputs, where H = Xᵀ X / n."""
    W, X = heavy((24, 172)), gaussian((500, 172), np.float64) @ gaussian((172, 172), np.float64, 1)
    error = W.astype(np.float64) - quantizer.decode(quantizer.encode(W))
    point = measure(W, quantizer, X.T @ X / len(X))
    assert point.output_mse == pytest.approx(np.mean((X @ error.T) ** 2), rel=1e-6)
    assert output_error(error, X.T @ X / len(X)) == pytest.approx(np.mean((X @ error.T) ** 2), rel=1e-12)


def test_the_output_error_is_right_in_float32_where_feedback_made_it_small():
    """And at any scale of weights and inputs, though squares would leave the range of float32."""
    turn = np.linalg.qr(gaussian((300, 300), np.float64, 1))[0]
    W, X = gaussian((64, 300)), gaussian((900, 300), np.float64) * 0.97 ** np.arange(300) @ turn
    H, quantizer = X.T @ X / len(X), GPTQ(UniformAsymmetric(3, PerGroup(size=100)), 1e-4)
    E = W - quantizer.decode(quantizer.encode(W, H))
    exact = np.einsum("ij,jk,ik->", wide := E.astype(np.float64), H, wide, optimize=True) / len(E)
    assert exact < 0.3 * (wide**2 @ np.diagonal(H)).sum() / len(E)
    assert output_error(wide, H) == pytest.approx(exact, rel=1e-10)
    for scale, power in ((1, 1), (1e30, 1), (1e-30, 1e-30), (1e-5, 1e30)):
        found = output_error((E * np.float32(scale)).astype(np.float32), H * power)
        assert found == pytest.approx(exact * scale**2 * power, rel=1e-5)


def test_the_width_of_the_products_does_not_matter(monkeypatch):
    E, x = heavy((50, 41)), gaussian((200, 41), np.float64)
    H = x.T @ x / len(x)
    whole = output_error(E, H)
    for columns in (1, 7, 40, 41):
        monkeypatch.setattr("rdlib.weights.COLUMNS", columns)
        assert output_error(E, H) == pytest.approx(whole, rel=1e-6)
        assert output_error(E.astype(np.float64), H) == pytest.approx(whole, rel=1e-6)


def test_the_size_of_blocks_does_not_matter(monkeypatch):
    W, x = heavy((50, 40)) + np.float32(0.01), gaussian((200, 40), np.float64)
    H, quantizer = x.T @ x / len(x), UniformAsymmetric(3, PerGroup(size=32))
    whole = measure(W, quantizer, H)
    for block in (1, 40, 333, 2000):
        monkeypatch.setattr("rdlib.measure.errors.BLOCK", block)
        parts = measure(W, quantizer, H)
        for name in ("mse", "nmse", "sqnr_db", "output_mse"):
            assert getattr(parts, name) == pytest.approx(getattr(whole, name), rel=1e-12), name
        assert (parts.max_error, parts.rate) == (whole.max_error, whole.rate)


def test_a_curve_knows_H():
    W, x = gaussian((16, 32)), gaussian((200, 32), np.float64)
    H = x.T @ x / len(x)
    assert curve(W, Uniform(4), (2, 3), H) == [measure(W, Uniform(b), H) for b in (2, 3)]


def test_the_output_error_of_white_inputs_is_the_weight_error():
    W = heavy((24, 172))
    point = measure(W, Uniform(4), np.eye(172, dtype=np.float32))
    assert point.output_mse == pytest.approx(172 * point.mse, rel=1e-6)


def test_the_output_error_of_a_large_layer_takes_no_time():
    """One matrix product, not a sum over all triples: 2·10¹¹ of them would take minutes."""
    W = gaussian((64, 2048))
    assert measure(W, Uniform(2), np.eye(2048)).output_mse > 0


def test_no_error_has_an_infinite_ratio():
    assert sqnr_db(0.0, 1.0) == math.inf
    assert sqnr_db(0.0, 0.0) == math.inf
    assert sqnr_db(0.01, 1.0) == pytest.approx(20)


# A curve


def test_a_curve_has_the_rates_of_its_method():
    W = heavy((10, 50))
    assert [p.bits for p in curve(W, LloydMax(4))] == list(range(1, 9))
    assert [p.bits for p in curve(W, UniformMidTread(4), range(0, 20))] == list(range(2, 17))
    assert curve(W, LloydMax(4), [3])[0].mse == measure(W, LloydMax(3)).mse
    assert curve(W, LloydMax(4), [9, 10]) == []


def test_a_table_has_a_row_a_point_and_its_labels_first():
    points = curve(heavy((10, 50)), LloydMax(4), [2, 3])
    frame = table(points, model="m", layer=3)
    assert list(frame.columns[:2]) == ["model", "layer"]
    assert list(frame.columns[2:]) == list(Point.__dataclass_fields__)
    assert frame.model.tolist() == ["m", "m"]
    assert frame.mse.tolist() == [p.mse for p in points]


def test_saved_points_are_read_again(tmp_path):
    frame = table(curve(heavy((10, 50)), LloydMax(4)), tensor="0.q")
    save(frame, tmp_path / "new" / "folder", "points")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "new" / "folder" / "points.parquet"), frame)


def test_nothing_is_saved_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(pd.DataFrame({"x": [1]}), "", "points")
    assert not list(tmp_path.iterdir())


# The rate at a target distortion


@pytest.mark.parametrize("order", [1, -1])
def test_a_curve_of_six_decibels_a_bit_is_interpolated_exactly(order):
    rates = np.arange(1.0, 9.0)[::order]
    for rate in (1.0, 1.5, 2.25, 4.0, 7.999, 8.0):
        assert rate_at(rates, 4.0**-rates, 4.0**-rate) == pytest.approx(rate, rel=1e-12)


def test_a_target_at_a_point_is_its_rate():
    assert rate_at([1, 2, 3], [0.5, 0.2, 0.1], 0.2) == 2
    assert rate_at([2], [0.2], 0.2) == 2


def test_nothing_is_extrapolated():
    rates, distortions = [2.0, 3.0, 4.0], [0.1, 0.03, 0.01]
    for target in (0.11, 0.0099, 1.0, 0.0):
        assert math.isnan(rate_at(rates, distortions, target))
    assert math.isnan(rate_at([], [], 0.1))
    assert math.isnan(rate_at([2], [0.2], 0.3))
    assert math.isnan(rate_at([1, 2], [math.nan, math.nan], 0.1))


def test_a_curve_that_begins_below_the_target_does_not_cover_it():
    """Though it may rise above the target and come down again."""
    assert math.isnan(rate_at([1, 2, 3], [0.1, 0.5, 0.05], 0.2))


def test_a_curve_that_rises_is_read_where_it_first_comes_down():
    assert rate_at([1, 2, 3, 4], [0.4, 0.1, 0.4, 0.1], 0.2) == pytest.approx(1.5)


def test_a_curve_that_ends_at_no_distortion_is_not_interpolated_there():
    assert rate_at([1, 2, 3], [0.4, 0.2, 0.0], 0.1) == 3
    assert rate_at([1, 2, 3], [0.4, 0.2, 0.0], 0.0) == 3
    assert math.isnan(rate_at([1, 2], [0.0, 0.0], 0.1))


def test_the_rate_of_measured_points_lies_between_them():
    points = curve(heavy((40, 172)), LloydMax(4))
    rates, distortions = [p.rate for p in points], [p.nmse for p in points]
    for a, b in zip(points, points[1:], strict=False):
        assert a.rate < rate_at(rates, distortions, math.sqrt(a.nmse * b.nmse)) < b.rate


# The average gap between curves


def six_decibels_a_bit(shift: float, rates: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"rate": rates + shift, "nmse": 4.0**-rates})


def test_the_average_gap_of_parallel_curves_is_their_distance():
    one = six_decibels_a_bit(0.0, np.arange(1.0, 9.0))
    for shift in (0.25, -0.5):
        for rates in (np.arange(1.0, 9.0), np.arange(2.5, 6.0), np.arange(1.0, 9.0)[::-1]):
            assert average_gap(six_decibels_a_bit(shift, rates), one) == pytest.approx(shift, abs=1e-9)


def test_the_average_gap_changes_its_sign_with_the_order():
    a, b = (table(curve(heavy((40, 172)), quantizer)) for quantizer in (Uniform(4), LloydMax(4)))
    assert average_gap(a, b) == pytest.approx(-average_gap(b, a), rel=1e-12)
    assert average_gap(a, b) > 0


def test_curves_without_a_common_distortion_have_no_gap():
    far = six_decibels_a_bit(0.0, np.array([20.0, 21.0]))
    assert math.isnan(average_gap(far, six_decibels_a_bit(0.0, np.arange(1.0, 9.0))))
