"""Feedback on both sides: what is left of each error, what G is worth, and that a file has it all."""

import numpy as np
import pytest
from networks import one_torch_thread, random_windows, saved, tiny  # noqa: F401
from sources import gaussian, one_thread  # noqa: F401
from test_feedback import correlated

from rdlib.code.code import Code
from rdlib.engine import TwoSided, Variant, curvature, second_moments, walk
from rdlib.measure import measure_code
from rdlib.quantizers import FeedbackEcsq, FeedbackTrellis, Uniform, WaterSIC
from rdlib.quantizers.feedback.both_sides import cancelled_on_both_sides, power_of_others
from rdlib.quantizers.feedback.feedback import feedback_factor

BOTH = [WaterSIC(4), FeedbackEcsq(4)]
ROWS, COLUMNS = 70, 90  # three blocks of each, the last of them not whole
G, H = correlated(ROWS) + np.eye(ROWS), correlated(COLUMNS) + np.eye(COLUMNS)


def kl(W: np.ndarray, decoded: np.ndarray, G: np.ndarray, H: np.ndarray) -> float:
    """½ tr(G E H Eᵀ)."""
    E = W.astype(np.float64) - decoded
    return float(np.einsum("ij,jk,il,kl->", G, E, E, H, optimize=True)) / 2


def test_every_weight_leaves_its_own_rounding_error_and_no_other():
    """A·E·R of a rounding without shrinkage: at most half a spacing, times A_ii·R_jj, in every place."""
    x = gaussian((ROWS, COLUMNS)).astype(np.float64)
    U, V = feedback_factor(H, 1e-4), feedback_factor(G, 1e-2).T
    spacing = 0.2 * np.outer(np.diagonal(V), np.diagonal(U))
    z, targets = cancelled_on_both_sides(x, U, V, spacing, np.zeros_like(x))
    left = np.linalg.inv(V) @ (x - z * spacing) @ np.linalg.inv(U)
    expected = (targets - z * spacing) / np.outer(np.diagonal(V), np.diagonal(U))
    assert np.abs(left - expected).max() < 1e-9
    assert 0.099 < np.abs(left).max() <= 0.1 + 1e-9
    assert np.trace(np.linalg.inv(V).T @ np.linalg.inv(V)) == pytest.approx(1.01 * np.trace(G))


def test_the_power_of_fed_errors_is_that_of_the_factors():
    """Of white N: the variance of (V·N·U)_ij less its own part, in units of α²."""
    U, V = feedback_factor(H, 1e-4), feedback_factor(G, 1e-2).T
    ratios = np.outer(np.diagonal(V), np.diagonal(U))
    found = power_of_others(U, V, ratios)
    total = np.outer((V**2).sum(axis=1), (U**2).sum(axis=0))
    assert np.allclose(found, total / ratios**2 - 1)
    assert np.allclose(power_of_others(np.eye(COLUMNS), np.eye(ROWS), np.ones((ROWS, COLUMNS))), 0)


def test_at_high_rate_G_is_worth_the_ratio_of_its_means():
    """½·log₂ of tr G / out over the geometric mean of A_ii², in bits, all streams but those of rows counted."""
    G, H, W = correlated(128) + np.eye(128), correlated(64) + np.eye(64), gaussian((128, 64))
    quantizer = WaterSIC(6, damping=0.0, damping_G=0.0)
    one, two = quantizer.encode(W, H), quantizer.encode(W, H, G)
    gain = np.log2(kl(W, quantizer.decode(one), G, H) / kl(W, quantizer.decode(two), G, H)) / 2
    gain += one.rates["index"] - two.rates["index"]
    A = np.linalg.inv(feedback_factor(G, 0.0))
    assert gain == pytest.approx(np.log2(np.trace(G) / 128) / 2 - np.log2(np.diagonal(A)).mean(), abs=0.03)
    assert gain > 0.15


@pytest.mark.parametrize("quantizer", BOTH, ids=lambda q: q.method)
@pytest.mark.parametrize("bits", [2, 4])
def test_the_file_has_all_and_costs_the_nominal_rate(quantizer, bits):
    W, quantizer = gaussian((ROWS, 4 * COLUMNS)), quantizer.at(bits)
    code = quantizer.encode(W, None, G)
    assert "row_spacing" in code.streams
    decoded = quantizer.decode(Code.from_bytes(code.to_bytes()))
    assert np.array_equal(decoded, quantizer.decode(code))
    point = measure_code(W, quantizer, code)
    assert point.rate - point.side_rate == pytest.approx(bits, abs=0.05)
    assert kl(W, decoded, G, np.eye(4 * COLUMNS)) < kl(
        W, quantizer.decode(quantizer.encode(W)), G, np.eye(4 * COLUMNS)
    )


def test_who_takes_no_G_says_so_and_who_does_checks_it():
    W = gaussian((ROWS, COLUMNS))
    for quantizer in (Uniform(4), FeedbackTrellis(4, states=8)):
        with pytest.raises(ValueError, match="takes no G"):
            quantizer.encode(W, H, G)
    with pytest.raises(ValueError, match=r"G must be \(70, 70\) for weights of 70 outputs"):
        WaterSIC(4).encode(W, H, H)
    with pytest.raises(ValueError, match="damping"):
        WaterSIC(4, damping_G=-1.0)
    assert not WaterSIC(4).decode(WaterSIC(4).encode(0 * W, H, G)).any()


def test_the_engine_hands_G_on(tmp_path):
    checkpoint, windows = saved(tiny(), tmp_path / "model"), random_windows(20)
    sides = {n: c.G for layer in curvature(checkpoint, windows) for n, c in layer.items()}
    source, names = TwoSided(WaterSIC(3), sides), [w.name for w in checkpoint.layer(1)]
    assert source.method == "WaterSIC, G and H"
    found = walk(checkpoint, [Variant.by("both", names, source)], calibration=windows, keep=["both"])
    moments = second_moments(checkpoint, windows)
    for name in names:
        code = WaterSIC(3).encode(checkpoint.tensor(name), moments[name], sides[name])
        assert np.array_equal(found.tensors["both"][name], WaterSIC(3).decode(code))
