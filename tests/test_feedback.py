"""Error feedback: what it leaves alone, what it gains, and what no feedback passes."""

import numpy as np
import pytest
from sources import gaussian, heavy, one_thread  # noqa: F401

from rdlib.measure import measure, output_error
from rdlib.quantizers import (
    AWQ,
    E8P,
    GPTQ,
    LDLQ,
    ActOrder,
    BitshiftTrellis,
    EcsqCentroid,
    EntropyCoded,
    FeedbackTrellis,
    LeastSquares,
    LloydMax,
    PerChannel,
    PerGroup,
    PerTensor,
    Rotated,
    Uniform,
    UniformAsymmetric,
    UniformMidTread,
    WaterSIC,
)
from rdlib.quantizers.feedback.feedback import feed_forward, feedback_factor, feedback_gain
from rdlib.theory.output import output_rate, spectrum

GRIDS = [
    family(3, granularity, *clipping)
    for family in (Uniform, UniformMidTread, UniformAsymmetric)
    for granularity in (PerTensor(), PerChannel(), PerGroup(size=48))
    for clipping in ((), (LeastSquares(),))
]


def correlated(inputs: int, seed: int = 0, tokens: int = 4) -> np.ndarray:
    """E[x xᵀ] of inputs of unequal power that are far from independent, (in, in)."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((tokens * inputs, inputs)) @ rng.standard_normal((inputs, inputs))
    X *= np.exp(0.5 * rng.standard_normal(inputs))
    return X.T @ X / len(X)


def grid(step: float):
    """Rounding to a grid without end."""
    return lambda start, columns: step * np.rint(columns / step)


# The engine


def test_the_factor_is_a_root_of_the_inverse():
    H = correlated(20)
    U = feedback_factor(H, 0.0)
    assert np.array_equal(U, np.triu(U))
    assert np.allclose(U.T @ U @ H, np.eye(20), atol=1e-8)


def test_what_the_factor_leaves_of_an_input_is_what_those_after_it_do_not_tell():
    """1 / U_jj² is the residual of regressing input j on the inputs j + 1 … ."""
    H, j = correlated(12), 4
    after = slice(j + 1, None)
    residual = H[j, j] - H[j, after] @ np.linalg.solve(H[after, after], H[after, j])
    assert 1 / feedback_factor(H, 0.0)[j, j] ** 2 == pytest.approx(residual, rel=1e-9)


def test_feedback_gains_what_the_residuals_are_less_than_the_powers():
    """Two inputs of power 1 and correlation ρ: (1 − ρ²) + 1 instead of 2; none where inputs are independent."""
    for rho in (0.0, 0.5, 0.9):
        gain = feedback_gain(np.array([[1, rho], [rho, 1]]), 0.0)
        assert gain == pytest.approx(np.log2(2 / (2 - rho**2)) / 2, abs=1e-12)
    assert feedback_gain(np.zeros((3, 3)), 0.01) == 0


def test_an_unusable_H_is_refused():
    for H in (np.ones((3, 4)), np.ones(3), np.diag([1.0, np.nan])):
        with pytest.raises(ValueError, match="^H (must be|holds)"):
            feedback_factor(H, 0.01)
    with pytest.raises(ValueError, match="raise the damping"):
        feedback_factor(np.ones((3, 3)), 0.0)
    with pytest.raises(ValueError, match=r"H must be \(8, 8\) for weights of 8 inputs, but it is \(7, 7\)"):
        GPTQ(Uniform(3)).encode(gaussian((4, 8)), np.eye(7))
    for make in (GPTQ, LDLQ):
        with pytest.raises(ValueError, match="damping is a number ≥ 0"):
            make(Uniform(3), damping=-0.1)


def test_inputs_of_no_power_leave_rounding_alone():
    assert np.array_equal(feedback_factor(np.zeros((5, 5)), 0.01), np.eye(5))
    H = correlated(40)
    H[7], H[:, 7] = 0, 0
    W = gaussian((8, 40))
    for quantizer in (GPTQ(Uniform(4)), LDLQ(Uniform(4), 8), WaterSIC(4), AWQ(Uniform(4))):
        assert np.isfinite(quantizer.decode(quantizer.encode(W, H))).all()


@pytest.mark.parametrize("width", [1, 3, 16, 200])
def test_the_error_in_the_output_is_that_of_rounding_alone(width):
    """E·R = rounding errors · blocks of R on the diagonal: in columns of width 1, R_jj times each."""
    W, H = gaussian((10, 150)).astype(float), correlated(150)
    U, residual = feedback_factor(H, 0.0), np.empty((10, 150))

    def quantize(start: int, columns: np.ndarray) -> np.ndarray:
        rounded = np.rint(columns)
        here = slice(start, start + columns.shape[1])
        residual[:, here] = np.linalg.solve(U[here, here].T, (columns - rounded).T).T
        return rounded

    E = W - feed_forward(W, U, width, quantize)
    assert output_error(E, H) == pytest.approx((residual**2).sum() / 10, rel=1e-9)


def test_feedback_is_no_worse_than_its_grid_on_gaussian_rows():
    """On a fixed unclipped grid, averaged over 256 rows: it replaces H_jj by the smaller residual 1 / U_jj²."""
    for seed in range(5):
        W, H = gaussian((256, 64), np.float32, seed).astype(float), correlated(64, seed)
        U = feedback_factor(H, 0.0)
        for step in (0.1, 0.4, 1.0):
            plain = output_error(W - grid(step)(0, W), H)
            assert output_error(W - feed_forward(W, U, 1, grid(step)), H) <= plain


def test_the_input_is_not_changed():
    W, H = heavy((16, 64)), correlated(64)
    before = W.tobytes(), H.tobytes()
    for quantizer in (
        GPTQ(Uniform(3)),
        LDLQ(Uniform(3)),
        ActOrder(GPTQ(Uniform(3))),
        AWQ(Uniform(3)),
        WaterSIC(3),
    ):
        quantizer.encode(W, H)
        assert (W.tobytes(), H.tobytes()) == before


# GPTQ


@pytest.mark.parametrize("inner", GRIDS, ids=lambda q: q.method)
def test_gptq_with_white_inputs_is_rounding(inner):
    """H = I: the file is that of the inner quantizer, bit for bit, and a stable act-order sorts nothing."""
    W = heavy((12, 172))
    W[3] = 0
    expected = inner.encode(W).to_bytes()
    for H in (None, np.eye(172), 7.5 * np.eye(172)):
        assert GPTQ(inner).encode(W, H).to_bytes() == expected
        code = ActOrder(GPTQ(inner)).encode(W, H)
        assert np.array_equal(code["permutation"], np.arange(172))
        assert np.array_equal(code["index"], inner.encode(W)["index"])


def reference_gptq(W: np.ndarray, H: np.ndarray, step: float) -> np.ndarray:
    """Algorithm 1 of the paper without blocks: invert H, take out one row and column after the other."""
    W, inverse = W.astype(float).copy(), np.linalg.inv(H)
    decoded = np.empty_like(W)
    for j in range(W.shape[1]):
        decoded[:, j] = step * np.rint(W[:, j] / step)
        W -= np.outer((W[:, j] - decoded[:, j]) / inverse[j, j], inverse[j])
        inverse = inverse - np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    return decoded


def test_the_blocked_form_is_the_algorithm_of_the_paper():
    W, H = gaussian((6, 150)).astype(float), correlated(150)
    expected = reference_gptq(W, H, 0.3)
    assert np.allclose(feed_forward(W, feedback_factor(H, 0.0), 1, grid(0.3)), expected, atol=1e-9)


def test_compiled_columns_are_columns_one_by_one():
    """The kernel inside a group and the engine with blocks of one column give the same weights."""
    W, H = gaussian((32, 200)), correlated(200)
    inner = Uniform(6, PerChannel())
    scale = inner.encode(W)["scale"].astype(np.float64)

    def quantize(start: int, columns: np.ndarray) -> np.ndarray:
        q = np.clip(np.floor((columns + scale) / (2 * scale / 63) + 0.5), 0, 63)
        return scale * (2 * q / 63 - 1)

    expected = feed_forward(W.astype(float), feedback_factor(H, 0.01), 1, quantize)
    decoded = inner.decode(GPTQ(inner).encode(W, H))
    assert (
        np.mean(np.abs(decoded - expected) > 1e-4) < 0.02
    )  # float32 sums tip a few weights to the other side
    assert output_error(decoded - W, H) == pytest.approx(output_error(expected - W, H), rel=0.03)


@pytest.mark.parametrize(
    "inner",
    [Uniform(3, PerGroup(size=32)), UniformAsymmetric(3, PerChannel(), LeastSquares()), UniformMidTread(4)],
)
def test_gptq_gains_where_inputs_are_correlated(inner):
    W, H = gaussian((256, 96)), correlated(96)
    assert measure(W, GPTQ(inner), H).output_mse < 0.6 * measure(W, inner, H).output_mse
    assert measure(W, GPTQ(inner), H).rate == measure(W, inner, H).rate
    coded = EntropyCoded(GPTQ(inner))
    assert measure(W, coded, H).output_mse == measure(W, GPTQ(inner), H).output_mse


def test_gptq_refuses_levels_that_are_not_even():
    for inner in (LloydMax(3), E8P(), EcsqCentroid(3)):
        with pytest.raises(ValueError, match="evenly spaced levels.*LDLQ"):
            GPTQ(inner)


def test_act_order_pays_for_its_permutation():
    W, H = gaussian((16, 100)), correlated(100)
    code = ActOrder(GPTQ(Uniform(3))).encode(W, H)
    assert (np.diff(np.diagonal(H)[code["permutation"]]) <= 0).all()
    assert code.streams["permutation"].bits == pytest.approx(100 * np.log2(100), rel=0.012)


# LDLQ


@pytest.mark.parametrize("inner", [E8P(), BitshiftTrellis(2, 8), LloydMax(2)], ids=lambda q: q.method)
def test_ldlq_gains_with_codes_of_several_columns(inner):
    W, H = gaussian((256, 60)), correlated(60)
    H = H + 0.2 * np.diagonal(H).mean() * np.eye(60)
    quantizer = LDLQ(inner, 8)
    assert measure(W, quantizer, H).output_mse < 0.8 * output_error(
        W - quantizer.decode(quantizer.encode(W)), H
    )


def test_ldlq_refuses_codes_of_variable_length():
    with pytest.raises(ValueError, match="fixed length"):
        LDLQ(EcsqCentroid(3)).encode(gaussian((16, 32)))
    with pytest.raises(ValueError, match="at least 1 column"):
        LDLQ(E8P(), 0)


# Rotation


def test_a_rotation_leaves_the_limit_alone():
    from rdlib.quantizers.transform.rotated import rotate
    from rdlib.theory.output import det_distortion

    H = correlated(96)
    turned = rotate(rotate(H, 5).T, 5).T
    assert np.allclose(spectrum(turned), spectrum(H), rtol=1e-8)
    assert det_distortion(spectrum(turned), 3) == pytest.approx(det_distortion(spectrum(H), 3), rel=1e-8)


# The limit


@pytest.mark.parametrize("seed", range(3))
def test_no_code_of_gaussian_weights_passes_the_water_filling_of_its_inputs(seed):
    W, H = gaussian((128, 96), np.float32, seed), correlated(96, seed)
    grid = UniformAsymmetric(2, PerGroup(size=32))
    quantizers = [
        grid,
        GPTQ(grid),
        ActOrder(GPTQ(grid)),
        Rotated(GPTQ(grid)),
        AWQ(grid),
        EntropyCoded(GPTQ(grid)),
    ]
    quantizers += [LDLQ(E8P(), 8), WaterSIC(1), FeedbackTrellis(1, states=8)]
    variance = float(np.mean(W.astype(float) ** 2))
    for quantizer in quantizers:
        for bits in {1, 1.5, 2, 3, 4, 6} & set(quantizer.bits_allowed):
            point = measure(W, quantizer.at(bits), H)
            assert point.rate > output_rate(spectrum(H), point.output_mse, variance), (quantizer.method, bits)
