"""Block formats: their levels, what they are charged, and that Ŵ is that of the packages they come from."""

import json
import math
from hashlib import sha256

import ml_dtypes
import numpy as np
import pytest
from peers import bitsandbytes_4bit, bitsandbytes_int8, gguf_weights, hqq_code, torchao_mxfp4, torchao_nvfp4
from quantizer_list import FORMATS, method
from record_block_formats import FORMATS as RECORDED
from record_block_formats import HQQ_BITS, RECORD, cases, errors, weights
from scipy.stats import norm
from sources import DTYPES, gaussian, heavy, one_thread  # noqa: F401

from rdlib.code.code import Code, Stream
from rdlib.measure import measure
from rdlib.quantizers import (
    E2M1,
    FP4,
    HQQ,
    MXFP4,
    NF4,
    NVFP4,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    DoubleQuantized,
    LLMInt8,
    PerGroup,
    Quantizer,
    UniformAsymmetric,
    UniformMidTread,
)
from rdlib.quantizers.blocks.double_quantized import dynamic_map, nearest_dynamic
from rdlib.quantizers.blocks.microscaling import TABLE
from rdlib.theory.block_maximum import gaussian_block_mse

pytestmark = pytest.mark.filterwarnings("error")

TABLES = (NF4, FP4, E2M1)
GGUF = (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0)
RECORDS = json.loads(RECORD.read_text())

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)


def decoded(quantizer: Quantizer, W: np.ndarray) -> np.ndarray:
    return quantizer.decode(quantizer.encode(W))


def assert_same(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Equality of every value; a zero may have either sign."""
    assert ours.dtype == theirs.dtype == np.float32
    assert np.array_equal(ours, theirs), f"{np.mean(ours != theirs):.2%} of the weights differ"


def blocks(W: np.ndarray, size: int) -> np.ndarray:
    """The weights as (blocks, size); ``size`` divides the rows."""
    return W.astype(np.float64).reshape(-1, size)


# Levels


@pytest.mark.parametrize("family", TABLES, ids=lambda family: family.family)
def test_a_table_rises_from_minus_one_to_one_with_zero_among_its_sixteen_levels(family):
    table = family.table
    assert (len(table), table.dtype, table[0], table[-1]) == (16, np.float32, -1, 1)
    assert np.all(np.diff(table) >= 0)
    assert 0 in table
    assert len(np.unique(table)) == (16 if family is NF4 else 15)


def test_nf4_is_the_quantiles_of_a_gaussian():
    """Of even steps of probability from ½ to 0.9677083: 8 above zero, 7 below, scaled to 1."""
    positive, negative = (norm.ppf(np.linspace(0.9677083, 0.5, n)[:-1]) for n in (9, 8))
    expected = np.sort(np.concatenate([positive, [0], -negative])) / positive.max()
    assert NF4.table == pytest.approx(expected, abs=5e-6)  # the published table was rounded on the way


def test_e2m1_is_the_float_of_two_exponent_bits_and_one_mantissa_bit():
    every = np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert np.array_equal(TABLE, np.sort(every))
    assert np.array_equal(E2M1.table, np.sort(every) / np.float32(6))


def test_tables_are_those_of_bitsandbytes():
    from bitsandbytes.functional import create_dynamic_map, get_4bit_type

    for family in (NF4, FP4):
        theirs = get_4bit_type(family.family.lower(), device="cpu").numpy()
        assert np.array_equal(family.table, np.sort(theirs))
    assert np.array_equal(dynamic_map(), create_dynamic_map().numpy())


@pytest.mark.parametrize("family", TABLES, ids=lambda family: family.family)
@pytest.mark.parametrize("size", [32, 64, 7])
def test_each_weight_goes_to_its_nearest_level_and_the_largest_of_a_block_is_exact(family, size):
    W = heavy((6, 4 * size))
    found = blocks(decoded(family(size=size), W), size)
    exact = blocks(W, size)
    scale = np.abs(exact).max(axis=1, keepdims=True)
    least = np.abs(exact[..., None] - scale[..., None] * family.table).min(axis=-1)
    assert np.abs(exact - found) == pytest.approx(least, rel=1e-4, abs=1e-6 * scale.max())
    largest = np.abs(exact) == scale
    assert np.array_equal(exact[largest], found[largest])


@pytest.mark.parametrize("family", [NF4, FP4], ids=lambda family: family.family)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_weight_half_way_between_two_levels_goes_where_bitsandbytes_sends_it(family, size):
    """On, just above and just below every threshold, times scales that are and are not powers of two."""
    middle = (family.table[1:] + family.table[:-1]) / 2
    near = [np.nextafter(middle, np.float32(x)) for x in (-2, 2)]
    unit = np.concatenate([[1], middle, *near]).astype(np.float32)
    block = np.zeros(64, np.float32)
    block[: len(unit)] = unit
    W = np.outer(np.float32([1, 0.125, 3, 1 / 3, 0.7, 1e-20]), np.resize(block, 128))
    W[:, ::size] = np.abs(W).max(axis=1, keepdims=True)  # every block has its scale
    assert_same(decoded(family(size=size), W), bitsandbytes_4bit(W, family.family.lower(), size)[0])


def test_halves_go_to_the_even_mantissa():
    """As ml_dtypes rounds to E2M1; a weight of 4 or more in each block makes the scale 1."""
    W = np.arange(-192, 193, dtype=np.float32)[None] / 32
    W = np.concatenate([np.full((1, 31 * W.size), 4, np.float32), W], axis=1).reshape(31 + 1, -1).T.copy()
    expected = W.astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    assert_same(decoded(MXFP4(), W), expected)


def test_mxfp4_cuts_what_lies_beyond_six():
    W = np.tile(np.float32([7.9, -7.9, 1.0, 0.4]), (1, 8))
    assert np.array_equal(decoded(MXFP4(), W), np.tile(np.float32([6, -6, 1, 0.5]), (1, 8)))


def test_scales_of_mxfp4_are_the_power_of_two_two_octaves_below_the_largest():
    W = heavy((40, 64)) * np.float32(2.0) ** np.arange(-20, 20, dtype=np.float32)[:, None]
    scale = MXFP4().encode(W)["scale"].astype(np.float64).reshape(-1)
    largest = np.abs(blocks(W, 32)).max(axis=1)
    assert np.all((4 * scale <= largest) & (largest < 8 * scale))


def test_the_largest_block_of_nvfp4_has_the_largest_scale():
    W = heavy((16, 64))
    code = NVFP4().encode(W)
    scale = code["scale"].astype(np.float32)
    largest = np.abs(blocks(W, 16)).max(axis=1).reshape(scale.shape)
    assert scale.max() == scale[np.unravel_index(largest.argmax(), scale.shape)] == 448
    assert code["tensor_scale"][0] == np.float32(np.abs(W).max()) / np.float32(448 * 6)
    exact = largest / 6 / code["tensor_scale"][0]
    normal = exact >= 2**-6
    assert scale[normal] == pytest.approx(exact[normal], rel=2**-4)  # three bits of mantissa
    assert np.all(scale[~normal] == 2**-6)


@pytest.mark.parametrize("quantizer", [Q4_0(), Q5_0(), Q4_0(size=64)], ids=method)
def test_a_signed_maximum_wastes_no_level(quantizer):
    """The weight of largest magnitude is the lowest level, times a negative step where it is positive."""
    W = heavy((8, 128), np.float16)
    code = quantizer.encode(W)
    exact, found = blocks(W, quantizer.size), blocks(quantizer.decode(code), quantizer.size)
    rows, peak = np.arange(len(exact)), np.abs(exact).argmax(axis=1)
    assert np.all(blocks(code["index"], quantizer.size)[rows, peak] == 0)
    assert found[rows, peak] == pytest.approx(exact[rows, peak], rel=2**-11)
    assert_same(decoded(quantizer, -W), -quantizer.decode(code))
    W = np.linspace(-1, 1, 1 << 13, dtype=np.float32).reshape(1, -1)
    assert len(np.unique(decoded(type(quantizer)(size=W.size), W))) == 2**quantizer.bits


@pytest.mark.parametrize("family", [Q4_1, Q5_1], ids=lambda family: family.family)
def test_both_ends_of_a_block_are_levels(family):
    W = heavy((8, 96))
    exact, found = blocks(W, 32), blocks(decoded(family(), W), 32)
    rows = np.arange(len(exact))
    for end in (exact.argmin(axis=1), exact.argmax(axis=1)):
        assert found[rows, end] == pytest.approx(exact[rows, end], rel=2**-9)


@pytest.mark.parametrize("quantizer", [q for q in FORMATS if not isinstance(q, HQQ)], ids=method)
def test_a_power_of_two_times_the_weights_is_a_power_of_two_times_the_code(quantizer):
    """In float16 scales only as long as they are normal; HQQ's shrinkage knows an absolute size."""
    W = 16 * heavy((8, 256))
    assert_same(decoded(quantizer, 4 * W), 4 * decoded(quantizer, W))


# Prices


@pytest.mark.parametrize(
    "quantizer, rate",
    [
        (NF4(), 4 + 32 / 64),
        (NF4(size=32), 5),
        (FP4(size=128), 4.25),
        (E2M1(), 4.5),
        (DoubleQuantized(NF4()), 4 + 8 / 64 + 32 / (64 * 256) + 32 / 2**18),
        (LLMInt8(), 8 + 32 / 1024),
        (MXFP4(), 4.25),
        (NVFP4(), 4.5 + 32 / 2**18),
        (Q4_0(), 4.5),
        (Q4_1(), 5),
        (Q5_0(), 5.5),
        (Q5_1(), 6),
        (Q8_0(), 8.5),
        (HQQ(2), 2.5),
        (HQQ(3, size=128), 3.25),
        (HQQ(4), 4.5),
    ],
    ids=lambda x: getattr(x, "method", None),
)
def test_what_a_format_costs(quantizer, rate):
    rates = quantizer.encode(gaussian((256, 1024))).rates
    assert sum(rates.values()) - rates["header"] == pytest.approx(rate, rel=1e-12)
    assert rates["index"] == quantizer.bits


def test_blocks_of_tables_cross_rows_and_others_do_not():
    W = gaussian((3, 100))
    assert NF4().encode(W)["scale"].shape == (math.ceil(300 / 64),)
    assert MXFP4().encode(W)["scale"].shape == (3, math.ceil(100 / 32))
    assert Q4_0().encode(W)["scale"].shape == (3, math.ceil(100 / 32))
    assert HQQ(4).encode(W)["zero"].shape == (3, math.ceil(100 / 64))


@pytest.mark.parametrize("quantizer", [MXFP4(), *(family() for family in GGUF)], ids=method)
def test_a_block_does_not_see_its_neighbours(quantizer):
    W = heavy((4, 172))
    whole = decoded(quantizer, W)
    for start in range(0, 172, 32):
        part = W[1:2, start : start + 32]
        assert_same(decoded(quantizer, part), whole[1:2, start : start + 32])


@pytest.mark.parametrize("family", [NF4, FP4, E2M1, MXFP4, NVFP4, Q4_0, Q8_0], ids=lambda f: f.__name__)
def test_a_block_of_no_weights_is_refused(family):
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1 weight, not {size}"):
            family(size=size)
    with pytest.raises(ValueError, match="at least 1 weight"):
        HQQ(4, size=0)


@pytest.mark.parametrize("quantizer", [NF4(), MXFP4(), Q4_0(), LLMInt8(), Q4_1(), HQQ(4)], ids=method)
def test_a_code_that_does_not_fit_its_blocks_is_refused(quantizer):
    code = quantizer.encode(gaussian((4, 128)))
    cut = Stream(code["scale"].ravel()[1:], code.streams["scale"].format)
    with pytest.raises(ValueError, match="scales for .* blocks"):
        quantizer.decode(Code(code.shape, dict(code.streams) | {"scale": cut}))


def test_an_index_beyond_the_table_is_refused():
    code = NF4().encode(gaussian((4, 128)))
    index = Stream.fixed(np.full((4, 128), 16), 17)
    with pytest.raises(ValueError, match="index 16 for a table of 16 levels"):
        NF4().decode(Code(code.shape, dict(code.streams) | {"index": index}))


# The packages


@every_dtype
@pytest.mark.parametrize("family", [NF4, FP4], ids=lambda family: family.family)
def test_4_bit_tables_equal_bitsandbytes(family, dtype):
    """At every size, with rows that do not fit blocks, and in the type that it was given."""
    name = family.family.lower()
    matrices = [weights(dtype), heavy((13, 77), dtype), heavy((3, 100), dtype), gaussian((1, 1), dtype)]
    for W in matrices:
        for size in (32, 64, 256):
            assert_same(decoded(family(size=size), W), bitsandbytes_4bit(W, name, size)[0])


@every_dtype
@pytest.mark.parametrize("family", [NF4, FP4], ids=lambda family: family.family)
def test_double_quantized_equals_bitsandbytes(family, dtype):
    """Bit for bit where its float32 mean of the scales is ours, which is certain where that is exact."""
    name = family.family.lower()
    coarse = (np.rint(1024 * heavy((60, 172))) / 1024).astype(ml_dtypes.float8_e4m3fn)
    for W, exact in [
        (coarse.astype(dtype), True),
        (weights(dtype), False),
        (heavy((200, 172), dtype), False),
    ]:
        quantizer = DoubleQuantized(family())
        code = quantizer.encode(W)
        theirs, mean = bitsandbytes_4bit(W, name, 64, double=True)
        if exact:
            assert code["scale_mean"][0] == mean
        assert code["scale_mean"][0] == pytest.approx(mean, rel=2e-7)
        same_mean = Stream.floats(np.array([mean]), "float32")
        assert_same(quantizer.decode(Code(W.shape, dict(code.streams) | {"scale_mean": same_mean})), theirs)


def test_levels_of_the_dynamic_map_are_found_as_bitsandbytes_finds_them():
    from bitsandbytes.functional import quantize_blockwise
    from peers import as_tensor

    for values in (
        np.linspace(-1, 1, 1 << 16, dtype=np.float32),
        heavy((1 << 16,)),
        np.zeros(300, np.float32),
    ):
        index, state = quantize_blockwise(as_tensor(values), blocksize=256)
        ours, largest = nearest_dynamic(values)
        assert np.array_equal(largest, state.absmax.numpy())
        if values.any():
            assert np.array_equal(ours, index.numpy())


@every_dtype
def test_int8_equals_bitsandbytes(dtype):
    for W in (weights(dtype), heavy((64, 172), dtype), gaussian((1, 1), dtype)):
        assert_same(decoded(LLMInt8(), W), bitsandbytes_int8(W))


@pytest.mark.parametrize(
    "quantizer, dtype", list(cases()), ids=lambda x: x.__name__ if isinstance(x, type) else x.method
)
def test_recorded_weights_of_torchao_and_gguf(quantizer, dtype):
    """The SHA-256 of what the packages decode, signs of zeros included."""
    found = decoded(quantizer, weights(dtype))
    assert sha256(found.tobytes()).hexdigest() == RECORDS["sha256"][type(quantizer).__name__][dtype.__name__]


def test_every_recorded_format_has_its_record():
    assert {type(quantizer).__name__ for quantizer in RECORDED} == set(RECORDS["sha256"])


@pytest.mark.parametrize("bits", HQQ_BITS)
def test_recorded_errors_of_hqq(bits):
    W = weights(np.float32)
    found = errors(W, decoded(HQQ(bits), W))
    assert found == pytest.approx(RECORDS["hqq"][str(bits)], rel=5e-3 if bits == 8 else 3e-4)


@every_dtype
@pytest.mark.parametrize("family", GGUF, ids=lambda family: family.family)
def test_gguf_formats_equal_gguf(family, dtype):
    for W in (weights(dtype), heavy((50, 96), dtype), gaussian((1, 32), dtype)):
        assert decoded(family(), W).tobytes() == gguf_weights(W, family.family).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=lambda dtype: dtype.__name__)
@pytest.mark.filterwarnings("default")
def test_microscaling_formats_equal_torchao(dtype):
    pytest.importorskip("torchao")
    for W in (weights(dtype), heavy((50, 96), dtype), gaussian((1, 32), dtype)):
        assert decoded(MXFP4(), W).tobytes() == torchao_mxfp4(W).tobytes()
        assert decoded(NVFP4(), W).tobytes() == torchao_nvfp4(W).tobytes()


@pytest.mark.parametrize("bits", HQQ_BITS)
@pytest.mark.filterwarnings("default")
def test_hqq_equals_hqq(bits):
    """Up to the order of its float32 sums, which may stop it one step sooner; on weights without ties."""
    pytest.importorskip("hqq")
    for W in (heavy((64, 256)), 100 * heavy((64, 256)), gaussian((64, 256))):
        for size in (64, 128):
            code = HQQ(bits, size).encode(W)
            index, scale, zero = hqq_code(W, bits, size)
            assert np.array_equal(code["scale"], scale.astype(np.float16))
            assert code["zero"] == pytest.approx(zero, rel=2**-10, abs=2**bits / 1000)
            assert np.mean(code["index"] != index) <= 2e-4
            assert np.abs(code["index"].astype(int) - index).max() <= 1


# How good they are


@pytest.fixture(scope="module")
def normal() -> np.ndarray:
    """A million samples of N(0, 1): the mean squared errors below are known to a few in a thousand."""
    return gaussian((256, 4096))


@pytest.mark.parametrize(
    "quantizer, mse, levels",
    [
        (NF4(), 0.00846, NF4.table),
        (FP4(), 0.0149, FP4.table),
        (E2M1(), 0.0112, E2M1.table),
        (UniformMidTread(4, PerGroup(64)), 0.0116, np.arange(-7, 8) / 7),
        (Q4_0(size=64), 0.0090, np.arange(-8, 8) / 8),
        (Q4_1(size=64), 0.0080, None),
    ],
    ids=lambda x: getattr(x, "method", None),
)
def test_errors_on_a_gaussian_at_block_64(normal, quantizer, mse, levels):
    """../shared/REFERENCE.md, and the integral over the largest weight of a block where the scale is exact."""
    found = measure(normal, quantizer).mse
    assert found == pytest.approx(mse, rel=1e-2)  # the last digit of some is 0.6 %
    if levels is not None:
        assert found == pytest.approx(gaussian_block_mse(levels, 64), rel=4e-3)


def test_an_integer_zero_point_costs_a_few_percent(normal):
    """Q4_1 sends the smallest weight as a float; a zero point on the grid moves both ends by up to half a step."""
    ratio = measure(normal, UniformAsymmetric(4, PerGroup(64))).mse / measure(normal, Q4_1(size=64)).mse
    assert 1.02 < ratio < 1.05


def test_cheap_scales_cost_something(normal):
    """The same levels and blocks with exact, E4M3 and E8M0 scales."""
    for size in (16, 32):
        exact, e4m3, e8m0 = (
            measure(normal, q).mse for q in (E2M1(size=size), NVFP4(size=size), MXFP4(size=size))
        )
        assert exact < e4m3 < 1.05 * exact
        assert 1.2 * exact < e8m0


def test_one_bit_more_costs_four_times_less(normal):
    for five, four in ((Q5_0(), Q4_0()), (Q5_1(), Q4_1())):
        assert measure(normal, four).mse / measure(normal, five).mse == pytest.approx(4, rel=0.1)


def test_double_quantized_scales_cost_less_than_they_save(normal):
    single, double = (measure(normal, q) for q in (NF4(), DoubleQuantized(NF4())))
    saved = single.rate - double.rate
    assert saved == pytest.approx(0.373, abs=1e-3)
    assert 1 < double.mse / single.mse < 1.01 < 4**saved


# HQQ


def test_small_errors_are_not_split_off():
    """Below an error of 0.17 the zero point is a mean of q − w/s, which makes the mean error of a group zero."""
    W = heavy((32, 256)) / 4
    for bits in (2, 3, 4):
        code = HQQ(bits).encode(W)
        steps = 1 / code["scale"].astype(np.float64)
        residual = blocks(code["index"], 64) - blocks(W, 64) * steps.reshape(-1, 1)
        exact = code["zero"].astype(np.float64).ravel()
        bound = 2**-11 * np.abs(exact) + 2**-11 * np.abs(blocks(W, 64) * steps.reshape(-1, 1)).max(axis=1)
        drift = 2 / 64 * 2 ** (bits - 1)  # some weights change their level in the last step
        assert np.all(np.abs(residual.mean(axis=1) - exact) <= bound + drift)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_hqq_errs_less_than_rounding_with_the_same_range(bits):
    for W in (heavy((64, 256)), 0.02 * gaussian((64, 256))):
        hqq, rounding = (
            errors(W, decoded(quantizer, W))
            for quantizer in (HQQ(bits), UniformAsymmetric(bits, PerGroup(64)))
        )
        assert all(a < b for a, b in zip(hqq, rounding, strict=True))


def test_the_size_of_weights_matters_to_hqq():
    """Errors of 0.17 and more are shrunk: a hundred times the weights, 2 bits are worse than plain rounding."""
    W = heavy((64, 256))
    for bits in (2, 3, 4):
        assert_same(4 * decoded(HQQ(bits), W / 4), decoded(HQQ(bits), W))
    hqq, rounding = (
        errors(100 * W, decoded(quantizer, 100 * W))
        for quantizer in (HQQ(2), UniformAsymmetric(2, PerGroup(64)))
    )
    assert all(a > b for a, b in zip(hqq, rounding, strict=True))


def test_groups_of_one_value_are_exact_and_narrow_ones_have_the_step_one():
    W = np.repeat(np.float32([0.25, -1.5, 0, 3]), 64).reshape(1, -1)
    code = HQQ(3).encode(W)
    assert np.array_equal(HQQ(3).decode(code), W)
    assert np.all(code["scale"] == 1)
