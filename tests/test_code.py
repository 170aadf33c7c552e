"""A code is a file: what it costs is how long it is, and what was written is what is read."""

import math
import struct
import zlib

import numpy as np
import pytest

from rdlib.code.ans import Ans
from rdlib.code.code import Code, Stream, frequency_table, open_envelope
from rdlib.code.contexts import context_streams, unsorted
from rdlib.code.fixed import Fixed, block
from rdlib.code.floats import FLOATS
from rdlib.code.header import NAMES, Entry, prices, write_header

pytestmark = pytest.mark.filterwarnings("error")


def symbols_of(size: int, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, max(size, 1), count)


def reread(stream: Stream) -> Stream:
    """The stream after a journey through a file, behind its table and counts if it needs them."""
    streams = {"table": Stream.fixed(stream.format.table, 256)} if isinstance(stream.format, Ans) else {}
    if streams and stream.format.counts is not None:
        streams["counts"] = Stream.fixed(stream.format.counts, 1 << 32)
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
    table = frequency_table(np.bincount(index, minlength=5))
    streams = {
        "table": table,
        "index": Stream.coded(index, table),
        "zero": Stream.fixed(symbols_of(7, 12), 7),
        "scale": Stream.floats(np.linspace(0, 1, 6).reshape(3, 2)),
        "none": Stream.fixed(np.empty(0, int), 16),
    }
    return Code((3, 20), streams)


def sealed(body: bytes) -> bytes:
    """A file with a right checksum around whatever bytes."""
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
        assert 8 * len(stream.format.pack(stream.array)) == stream.bits


def test_a_long_stream_costs_log2_of_its_alphabet():
    n = 100_000
    for size in [*range(2, 301), 511, 513, 1023, 1025, 4095, 4097, 65535, 65536, 65537]:
        price, ideal = Stream.fixed(np.zeros(n, int), size).bits, n * math.log2(size)
        assert ideal - 1e-6 <= price <= 1.001 * ideal + block(size)[1] + 7, size


def test_no_stream_costs_more_than_whole_bits_and_a_whole_byte():
    for size in [*range(1, 301), 65535, 65536, 65537]:
        for count in (1, 2, 3, 10, 100, 1001):
            whole = 8 * math.ceil(count * math.ceil(math.log2(size)) / 8)
            assert Stream.fixed(np.zeros(count, int), size).bits <= whole, size


def test_an_alphabet_of_one_symbol_is_free():
    assert Stream.fixed(np.zeros(1000, int), 1).bits == 0


@pytest.mark.parametrize(("symbols", "size"), [([0, 5], 5), ([-1, 0], 5), ([0], 0), ([256], 256)])
def test_a_symbol_outside_its_alphabet_is_refused(symbols, size):
    with pytest.raises(ValueError, match=f"an alphabet of {size}"):
        Stream.fixed(np.array(symbols), size)


def test_what_is_no_integer_is_not_cut_off():
    with pytest.raises(ValueError, match="Symbols are integers"):
        Stream.fixed(np.array([0.7, 1.9]), 2)
    assert np.array_equal(Stream.fixed(np.array([0.0, 1.0]), 2).array, [0, 1])


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


# Entropy-coded symbols


def entropy(symbols: np.ndarray) -> float:
    p = np.bincount(symbols) / symbols.size
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def coded(symbols: np.ndarray, size: int) -> Stream:
    return Stream.coded(symbols, frequency_table(np.bincount(symbols.ravel(), minlength=size)))


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


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 2, 17, 300])
def test_symbols_with_contexts_come_back(size, count):
    """One coder for all contexts, those without a symbol and those of a single one among them."""
    contexts = symbols_of(count, 500, seed=1) // 2
    symbols = np.where(contexts == 1, 0, symbols_of(size, 500))
    streams = context_streams(symbols.reshape(5, 100), contexts.reshape(5, 100), size, count)
    code = Code.from_bytes(Code((5, 100), streams).to_bytes())
    assert_same(streams["index"], code.streams["index"])
    assert np.array_equal(unsorted(code["index"], contexts.reshape(5, 100)), symbols.reshape(5, 100))


def test_contexts_cost_their_conditional_entropy_and_two_words():
    n, rng = 100_000, np.random.default_rng(0)
    contexts = rng.integers(0, 8, n)
    symbols = rng.binomial(2 * contexts + 1, 0.5)
    streams = context_streams(symbols, contexts, 16, 8)
    ideal = sum((contexts == c).sum() * entropy(symbols[contexts == c]) for c in range(8))
    assert ideal - 1 <= streams["index"].bits <= 1.001 * ideal + 64
    joint = np.array([np.bincount(symbols[contexts == c], minlength=16) for c in range(8)])
    assert abs(streams["index"].format.bits_of_counts(joint) - streams["index"].bits) <= 64


def test_contexts_of_another_number_of_symbols_are_refused():
    streams = context_streams(symbols_of(4, 100), symbols_of(3, 100, seed=1), 4, 3)
    for counts in ([50, 50], [50, 50, 1]):
        forged = streams | {"counts": Stream.fixed(counts, 1 << 32)}
        with pytest.raises(ValueError, match="contexts"):
            Code.from_bytes(Code((1, 100), forged).to_bytes())


def test_counts_that_follow_from_classes_are_not_stored():
    classes = symbols_of(3, 5)
    contexts = np.broadcast_to(classes[:, None], (5, 20))
    streams = context_streams(symbols_of(4, 100).reshape(5, 20), contexts, 4, 3)
    del streams["counts"]
    code = Code((5, 20), {"row_class": Stream.fixed(classes, 3)} | streams)
    assert np.array_equal(Code.from_bytes(code.to_bytes())["index"], code["index"])
    forged = Code((5, 20), {"row_class": Stream.fixed(classes, 4)} | streams)
    with pytest.raises(ValueError, match="Contexts cannot be read without"):
        Code.from_bytes(forged.to_bytes())


def test_a_symbol_without_a_frequency_is_refused():
    table = frequency_table(np.array([1, 2, 0, 1]))
    with pytest.raises(ValueError, match="no frequency"):
        Stream.coded(np.array([0, 2]), table).format.pack(np.array([0, 2]))


def test_a_table_costs_one_byte_a_symbol():
    assert frequency_table(np.bincount(symbols_of(40, 1000))).bits == 8 * 40


# The file


def test_a_file_is_as_long_as_its_price():
    code = small_code()
    data = code.to_bytes()
    assert 8 * len(data) == code.bits
    assert code.bits == code.prices["header"] + sum(stream.bits for stream in code.streams.values())
    assert len(open_envelope(data)[2]) == sum(stream.bits for stream in code.streams.values()) // 8


def test_what_can_be_derived_is_not_in_the_header():
    """Sixteen bytes, magic, shape and checksum included, before a uniform quantizer's index and scale."""
    index, scale = Stream.fixed(np.zeros((2048, 8192), int), 16), Stream.floats(np.ones((2048, 1)))
    assert Code((2048, 8192), {"index": index, "scale": scale}).prices["header"] == 8 * 16
    step, first = Stream.floats(np.ones(1), "float32"), Stream.floats(np.ones(1), "float32")
    symbols = symbols_of(40, 2048 * 64).reshape(2048, 64)
    table = frequency_table(np.bincount(symbols.ravel()))
    streams = {"table": table, "index": Stream.coded(symbols, table), "step": step, "first": first}
    assert Code((2048, 64), streams).prices["header"] <= 8 * 25


def test_a_code_is_priced_before_it_is_made():
    code = small_code()
    entries = {name: Entry(s.format, s.array.shape, s.bits) for name, s in code.streams.items()}
    assert prices(code.shape, entries) == code.prices
    rows, columns = 1 << 20, 1 << 14
    levels = Fixed(16)
    priced = prices(
        (rows, columns), {"index": Entry(levels, (rows, columns), levels.bits_for(rows * columns))}
    )
    assert priced["index"] == 4 * rows * columns and priced["header"] <= 8 * 16


@pytest.mark.parametrize("size", [2, 5, 40])
def test_the_price_of_counts_is_that_of_the_symbols_to_a_word_or_two(size):
    symbols = symbols_of(size, 20_000)
    stream, counts = coded(symbols, size), np.bincount(symbols, minlength=size)
    assert abs(stream.format.bits_of_counts(counts) - stream.bits) <= 64
    assert Fixed(size).bits_of_counts(counts) == Stream.fixed(symbols, size).bits


def test_rates_add_up_to_the_rate():
    code = small_code()
    assert list(code.rates) == [*code.streams, "header"]
    assert code.rate == pytest.approx(sum(code.rates.values()), rel=1e-15)
    assert code.rate == pytest.approx(code.side_rate + code.rates["index"], rel=1e-15)
    assert code.rate * code.weights == pytest.approx(code.bits, rel=1e-15)


def test_no_stream_is_named_header():
    with pytest.raises(ValueError, match="'header'"):
        Code((1, 1), {"header": Stream.fixed(np.zeros(1, int), 2)})


SHAPES = [
    (1,),
    (1, 1),
    (3, 20),
    (3, 1),
    (20,),
    (60,),
    (3, 2),
    (3, 0),
    (0,),
    (),
    (20, 3),
    (2, 3, 5),
    (1, 20),
    (300,),
]


@pytest.mark.parametrize("shape", [(3, 20), (0, 7), (7, 0), (0, 0), (1, 1), (20, 20), (1, 300), (200, 1)])
def test_streams_of_every_name_format_and_shape_come_back(shape):
    sizes = [1, 2, 3, 16, 255, 256, 257, 1 << 32]
    streams = {
        name: Stream.fixed(symbols_of(size, 4), size) for name, size in zip(NAMES, sizes, strict=False)
    }
    streams |= {f"of {s}": Stream.floats(np.ones(s), "bfloat16") for s in SHAPES}
    streams |= {"μ" * 200: Stream.floats(np.ones(0)), "": Stream.floats(np.ones(5), "float32")}
    code = Code(shape, streams)
    again = Code.from_bytes(code.to_bytes())
    assert (again.shape, list(again.streams)) == (shape, list(streams))
    for name, stream in streams.items():
        assert_same(stream, again.streams[name])
    assert 8 * len(code.to_bytes()) == code.bits


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
        Code.from_bytes(b"RD9" + data[3:])
    with pytest.raises(ValueError, match="Version b'C'"):
        Code.from_bytes(b"RDC1" + data[4:])
    with pytest.raises(ValueError, match="are not a code"):
        Code.from_bytes(b"")


BEGIN, FIXED_16 = b"RD4", 5
HEADERS = {
    "nothing": b"",
    "no shape": bytes([0]),
    "streams without end": bytes([255] * 9),
    "rows without end": bytes([0, *[255] * 12, 1, 1]),
    "more rows than any number": bytes([0, *[128] * 6, 64, 1]),
    "a stream that is missing": bytes([1, 1, 1]),
    "a name without a number": bytes([1, 1, 1, 200, 32, 0]),
    "a name that ends too early": bytes([1, 1, 1, 0, 50]) + b"abc",
    "a name that is no text": bytes([1, 1, 1, 0, 2, 255, 254, 32]),
    "a format without a number": bytes([1, 1, 1, 1, 31 << 3]),
    "an alphabet of nothing": bytes([1, 1, 1, 1, 0, 0]),
    "an alphabet beyond 32 bits": bytes([1, 1, 1, 1, 0, *[128] * 5, 1]),
    "a shape that ends too early": bytes([1, 1, 1, 1, FIXED_16 << 3 | 7, 3, 1]),
    "a known name that is written out": bytes([1, 1, 1, 0, 5]) + b"index" + bytes([FIXED_16 << 3, 0]),
    "a number with a byte too much": bytes([0, 129, 0, 1]),
    "a shape that was to be derived": bytes([1, 9, 9, 1, FIXED_16 << 3 | 7, 2, 9, 9]),
    "an alphabet that has a code": bytes([1, 1, 1, 1, 0, 16]),
    "the same stream twice": bytes([2, 1, 1, 1, FIXED_16 << 3, 1, FIXED_16 << 3, 0, 0]),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_of_nonsense_is_refused_though_its_checksum_is_right(header):
    with pytest.raises(ValueError, match="header of the code cannot be read"):
        Code.from_bytes(sealed(BEGIN + header))


def test_every_number_of_a_header_may_be_anything():
    """Whatever byte is changed where the checksum does not tell: a code, or a ValueError."""
    data = small_code().to_bytes()[:-4]
    for place in range(3, len(data)):
        for byte in range(256):
            try:
                Code.from_bytes(sealed(data[:place] + bytes([byte]) + data[place + 1 :]))
            except ValueError:
                pass


def test_streams_of_another_length_than_the_header_says_are_refused():
    code = small_code()
    data, head = code.to_bytes()[:-4], code.prices["header"] // 8 - 4
    for wrong in (data[:-1], data + b"\0", data[:head]):
        with pytest.raises(ValueError, match="bytes"):
            Code.from_bytes(sealed(wrong))
    entries = {name: s.entry for name, s in code.streams.items()}
    entries["index"] = Entry(code.streams["index"].format, (60,), code.streams["index"].bits + 8)
    longer = write_header(code.shape, entries) + data[head:]
    with pytest.raises(ValueError, match="bytes"):
        Code.from_bytes(sealed(longer))
    with pytest.raises(ValueError, match="whole 32-bit words"):
        Code.from_bytes(sealed(longer + b"\0"))


def test_a_missing_stream_is_named():
    with pytest.raises(ValueError, match="'levels'.*table, index, zero, scale, none"):
        small_code()["levels"]
    with pytest.raises(ValueError, match="none"):
        Code((1, 1), {})["index"]


def test_the_streams_of_a_code_are_not_to_be_replaced():
    with pytest.raises(TypeError):
        small_code().streams["index"] = None


def test_rounded_frequencies_cost_next_to_nothing():
    """KL(p‖q) of q ∝ p·2^ε, |ε| ≤ 1/32, is at most ½·(ln 2/32)² nats (Hoeffding's lemma)."""
    rng, bound, excess = np.random.default_rng(0), 0.5 * (np.log(2) / 32) ** 2 / np.log(2), []
    for size in range(2, 200):
        counts = 2 + rng.multinomial(40_000, rng.dirichlet(np.full(size, rng.uniform(0.1, 3))))
        q = 2.0 ** (-frequency_table(counts).array / 16)
        p = counts / counts.sum()
        excess.append(p @ np.log2(p / (q / q.sum())))
    assert 0 <= min(excess) and max(excess) <= bound
    assert 0.5e-4 < np.median(excess) < 2e-4
