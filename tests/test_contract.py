"""What every quantizer promises, over the list of all of them.

Honesty: the decoder sees the code and nothing else, and every bit of it is paid for.
"""

import inspect
import math
from collections.abc import Iterator
from itertools import product

import ml_dtypes
import numpy as np
import pytest
from quantizer_list import ALL, COVERED, EXACT_ON_CONSTANTS, SCALAR, method
from scipy.stats import entropy
from sources import DTYPES, SOURCES, coded, gaussian, heavy, one_thread  # noqa: F401

import rdlib.quantizers
from rdlib.code.code import PAYLOAD, Code
from rdlib.code.fixed import Fixed
from rdlib.measure import Point, measure, measure_code, payload_entropy
from rdlib.quantizers import (
    AWQ,
    LDLQ,
    ActOrder,
    EntropyCoded,
    LeastSquares,
    LloydMax,
    PerChannel,
    PerGroup,
    PerTensor,
    Quantizer,
    Rotated,
    Scaled,
    Sigmas,
    Uniform,
    UniformAsymmetric,
    UniformMidTread,
)

pytestmark = pytest.mark.filterwarnings("error")

every_quantizer = pytest.mark.parametrize("quantizer", COVERED, ids=method)
RUNS = 16  # of weights for each entry of a codebook, at least: k-means with fewer has little to average


def rates(quantizer: Quantizer, *wanted: int, weights: int) -> list[int]:
    """The lowest rate of a method, and those of the wanted ones that it has and that so many weights can fill."""
    possible = {b for b in quantizer.bits_allowed if _runs_of_entry(quantizer.at(b), weights) >= RUNS}
    return sorted({quantizer.bits_allowed[0]} | set(wanted) & possible)


def _runs_of_entry(quantizer: Quantizer, weights: int) -> float:
    """How many runs of weights there are for each entry of a codebook; without end where there is none."""
    inner = getattr(quantizer, "inner", quantizer)
    return weights / inner.dimension / inner.entries if hasattr(inner, "entries") else math.inf


def point(quantizer: Quantizer, source: str) -> Point:
    """:func:`rdlib.measure.measure` of a source that is encoded once."""
    return measure_code(SOURCES[source], quantizer, coded(quantizer, source))


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


@every_quantizer
def test_decoding_the_file_is_decoding_the_code(quantizer):
    """At three rates: float32, finite, of the shape of W, and the same to the last bit."""
    for rated in map(quantizer.at, rates(quantizer, 3, 4, 8, weights=SOURCES["heavy"].size)):
        code = coded(rated, "heavy")
        again, decoded = Code.from_bytes(code.to_bytes()), rated.decode(code)
        assert again.shape == code.shape == decoded.shape == SOURCES["heavy"].shape
        assert decoded.dtype == np.float32 and np.isfinite(decoded).all()
        assert_same_bits(rated.decode(again), decoded)


@every_quantizer
def test_the_rate_of_the_decoder_does_not_matter(quantizer):
    code = coded(quantizer, "heavy")
    decoded = quantizer.decode(code)
    for bits in quantizer.bits_allowed:
        assert_same_bits(quantizer.at(bits).decode(code), decoded)


@every_quantizer
def test_no_stream_is_idle(quantizer):
    """Without any one of its streams a file cannot be decoded."""
    code = coded(quantizer, "heavy")
    assert "index" in code.streams
    for name in code.streams:
        rest = {other: stream for other, stream in code.streams.items() if other != name}
        with pytest.raises(ValueError, match=name):
            quantizer.decode(Code.from_bytes(Code(code.shape, rest).to_bytes()))


@every_quantizer
def test_the_measured_rate_is_the_length_of_the_file(quantizer):
    code, measured = coded(quantizer, "heavy"), point(quantizer, "heavy")
    assert 8 * len(code.to_bytes()) == code.bits
    assert measured.rate == code.bits / code.weights
    assert code.bits == code.prices["header"] + sum(stream.bits for stream in code.streams.values())
    assert code.prices["header"] <= 8 * 52
    paid = sum(stream.bits for name, stream in code.streams.items() if name in PAYLOAD) / code.weights
    assert measured.rate == pytest.approx(measured.side_rate + paid, rel=1e-12)


@every_quantizer
def test_a_point_is_what_numpy_says(quantizer):
    W, code = SOURCES["heavy"], coded(quantizer, "heavy")
    wide = W.astype(np.float64)
    error = wide - quantizer.decode(code).astype(np.float64)
    point = measure_code(W, quantizer, code)
    assert (point.method, point.bits) == (quantizer.method, quantizer.bits)
    assert point.rate == pytest.approx(code.bits / W.size, rel=1e-12)
    assert point.mse == pytest.approx(np.mean(error**2), rel=1e-12)
    assert point.nmse == pytest.approx(np.mean(error**2) / wide.var(), rel=1e-12)
    assert point.sqnr_db == pytest.approx(10 * np.log10(np.mean(wide**2) / np.mean(error**2)), rel=1e-12)
    assert point.max_error == np.abs(error).max()
    assert point.rel_max_error == pytest.approx(np.abs(error).max() / np.abs(wide).max(), rel=1e-12)
    assert math.isnan(point.output_mse)
    assert point.symbols == len(np.unique(code["index"]))
    assert point.index_entropy == pytest.approx(sum(map(nats, runs(code))) / math.log(2) / W.size, abs=1e-12)
    assert point.rate - point.side_rate >= point.index_entropy - 1e-9 - 1 / W.size


def runs(code: Code) -> Iterator[np.ndarray]:
    """The symbols that are coded with one table: a payload stream, or the part of it that has one context."""
    for name in set(PAYLOAD) & code.streams.keys():
        symbols, counts = code[name].ravel(), getattr(code.streams[name].format, "counts", None)
        yield from [symbols] if counts is None else np.split(symbols, np.cumsum(counts)[:-1])


def nats(symbols: np.ndarray) -> float:
    """What an ideal coder spends on symbols: their number times the entropy of their frequencies."""
    return symbols.size * entropy(np.unique(symbols, return_counts=True)[1]) if symbols.size else 0.0


@every_quantizer
def test_the_same_weights_give_the_same_file(quantizer):
    """Whatever was encoded between them; :mod:`test_determinism` has two threads."""
    assert quantizer.encode(SOURCES["heavy"].copy()).to_bytes() == coded(quantizer, "heavy").to_bytes()


# What it takes


@every_quantizer
def test_the_same_weights_in_another_type_and_layout_have_the_same_code(quantizer):
    """A 16-bit matrix with both zeros, and the float32 one of its values, by columns, read-only, or backwards."""
    for dtype in (np.float16, ml_dtypes.bfloat16):
        W = heavy((10, 66), dtype)
        W[0, :3] = 0.0, -0.0, 0.0
        before = W.tobytes()
        expected = quantizer.encode(W).to_bytes()
        assert W.tobytes() == before
        read_only = np.asfortranarray(W.astype(np.float32))
        read_only.setflags(write=False)
        strided = np.zeros((20, 132), dtype)
        strided[::2, 1::2] = W[::-1, ::-1]
        for same in (read_only, strided[-2::-2, ::-2]):
            assert np.array_equal(same, W) and quantizer.encode(same).to_bytes() == expected


@every_quantizer
def test_any_shape_is_coded_and_nothing_costs_nothing(quantizer):
    for shape in SHAPES:
        W = gaussian(shape)
        decoded = quantizer.decode(Code.from_bytes(quantizer.encode(W).to_bytes()))
        assert (decoded.shape, decoded.dtype) == (shape, np.float32)
        if not W.size:
            point = measure(W, quantizer)
            assert point.rate == point.mse == point.nmse == point.max_error == point.rel_max_error == 0


@every_quantizer
def test_zero_is_zero(quantizer):
    for bits in {quantizer.bits_allowed[0], quantizer.bits, quantizer.bits_allowed[-1]}:
        point = measure(np.zeros((5, 70), np.float16), quantizer.at(bits))
        assert point.mse == point.nmse == point.max_error == point.rel_max_error == 0


@pytest.mark.parametrize("quantizer", [q for q in COVERED if q in EXACT_ON_CONSTANTS], ids=method)
def test_a_constant_matrix_has_no_distortion(quantizer):
    """For constants that float16 and bfloat16 can write."""
    for constant, dtype in ((0.40625, np.float32), (-3.5, ml_dtypes.bfloat16)):
        W = np.full((5, 70), constant, dtype)
        for bits in {quantizer.bits_allowed[0], quantizer.bits, quantizer.bits_allowed[-1]}:
            point = measure(W, quantizer.at(bits))
            assert point.mse == point.nmse == point.max_error == point.rel_max_error == 0
            assert point.sqnr_db == math.inf
            assert math.isfinite(point.rate)


@every_quantizer
def test_what_is_not_finite_is_named_with_its_place(quantizer):
    for bad, dtype in product([(np.nan,), (np.inf,), (-np.inf,), (np.inf, -np.inf)], DTYPES):
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


MOMENTS = {
    "too small": np.eye(5),
    "too large": np.eye(7),
    "no matrix": np.ones(6),
    "not square": np.ones((6, 7)),
    "NaN": np.full((6, 6), np.nan),
    "one infinite": np.diag([1, 1, 1, np.inf, 1, 1]),
    "not symmetric": np.eye(6) + np.eye(6, k=1) / 1000,
}


@every_quantizer
def test_an_H_that_is_none_is_refused_in_a_sentence_that_names_it(quantizer):
    """Whether the method uses it or not."""
    W = gaussian((4, 6))
    code = quantizer.encode(W)
    for H in MOMENTS.values():
        with pytest.raises(ValueError, match=r"^H (must be|holds)[^\n]*\.$"):
            quantizer.encode(W, H)
        with pytest.raises(ValueError, match=r"^H (must be|holds)[^\n]*\.$"):
            measure_code(W, quantizer, code, H)


@every_quantizer
def test_H_changes_the_code_where_the_method_uses_it_and_nowhere_else(quantizer):
    W, x = gaussian((16, 64)), gaussian((500, 64), np.float64) @ gaussian((64, 64), np.float64, seed=1)
    H = x.T @ x / len(x)
    before = H.copy()
    assert (quantizer.encode(W, H).to_bytes() != quantizer.encode(W).to_bytes()) == quantizer.uses_H
    assert np.array_equal(H, before)


@pytest.mark.parametrize("inner", [q for q in COVERED if q.uses_H], ids=method)
def test_scales_of_whole_rows_hand_H_on_and_those_of_groups_refuse_it(inner):
    W, x = gaussian((16, 64)), gaussian((500, 64))
    H = (x * np.geomspace(0.1, 10, 64, dtype=np.float32)) @ gaussian((64, 64), seed=1)
    H = H.T.astype(np.float64) @ H
    for granularity in (PerTensor(), PerChannel(), PerGroup(size=64)):
        scaled = Scaled(inner, granularity)
        assert scaled.encode(W, H).to_bytes() != scaled.encode(W).to_bytes()
        assert measure(W, scaled, H).output_mse < measure_code(W, scaled, scaled.encode(W), H).output_mse
    with pytest.raises(ValueError, match="scales of 32 weights within a row.*whole rows"):
        Scaled(inner, PerGroup(size=32)).encode(W, H)


@every_quantizer
def test_weights_of_any_size_are_coded_or_refused(quantizer):
    """No overflow in silence: the decoded weights are finite and no larger than about the weights."""
    for size in (1e-42, 1e-30, 1e-7, 1e5, 1e30, 1e38):
        W = (size * np.clip(gaussian((4, 64)), -2, 2)).astype(np.float32)
        try:
            code = quantizer.encode(W)
        except ValueError as error:
            assert "does not fit float" in str(error)
            assert size > 1e4
        else:
            decoded = quantizer.decode(code)
            assert np.isfinite(decoded).all()
            assert np.abs(decoded).max() <= 1.5 * np.abs(W).max()


@every_quantizer
@pytest.mark.parametrize("mean", [10, -1e4])
def test_a_mean_far_beyond_sigma_is_harmless(quantizer, mean):
    """Never worse than writing zeros; and where the method takes the mean away, as if there were none."""
    W = gaussian((8, 64))
    try:
        shifted, plain = measure(W + np.float32(mean), quantizer), measure(W, quantizer)
    except ValueError as error:
        assert "does not fit float16" in str(error) and not quantizer.centred
        return
    assert shifted.mse <= mean**2 + 1
    if quantizer.centred:
        assert shifted.nmse == pytest.approx(plain.nmse, rel=0.2, abs=1e-6)
        assert shifted.rate < plain.rate + 200 / W.size


# What it pays


@pytest.mark.parametrize("quantizer", [q for q in COVERED if q in SCALAR], ids=method)
def test_no_more_levels_than_the_index_pays_for(quantizer):
    """A fixed-rate index of b bits tells at most 2^b levels a scale; an entropy-coded one costs at least H."""
    W = SOURCES["heavy"]
    for bits in rates(quantizer, 3, 5, weights=W.size):
        code = coded(quantizer.at(bits), "heavy")
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
    for bits in rates(quantizer, *range(1, 9), weights=SOURCES["gaussian"].size):
        measured = point(quantizer.at(bits), "gaussian")
        assert measured.rate > 0.5 * math.log2(1 / measured.mse), bits
        assert measured.rate - measured.side_rate <= bits + 0.1, bits


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
    bits = rates(quantizer, *range(1, 9), weights=SOURCES["gaussian"].size)
    low, high = (point(quantizer.at(b), "gaussian").mse for b in (bits[0], bits[-1]))
    assert high <= low * 10 ** (0.4 * (bits[0] - bits[-1]))


# Names, ranges and wrappers


@pytest.mark.parametrize("wrapper", [EntropyCoded, Scaled, Rotated, AWQ, ActOrder])
def test_a_wrapper_around_one_of_its_kind_is_refused(wrapper):
    """Both would write a stream of the same name, and one would be lost."""
    with pytest.raises(ValueError, match="both write a stream"):
        wrapper(wrapper(LloydMax(4))).encode(gaussian((4, 40)))


def test_one_scale_a_tensor_is_one_scale():
    W = heavy((6, 40))
    code = Scaled(LloydMax(4), PerTensor()).encode(W)
    assert code["group_scale"] == pytest.approx(np.full((1, 1), np.sqrt(np.mean(W.astype(float) ** 2))))


def test_wrappers_outside_of_blocks_take_their_streams_away():
    """LDLQ has a row of every stream for each block; the order of columns has as many entries here."""
    W, x = gaussian((8, 64)), gaussian((500, 64), np.float64)
    quantizer = ActOrder(LDLQ(Uniform(4), width=1))
    point = measure(W, quantizer, x.T @ x / len(x))
    assert point.nmse < 0.02


def test_a_group_of_no_weights_and_a_clip_at_no_sigma_are_refused():
    for size in (0, -1):
        with pytest.raises(ValueError, match="at least 1 weight"):
            PerGroup(size=size)
    for k in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="positive number of standard deviations"):
            Sigmas(k)


def test_the_one_number_of_a_group_is_its_size():
    assert PerGroup(32) == PerGroup(size=32)


@pytest.mark.parametrize(
    "inner", [q for q in COVERED if not isinstance(q, (EntropyCoded, Scaled))], ids=method
)
def test_entropy_coding_keeps_the_weights(inner):
    code, wrapped = coded(inner, "heavy"), EntropyCoded(inner)
    if isinstance(code.streams["index"].format, Fixed):
        assert_same_bits(wrapped.decode(coded(wrapped, "heavy")), inner.decode(code))
