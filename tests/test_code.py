"""A code is a file: what it costs is how long it is, and what was written is what is read."""

import json
import math
import struct
import zlib

import numpy as np
import pytest

from rdlib.code.ans import Ans
from rdlib.code.code import ENVELOPE, MAGIC, Code, Stream, format_from, frequency_table, open_envelope
from rdlib.code.fixed import Fixed, block
from rdlib.code.floats import FLOATS

pytestmark = pytest.mark.filterwarnings("error")


def symbols_of(size: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, max(size, 1), count)


def reread(stream: Stream) -> Stream:
    """The stream after a journey through a file, behind its table if it needs one."""
    streams = {"table": Stream.fixed(stream.format.table, 256)} if isinstance(stream.format, Ans) else {}
    code = Code((1, stream.array.size), streams | {"index": stream})
    return Code.from_bytes(code.to_bytes()).streams["index"]


def assert_same(stream: Stream, other: Stream) -> None:
    assert other.array.dtype == stream.array.dtype
    assert other.array.shape == stream.array.shape
    assert other.array.tobytes() == stream.array.tobytes()
    assert other.bits == stream.bits


def small_code() -> Code:
    """A code with every kind of format and an empty stream."""
    index = symbols_of(5, 60)
    table = frequency_table(index, 5)
    streams = {
        "table": table,
        "index": Stream.coded(index, table),
        "zero": Stream.fixed(symbols_of(7, 12), 7),
        "scale": Stream.floats(np.linspace(0, 1, 6).reshape(3, 2)),
        "none": Stream.fixed(np.empty(0, int), 16),
    }
    return Code((3, 20), streams)


def sealed(header: object, payload: bytes = b"") -> bytes:
    """A file with a right checksum around whatever header."""
    head = json.dumps(header).encode()
    body = MAGIC + struct.pack("<I", len(head)) + head + payload
    return body + struct.pack("<I", zlib.crc32(body))


# Fixed-length symbols


@pytest.mark.parametrize("count", [0, 1, 2, 7, 64, 1000])
def test_symbols_of_every_alphabet_come_back(count):
    for size in [*range(1, 301), 4097, 65535, 65536, 65537, 1 << 31, (1 << 32) - 1, 1 << 32]:
        stream = Stream.fixed(symbols_of(size, count, seed=size), size)
        again = Fixed(size).unpack(stream.format.pack(stream.array), stream.array.shape)
        assert again.dtype == stream.array.dtype, size
        assert np.array_equal(again, stream.array), size


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 255, 256, 300, 65535, 65536])
def test_the_greatest_and_the_least_symbol_come_back(size):
    for symbol in (0, size - 1):
        assert_same(stream := Stream.fixed(np.full((5, 131), symbol), size), reread(stream))


def test_a_shape_comes_back():
    for shape in [(0,), (0, 3), (3, 0), (2, 3, 5), (1,), ()]:
        assert reread(Stream.fixed(np.zeros(shape, int), 6)).array.shape == shape


@pytest.mark.parametrize("size", [1, 2, 3, 5, 15, 16, 17, 255, 256, 257, 300, 65535, 65536, 65537])
def test_the_price_of_symbols_is_their_length_in_bytes(size):
    for count in [*range(70), 645, 646, 647, 5000]:
        stream = Stream.fixed(symbols_of(size, count), size)
        assert len(stream.format.pack(stream.array)) == math.ceil(stream.bits / 8)


def test_a_long_stream_costs_log2_of_its_alphabet():
    n = 100_000
    for size in [*range(2, 301), 511, 513, 1023, 1025, 4095, 4097, 65535, 65536, 65537]:
        price, ideal = Stream.fixed(np.zeros(n, int), size).bits, n * math.log2(size)
        assert ideal - 1e-6 <= price <= 1.001 * ideal + block(size)[1], size


def test_no_stream_costs_more_than_whole_bits():
    for size in [*range(1, 301), 65535, 65536, 65537]:
        for count in (1, 2, 3, 10, 100, 1001):
            assert Stream.fixed(np.zeros(count, int), size).bits <= count * math.ceil(math.log2(size)), size


def test_an_alphabet_of_one_symbol_is_free():
    assert Stream.fixed(np.zeros(1000, int), 1).bits == 0


@pytest.mark.parametrize(("symbols", "size"), [([0, 5], 5), ([-1, 0], 5), ([0], 0), ([256], 256)])
def test_a_symbol_outside_its_alphabet_is_refused(symbols, size):
    with pytest.raises(ValueError, match=f"an alphabet of {size}"):
        Stream.fixed(np.array(symbols), size)


# Floats


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_come_back_and_cost_their_width(dtype):
    stream = Stream.floats(np.exp2(np.arange(-6.0, 7.0)).reshape(1, 13), dtype)
    assert stream.bits == 13 * 8 * FLOATS[dtype].itemsize
    assert_same(stream, reread(stream))


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_rounding_to_a_format_is_in_the_stream(dtype):
    once = Stream.floats(np.linspace(0.1, 0.9, 9), dtype).array
    assert np.array_equal(Stream.floats(once.astype(np.float64), dtype).array, once)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float16", 65520.0),
        ("float16", -1e9),
        ("bfloat16", 3.4e38),
        ("float32", 1e39),
        ("float8_e4m3fn", 500.0),
    ]
    + [("float8_e8m0fnu", 1e39), ("float8_e8m0fnu", -1.0)],
)
def test_a_number_beyond_its_format_is_refused(dtype, value):
    with pytest.raises(ValueError, match=f"does not fit {dtype}"):
        Stream.floats(np.array([1.0, value]), dtype)


@pytest.mark.parametrize(("dtype", "largest"), [("float16", 65504.0), ("float8_e4m3fn", 448.0)])
def test_the_largest_number_of_a_format_fits(dtype, largest):
    assert Stream.floats(np.array([largest]), dtype).array.astype(float) == largest


def test_the_powers_of_two_have_no_zero_but_a_least_one():
    assert (
        Stream.floats(np.array([0.0, -0.0]), "float8_e8m0fnu").array.astype(float).tolist() == [2.0**-127] * 2
    )


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="float12.*float16"):
        Stream.floats(np.ones(1), "float12")
    for spec in (["fixed", 0], ["fixed", 1.5], ["float", "float64"], ["ans"], ["morse"], [], None, "ans"):
        with pytest.raises(ValueError, match="format"):
            format_from(spec, {})


# Entropy-coded symbols


def entropy(symbols: np.ndarray) -> float:
    p = np.bincount(symbols) / symbols.size
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def coded(symbols: np.ndarray, size: int) -> Stream:
    return Stream.coded(symbols, frequency_table(symbols, size))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("source", ["gaussian", "laplace", "geometric", "uniform"])
def test_a_coded_file_is_within_a_thousandth_of_the_entropy(source, bits):
    n, rng = 100_000, np.random.default_rng(bits)
    if source == "geometric":
        symbols = rng.geometric(2.0 ** (1 - bits) * 0.5, n) - 1
    elif source == "uniform":
        symbols = rng.integers(0, 2**bits, n)
    else:
        step = math.sqrt(2 * math.pi * math.e) / 2**bits
        symbols = np.rint(getattr(rng, {"gaussian": "normal", "laplace": "laplace"}[source])(size=n) / step)
        symbols = (symbols - symbols.min()).astype(int)
    stream = coded(symbols, symbols.max() + 1)
    file = 8 * len(stream.format.pack(stream.array))
    assert file == stream.bits
    assert n * entropy(symbols) - 1 <= file <= 1.001 * n * entropy(symbols)
    assert np.array_equal(reread(stream).array, symbols)


@pytest.mark.parametrize("size", [1, 2, 3, 17, 256, 300, 65536])
@pytest.mark.parametrize("count", [0, 1, 2, 31, 1000])
def test_coded_symbols_come_back(size, count):
    stream = coded(symbols_of(size, count, seed=size), size)
    assert_same(stream, reread(stream))


def test_a_rare_symbol_comes_back():
    symbols = np.zeros(1 << 20, int)
    symbols[777] = 9
    stream = coded(symbols, 10)
    assert np.array_equal(reread(stream).array, symbols)
    assert stream.bits < 200


def test_a_constant_source_is_free_but_for_its_table():
    assert coded(np.full(1000, 3), 5).bits == 0


def test_a_symbol_without_a_frequency_is_refused():
    table = frequency_table(np.array([0, 1, 1, 3]), 4)
    with pytest.raises(ValueError, match="no frequency"):
        Stream.coded(np.array([0, 2]), table).format.pack(np.array([0, 2]))


def test_a_table_costs_one_byte_a_symbol():
    assert frequency_table(symbols_of(40, 1000), 40).bits == 8 * 40


# The file


def test_a_file_is_as_long_as_its_price_and_its_header():
    code = small_code()
    data = code.to_bytes()
    (head,) = struct.unpack_from("<I", data, len(MAGIC))
    assert len(data) == ENVELOPE + head + sum(math.ceil(s.bits / 8) for s in code.streams.values())


def test_rates_add_up_to_the_rate():
    code = small_code()
    assert code.bits == sum(stream.bits for stream in code.streams.values())
    assert code.rate == pytest.approx(sum(code.rates.values()), rel=1e-15)
    assert code.rate == pytest.approx(code.side_rate + code.rates["index"], rel=1e-15)
    assert code.rate * code.weights == pytest.approx(code.bits, rel=1e-15)


def test_no_weights_have_no_rate():
    code = Code((0, 7), {"index": Stream.fixed(np.empty((0, 7), int), 16)})
    assert (code.rate, code.side_rate, code.weights) == (0, 0, 0)
    assert Code((0, 7), {}).rate == 0


def test_a_code_comes_back():
    code = small_code()
    again = Code.from_bytes(code.to_bytes())
    assert again.shape == code.shape
    assert list(again.streams) == list(code.streams)
    assert again.bits == code.bits
    for name, stream in code.streams.items():
        assert_same(stream, again.streams[name])
    assert again.to_bytes() == code.to_bytes()


def test_a_file_cut_anywhere_is_refused():
    data = small_code().to_bytes()
    for length in range(len(data)):
        with pytest.raises(ValueError, match="cut short|do not begin with|unknown"):
            Code.from_bytes(data[:length])


def test_a_file_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="checksum"):
        Code.from_bytes(small_code().to_bytes() + b"\0")


def test_a_file_with_any_byte_changed_is_refused():
    data = small_code().to_bytes()
    for place in range(len(data)):
        for flip in (1, 128, 255):
            changed = bytearray(data)
            changed[place] ^= flip
            with pytest.raises(ValueError):
                Code.from_bytes(bytes(changed))


def test_what_is_no_code_or_of_another_version_is_named():
    data = small_code().to_bytes()
    with pytest.raises(ValueError, match="are not a code"):
        Code.from_bytes(b"PNG" + data[3:])
    with pytest.raises(ValueError, match="Version b'9'"):
        Code.from_bytes(b"RDC9" + data[4:])
    with pytest.raises(ValueError, match="are not a code"):
        Code.from_bytes(b"")


NONSENSE = [None, -1, 1.5, "x", [], {}, True, 1 << 70, [-1, 5], ["a", "b"], [[3], [4]]]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=str)
def test_a_header_of_nonsense_is_refused_though_its_checksum_is_right(nonsense):
    header, payload = open_envelope(small_code().to_bytes())
    stream = header["streams"][2]
    forged = [
        nonsense,
        {"shape": [3, 20]},
        {"streams": []},
        header | {"shape": nonsense},
        header | {"shape": [3]},
    ]
    forged += [header | {"streams": [nonsense]}]
    if nonsense != []:  # a code without streams, a scalar stream: sound
        forged += [header | {"streams": nonsense}]
    for place in range(4):
        if (place, nonsense) not in [(0, "x"), (2, [])]:
            changed = [*stream[:place], nonsense, *stream[place + 1 :]]
            forged += [header | {"streams": [changed]}]
    for forgery in forged:
        with pytest.raises(ValueError):
            Code.from_bytes(sealed(forgery, payload))


def test_streams_of_another_length_than_the_header_says_are_refused():
    header, payload = open_envelope(small_code().to_bytes())
    for wrong in (payload[:-1], payload + b"\0", b""):
        with pytest.raises(ValueError, match="bytes"):
            Code.from_bytes(sealed(header, wrong))
    header["streams"][2][3] += 1
    header["streams"][3][3] -= 1
    with pytest.raises(ValueError, match="bytes"):
        Code.from_bytes(sealed(header, payload))


def test_a_missing_stream_is_named():
    with pytest.raises(ValueError, match="'levels'.*table, index, zero, scale, none"):
        small_code()["levels"]
    with pytest.raises(ValueError, match="none"):
        Code((1, 1), {})["index"]


def test_the_streams_of_a_code_are_not_to_be_replaced():
    with pytest.raises(TypeError):
        small_code().streams["index"] = None
