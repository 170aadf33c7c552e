"""What every quantizer promises, over the list of all of them.

Honesty: the decoder sees the code and nothing else, and every bit of it is paid for.
"""

import inspect
import math

import ml_dtypes
import numba
import numpy as np
import pytest
from quantizer_list import ALL, EXACT_ON_CONSTANTS, SCALAR, method
from sources import DTYPES, gaussian, heavy, one_thread  # noqa: F401

import rdlib.quantizers
from rdlib.code.code import PAYLOAD, Code
from rdlib.code.fixed import Fixed
from rdlib.measure import measure, payload_entropy
from rdlib.quantizers import (
    EntropyCoded,
    LeastSquares,
    LloydMax,
    PerChannel,
    PerGroup,
    PerTensor,
    Quantizer,
    Scaled,
    Sigmas,
    Uniform,
    UniformAsymmetric,
    UniformMidTread,
)

pytestmark = pytest.mark.filterwarnings("error")

every_quantizer = pytest.mark.parametrize("quantizer", ALL, ids=method)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def rates(quantizer: Quantizer, *wanted: int) -> list[int]:
    """The lowest rate of a method, and those of the wanted ones that it has."""
    return sorted({quantizer.bits_allowed[0], *wanted} & set(quantizer.bits_allowed))


SHAPES = [(1, 1), (1, 300), (300, 1), (7, 13), (3, 131), (4, 128), (2, 172), (0, 5), (5, 0), (0, 0)]


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    """Equality to the last bit, the sign of zero included."""
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert a.tobytes() == b.tobytes()


def mean_square(error: np.ndarray) -> float:
    return float(np.mean(error.astype(np.float64) ** 2))


# The list


def test_every_exported_quantizer_is_in_the_list():
    def concrete(kind: object) -> bool:
        return inspect.isclass(kind) and issubclass(kind, Quantizer) and not inspect.isabstract(kind)

    exported = {
        kind for name in rdlib.quantizers.__all__ if concrete(kind := getattr(rdlib.quantizers, name))
    }
    missing = {kind.__name__ for kind in exported - {type(quantizer) for quantizer in ALL}}
    assert not missing, f"add them to tests/quantizer_list.py: {missing}"


def test_every_public_quantizer_is_exported():
    def below(kind: type) -> set[type]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    for kind in below(Quantizer):
        if kind.__module__.startswith("rdlib.quantizers.") and not (
            kind.__name__.startswith("_") or inspect.isabstract(kind)
        ):
            assert kind.__name__ in rdlib.quantizers.__all__


def test_methods_have_names_of_their_own():
    names = [quantizer.method for quantizer in ALL]
    assert len(set(names)) == len(names)


# Frozen hyper-parameters, one rate of many


@every_quantizer
def test_a_quantizer_is_a_frozen_value(quantizer):
    with pytest.raises(AttributeError):
        quantizer.bits = 3
    assert quantizer == quantizer.at(quantizer.bits)
    assert hash(quantizer) == hash(quantizer.at(quantizer.bits))


@every_quantizer
def test_encoding_teaches_the_quantizer_nothing(quantizer):
    before = repr(quantizer), dict(vars(quantizer))
    quantizer.encode(gaussian((4, 40)))
    assert (repr(quantizer), dict(vars(quantizer))) == before


@every_quantizer
def test_every_rate_keeps_the_name(quantizer):
    for bits in quantizer.bits_allowed:
        assert quantizer.at(bits).bits == bits
        assert quantizer.at(bits).method == quantizer.method


@every_quantizer
def test_a_rate_that_a_method_does_not_have_is_refused(quantizer):
    low, high = quantizer.bits_allowed[0], quantizer.bits_allowed[-1]
    for bits in (low - 1, high + 1, 0, -1, 17, 2.3, True, "4", None, math.nan):
        with pytest.raises(ValueError, match=f"bits from {low:g} to {high:g}, not"):
            quantizer.at(bits)
    if isinstance(quantizer.bits_allowed, range):
        with pytest.raises(ValueError, match="takes a whole number of bits"):
            quantizer.at(float(low))


@every_quantizer
def test_a_rate_of_numpy_is_a_rate(quantizer):
    W = gaussian((3, 40))
    quantizer = quantizer.at(next(bits for bits in quantizer.bits_allowed if bits == int(bits)))
    for integer in (np.int8, np.uint8, np.int64):
        assert quantizer.at(integer(quantizer.bits)).encode(W).to_bytes() == quantizer.encode(W).to_bytes()


# The code is the file


@every_dtype
@every_quantizer
def test_decoding_the_file_is_decoding_the_code(quantizer, dtype):
    W = heavy((24, 172), dtype)
    for bits in rates(quantizer, 3, 8):
        code = quantizer.at(bits).encode(W)
        again = Code.from_bytes(code.to_bytes())
        assert again.shape == code.shape == W.shape
        assert_same_bits(quantizer.at(bits).decode(again), quantizer.at(bits).decode(code))


@every_quantizer
def test_what_is_decoded_is_float32_and_finite(quantizer):
    W = heavy((24, 172))
    decoded = quantizer.decode(quantizer.encode(W))
    assert decoded.dtype == np.float32
    assert decoded.shape == W.shape
    assert np.isfinite(decoded).all()


@every_quantizer
def test_the_rate_of_the_decoder_does_not_matter(quantizer):
    code = quantizer.encode(heavy((24, 172)))
    decoded = quantizer.decode(code)
    for bits in quantizer.bits_allowed:
        assert_same_bits(quantizer.at(bits).decode(code), decoded)


@every_quantizer
def test_no_stream_is_idle(quantizer):
    """Without any one of its streams a file cannot be decoded."""
    code = quantizer.encode(heavy((24, 172)))
    assert "index" in code.streams
    for name in code.streams:
        rest = {other: stream for other, stream in code.streams.items() if other != name}
        with pytest.raises(ValueError, match=name):
            quantizer.decode(Code.from_bytes(Code(code.shape, rest).to_bytes()))


@every_quantizer
def test_the_measured_rate_is_the_length_of_the_file(quantizer):
    W = heavy((24, 172))
    code = quantizer.encode(W)
    assert 8 * len(code.to_bytes()) == code.bits
    point = measure(W, quantizer)
    assert point.rate == code.bits / W.size
    assert code.bits == code.prices["header"] + sum(stream.bits for stream in code.streams.values())
    assert code.prices["header"] <= 8 * 48
    paid = sum(stream.bits for name, stream in code.streams.items() if name in PAYLOAD) / W.size
    assert point.rate == pytest.approx(point.side_rate + paid, rel=1e-12)


@every_quantizer
def test_the_same_weights_give_the_same_file(quantizer):
    W = heavy((24, 172))
    assert quantizer.encode(W).to_bytes() == quantizer.encode(W.copy()).to_bytes()


@every_quantizer
def test_the_number_of_threads_does_not_matter(quantizer):
    W = heavy((64, 172), np.float16)
    alone = quantizer.encode(W).to_bytes()
    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    assert quantizer.encode(W).to_bytes() == alone


# What it takes


@every_dtype
@every_quantizer
def test_the_layout_of_the_input_does_not_matter(quantizer, dtype):
    W = heavy((10, 66), dtype)
    before = W.tobytes()
    expected = quantizer.encode(W).to_bytes()
    assert W.tobytes() == before
    read_only = W.copy()
    read_only.setflags(write=False)
    strided = np.zeros((20, 132), dtype)
    strided[::2, 1::2] = W
    backwards = W[::-1, ::-1].copy()[::-1, ::-1]
    for same in (read_only, np.asfortranarray(W), strided[::2, 1::2], backwards):
        assert quantizer.encode(same).to_bytes() == expected


@every_dtype
@every_quantizer
def test_the_three_types_hold_the_same_weights(quantizer, dtype):
    """A 16-bit matrix and the float32 matrix of the same values are the same weights."""
    W = heavy((12, 80), dtype)
    narrow, wide = (quantizer.decode(quantizer.encode(x)) for x in (W, W.astype(np.float32)))
    assert_same_bits(narrow, wide)


@every_dtype
@every_quantizer
def test_any_shape_is_coded_and_nothing_costs_nothing(quantizer, dtype):
    for shape in SHAPES:
        W = gaussian(shape, dtype)
        decoded = quantizer.decode(Code.from_bytes(quantizer.encode(W).to_bytes()))
        assert (decoded.shape, decoded.dtype) == (shape, np.float32)
        if not W.size:
            point = measure(W, quantizer)
            assert point.rate == point.mse == point.nmse == point.max_error == point.rel_max_error == 0


@every_dtype
@every_quantizer
def test_zero_is_zero(quantizer, dtype):
    for bits in rates(quantizer, 4, quantizer.bits_allowed[-1]):
        point = measure(np.zeros((5, 70), dtype), quantizer.at(bits))
        assert point.mse == point.nmse == point.max_error == point.rel_max_error == 0


@every_dtype
@pytest.mark.parametrize("quantizer", EXACT_ON_CONSTANTS, ids=method)
def test_a_constant_matrix_has_no_distortion(quantizer, dtype):
    """For constants that float16 and bfloat16 can write."""
    for constant in (0.0, 0.40625, -3.5):
        W = np.full((5, 70), constant, dtype)
        for bits in rates(quantizer, 4, quantizer.bits_allowed[-1]):
            point = measure(W, quantizer.at(bits))
            assert point.mse == point.nmse == point.max_error == point.rel_max_error == 0
            assert point.sqnr_db == math.inf
            assert math.isfinite(point.rate)


@every_dtype
@every_quantizer
def test_what_is_not_finite_is_named_with_its_place(quantizer, dtype):
    for bad in [(np.nan,), (np.inf,), (-np.inf,), (np.inf, -np.inf)]:
        W = gaussian((6, 40), dtype)
        W[3, 17 : 17 + len(bad)] = bad
        with pytest.raises(ValueError, match=rf"{bad[0]} at \(3, 17\)"):
            quantizer.encode(W)


@every_quantizer
def test_what_is_no_weight_matrix_is_refused(quantizer):
    for W in (gaussian((5,)), gaussian((2, 3, 4)), np.float32(1)):
        with pytest.raises(ValueError, match="must be a matrix"):
            quantizer.encode(W)
    for dtype in (np.float64, np.int8, np.uint8, bool, complex, ml_dtypes.float8_e4m3fn, ">f4", object):
        with pytest.raises(ValueError, match="must be float16, bfloat16 or float32, but it is"):
            quantizer.encode(np.ones((2, 2)).astype(dtype))


@every_quantizer
def test_weights_of_any_size_are_coded_or_refused(quantizer):
    """No overflow in silence: the decoded weights are finite and no larger than about the weights."""
    for size in (1e-42, 1e-30, 1e-7, 1e5, 1e30, 1e38):
        for dtype in (np.float32, ml_dtypes.bfloat16):
            W = (size * np.clip(gaussian((4, 64)), -2, 2)).astype(dtype)
            try:
                code = quantizer.encode(W)
            except ValueError as error:
                assert "does not fit float" in str(error)
                assert size > 1e4
            else:
                decoded = quantizer.decode(code)
                assert np.isfinite(decoded).all()
                assert np.abs(decoded).max() <= 1.5 * np.abs(W.astype(np.float32)).max()


# What it pays


@every_dtype
@pytest.mark.parametrize("quantizer", SCALAR, ids=method)
def test_no_more_levels_than_the_index_pays_for(quantizer, dtype):
    """A fixed-rate index of b bits tells at most 2^b levels a scale; an entropy-coded one costs at least H."""
    W = heavy((16, 172), dtype)
    for bits in rates(quantizer, 3, 5):
        code = quantizer.at(bits).encode(W)
        decoded, stream = quantizer.decode(code), code.streams["index"]
        if not isinstance(stream.format, Fixed):
            assert (code.rate - code.side_rate) * W.size >= payload_entropy(code) * W.size - 1
            continue
        granularity = getattr(quantizer, "granularity", PerTensor())
        width = granularity.width(W.shape[1])
        scales = [decoded[i, j : j + width] for i in range(len(W)) for j in range(0, W.shape[1], width)]
        for levels in [decoded] if isinstance(granularity, PerTensor) else scales:
            assert len(np.unique(levels)) <= 2 ** (stream.bits / W.size) + 1e-9


@every_quantizer
def test_no_code_of_a_gaussian_source_beats_the_rate_distortion_function(quantizer):
    """Rate > R(D) = ½·log₂(σ² / D) on N(0, 1); the index alone costs about what its name says."""
    W = gaussian((32, 256))
    for bits in rates(quantizer, *range(1, 9)):
        point = measure(W, quantizer.at(bits))
        assert point.rate > 0.5 * math.log2(1 / point.mse), bits
        assert point.rate - point.side_rate <= bits + 0.1, bits


@pytest.mark.parametrize("columns", [172, 128, 100, 129, 31])
@pytest.mark.parametrize("size", [128, 32])
@pytest.mark.parametrize("family", [Uniform, UniformMidTread, UniformAsymmetric])
def test_a_short_last_group_costs_as_much_as_a_whole_one(family, size, columns):
    rows = 6
    quantizer = family(4, PerGroup(size=size))
    code = quantizer.encode(gaussian((rows, columns)))
    groups = math.ceil(columns / size) * rows
    assert code.streams["scale"].bits == 16 * groups
    if family is UniformAsymmetric:
        assert code.streams["zero"].bits == 8 * math.ceil(4 * groups / 8)
    side = sum(bits for name, bits in code.prices.items() if name != "index")
    assert code.side_rate == pytest.approx(side / (rows * columns), rel=1e-12)


def test_one_scale_a_channel_and_one_a_tensor():
    W = gaussian((6, 172))
    assert Uniform(4, PerChannel()).encode(W).streams["scale"].bits == 16 * 6
    assert Uniform(4).encode(W).streams["scale"].bits == 32


@pytest.mark.parametrize(
    "scale_format", ["float16", "bfloat16", "float32", "float8_e8m0fnu", "float8_e4m3fn"]
)
def test_a_scale_of_any_format_is_paid_for_and_comes_back(scale_format):
    W = np.concatenate([gaussian((2, 172)), np.zeros((1, 172), np.float32)])
    for family in (Uniform, UniformMidTread, UniformAsymmetric):
        quantizer = family(4, PerGroup(size=32, scale_format=scale_format), LeastSquares())
        code = quantizer.encode(W)
        decoded = quantizer.decode(Code.from_bytes(code.to_bytes()))
        assert_same_bits(decoded, quantizer.decode(code))
        assert mean_square(decoded[:2] - W[:2]) < (0.5 if scale_format == "float8_e8m0fnu" else 0.1)
        assert np.abs(decoded[2]).max() < 1e-38


# What more bits buy


@pytest.mark.parametrize(
    "quantizer",
    [q for q in ALL if isinstance(q, LloydMax) or isinstance(getattr(q, "clipping", None), LeastSquares)],
    ids=method,
)
def test_more_bits_never_cost_distortion(quantizer):
    for W in (gaussian((32, 172)), heavy((32, 172))):
        curve = [measure(W, quantizer.at(bits)).mse for bits in range(quantizer.bits_allowed[0], 9)]
        assert all(later < earlier for earlier, later in zip(curve, curve[1:], strict=False))


@every_quantizer
def test_a_bit_is_worth_more_than_four_decibels(quantizer):
    W = gaussian((16, 172))
    low, high = (rates(quantizer, *range(1, 9))[i] for i in (0, -1))
    assert measure(W, quantizer.at(high)).mse <= measure(W, quantizer.at(low)).mse * 10 ** (
        0.4 * (low - high)
    )


# Names, ranges and wrappers


def test_a_group_of_no_weights_and_a_clip_at_no_sigma_are_refused():
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least 1 weight"):
            PerGroup(size=size)
    for k in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="positive number of standard deviations"):
            Sigmas(k)


def test_the_one_number_of_a_group_is_its_size():
    assert PerGroup(32) == PerGroup(size=32)


@pytest.mark.parametrize("inner", [q for q in ALL if not isinstance(q, (EntropyCoded, Scaled))], ids=method)
def test_entropy_coding_keeps_the_weights(inner):
    W = heavy((24, 172))
    code = inner.encode(W)
    if isinstance(code.streams["index"].format, Fixed):
        wrapped = EntropyCoded(inner)
        assert_same_bits(wrapped.decode(wrapped.encode(W)), inner.decode(code))
