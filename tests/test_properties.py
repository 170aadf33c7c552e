"""What holds for every quantizer and every matrix: hypothesis looks for the one where it does not."""

import warnings

import ml_dtypes
import numba
import numpy as np
import pytest
from effort import EXAMPLES, SEED
from hypothesis import HealthCheck, assume, example, given, seed, settings
from hypothesis import strategies as st
from quantizer_list import ALL
from sources import DTYPES

from rdlib.code.code import Code
from rdlib.histogram import Histogram, lloyd_max_curve

SIDES = st.sampled_from([1, 2, 3, 5, 7, 13, 32, 61])
KINDS = (
    "gaussian",
    "constant",
    "zeros",
    "denormal",
    "largest",
    "outlier",
    "zero rows",
    "two values",
    "heavy",
)
LAYOUTS = ("C", "Fortran", "strided", "reversed", "read-only")
EACH = EXAMPLES // 3
RELAXED = settings(max_examples=EACH, suppress_health_check=list(HealthCheck), database=None)


def matrix(kind: str, shape: tuple[int, int], dtype: type, seed: int) -> np.ndarray:
    """A matrix of one of the kinds that quantizers stumble over."""
    random = np.random.default_rng(seed)
    W = random.standard_normal(shape)
    limits = ml_dtypes.finfo(dtype)
    if kind == "constant":
        W = np.full(shape, W.ravel()[0] if W.size else 0.0)
    elif kind == "zeros":
        W = np.zeros(shape)
    elif kind == "denormal":
        W = np.sign(W) * float(limits.smallest_subnormal) * random.integers(0, 4, shape)
    elif kind == "largest":
        W = np.where(W > 0.5, float(limits.max), np.where(W < -0.5, -float(limits.max), 0))
    elif kind == "outlier" and W.size:
        W.ravel()[random.integers(W.size)] = 1e4
    elif kind == "zero rows":
        W[::2] = 0
        W[:, 32:64] = 0
    elif kind == "two values":
        W = np.where(W > 1, 0.5, -0.25)
    elif kind == "heavy":
        W = random.standard_t(2, shape)
    return W.astype(dtype)


def laid_out(W: np.ndarray, layout: str) -> np.ndarray:
    """The same matrix, otherwise in memory."""
    if layout == "Fortran":
        return np.asfortranarray(W)
    if layout == "strided":
        wide = np.zeros((W.shape[0], 2 * W.shape[1]), W.dtype)
        wide[:, ::2] = W
        return wide[:, ::2]
    if layout == "reversed":
        return np.ascontiguousarray(W[::-1, ::-1])[::-1, ::-1]
    if layout == "read-only":
        W = W.copy()
        W.flags.writeable = False
    return W


shapes = st.one_of(st.tuples(SIDES, SIDES), st.sampled_from([(1, 1), (0, 4), (4, 0), (1, 257), (257, 1)]))
matrices = st.builds(matrix, st.sampled_from(KINDS), shapes, st.sampled_from(DTYPES), st.integers(0, 1 << 32))


@pytest.fixture(scope="module", autouse=True)
def threads():
    before = numba.get_num_threads()
    yield
    numba.set_num_threads(before)


@seed(SEED)
@RELAXED
@given(st.sampled_from(ALL), matrices, st.sampled_from(LAYOUTS))
def code_or_refusal(quantizer, W, layout):
    """A matrix is coded exactly, or refused because a number does not fit; silently, and left as it was."""
    given_, before = laid_out(W, layout), W.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numba.set_num_threads(1)
        try:
            data = quantizer.encode(given_).to_bytes()
        except ValueError as error:
            assert "does not fit" in str(error) and np.abs(W.astype(np.float64)).max() > 1e4, error
            return
        finally:
            assert W.tobytes() == before and np.array_equal(given_, W), "the input was changed"
        numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
        again = quantizer.encode(W)
        assert again.to_bytes() == data, "threads or the order in memory matter"
        decoded = quantizer.decode(Code.from_bytes(data))
    assert decoded.shape == W.shape and decoded.dtype == np.float32 and np.isfinite(decoded).all()
    assert np.array_equal(decoded, quantizer.decode(again)), "the file is the code"


@seed(SEED)
@RELAXED
@given(
    st.sampled_from(ALL),
    matrices,
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 1 << 32),
    st.booleans(),
)
def refusal_with_place(quantizer, W, bad, seed, fortran):
    """NaN and Inf are refused, with the first place, whatever else is there."""
    assume(W.size > 0)
    W = np.asfortranarray(W.copy()) if fortran else W.copy()
    places = sorted(np.random.default_rng(seed).integers(0, W.size, 3))
    for place in places:
        W[np.unravel_index(place, W.shape)] = bad
    row, column = (int(i) for i in np.unravel_index(places[0], W.shape))
    with warnings.catch_warnings(), pytest.raises(ValueError, match=rf"\({row}, {column}\)"):
        warnings.simplefilter("error")
        quantizer.encode(W)


@seed(SEED)
@RELAXED
@given(matrices)
@example(np.array([[1.0, 1.0, 2.0]], np.float32))
def more_levels_less_error(W):
    """The best quantizer of more levels is no worse: D falls with the rate, down to zero."""
    histogram = Histogram.of(W)
    curve = lloyd_max_curve(histogram, [1 << b for b in range(9)])
    values = histogram.values.astype(np.float64)
    errors = []
    for levels in curve.values():
        nearest = np.abs(values[:, None] - levels[None]).min(axis=1) if len(values) else values
        errors.append(histogram.mean_of(nearest**2))
    slack = 1e-9 * (errors[0] + histogram.power * 1e-6)
    assert all(b <= a + slack for a, b in zip(errors, errors[1:], strict=False)), errors


def test_every_matrix_is_coded_exactly_or_refused(tally):
    code_or_refusal()
    tally("property examples", EACH)


def test_what_is_not_finite_is_refused_with_its_first_place(tally):
    refusal_with_place()
    tally("property examples", EACH)


def test_more_levels_never_give_more_distortion(tally):
    more_levels_less_error()
    tally("property examples", EACH)
