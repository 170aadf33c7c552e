"""What a code is, what it costs, and its bytes.

A :class:`Code` is all that a decoder gets: the shape of the weights and named :class:`Stream` s, each an
array with the price of writing it down.  :meth:`Code.to_bytes` really writes it down: the file, its header
included, is as long as the price says.
"""

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from rdlib.code.ans import ABSENT, Ans
from rdlib.code.fixed import Fixed
from rdlib.code.floats import Float
from rdlib.code.format import Format
from rdlib.code.header import CHECKSUM, MAGIC, VERSION, Entry, prices, read_header, write_header
from rdlib.code.normal import normal_model
from rdlib.code.shown import streams_bar, streams_line
from rdlib.code.table import Table

PAYLOAD = ("index", "sign", "coset", "path")  # of single weights, or runs; all else is side information
FREE = 1 << 28  # symbols that are believed though next to nothing was paid for them


@dataclass(frozen=True, eq=False)
class Stream:
    """One array for the decoder and the format in which it is written.

    Args:
        array: what the decoder reads, already rounded to the format.
        format: how the array is written, hence what it costs.
    """

    array: np.ndarray
    format: Format

    @classmethod
    def fixed(cls, symbols: np.ndarray, size: int) -> "Stream":
        """Symbols 0 … size − 1 at log₂(size) bits each.

        Raises:
            ValueError: a symbol is no integer, or lies outside the alphabet.
        """
        symbols = np.asarray(symbols)
        if symbols.dtype.kind == "f" and not np.array_equal(symbols, np.rint(symbols)):
            raise ValueError("Symbols are integers, but some of these are not: round them first.")
        if symbols.size and not (0 <= symbols.min() and symbols.max() < size):
            raise ValueError(
                f"Symbols span {symbols.min()} … {symbols.max()}, "
                f"but an alphabet of {size} holds 0 … {size - 1}."
            )
        return cls(symbols.astype(np.min_scalar_type(max(size - 1, 0))), Fixed(size))

    @classmethod
    def floats(cls, values: np.ndarray, dtype: str = "float16") -> "Stream":
        """Numbers rounded to a float format: float16, bfloat16, float32, float8_e8m0fnu or float8_e4m3fn.

        Raises:
            ValueError: a number is too large for the format.
        """
        form = Float(dtype)
        return cls(form.round(np.asarray(values)), form)

    @classmethod
    def table(cls, steps: np.ndarray) -> "Stream":
        """Models of an entropy coder, any shape: see :func:`frequency_table`."""
        return cls(np.asarray(steps).astype(np.uint8), Table())

    @classmethod
    def coded(cls, symbols: np.ndarray, table: "Stream") -> "Stream":
        """Symbols entropy-coded by ANS with the model of a table stream (see :func:`frequency_table`)."""
        form = Ans(table.array)
        return cls(np.asarray(symbols).astype(np.min_scalar_type(len(table.array))), form)

    @cached_property
    def bits(self) -> int:
        """Price of the stream, whole bytes."""
        return self.format.bits(self.array)

    @property
    def entry(self) -> Entry:
        """The stream as the header lists it."""
        return Entry(self.format, self.array.shape, self.bits)


@dataclass(frozen=True, eq=False, repr=False)
class Code:
    """Weights as a decoder receives them.

    Args:
        shape: of the weights, (out, in).
        streams: ``index`` is the payload, together with ``coset`` in lattice and trellis codes; every other
            stream is side information.  A stream that is needed to read another (the ``table`` of an
            entropy-coded ``index``) comes before it.
    """

    shape: tuple[int, int]
    streams: Mapping[str, Stream]

    def __post_init__(self) -> None:
        if "header" in self.streams:
            raise ValueError("A stream cannot be named 'header': that is what comes before the streams.")
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "streams", MappingProxyType(dict(self.streams)))

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of a stream.

        Raises:
            ValueError: the code has no such stream.
        """
        if name not in self.streams:
            raise ValueError(f"The code has no stream {name!r}; its are {', '.join(self.streams) or 'none'}.")
        return self.streams[name].array

    def number(self, name: str) -> np.generic:
        """The only entry of a stream.

        Raises:
            ValueError: the code has no such stream, or it holds none or several.
        """
        array = self[name]
        if array.shape != (1,):
            raise ValueError(f"The stream {name!r} should hold one number, but its shape is {array.shape}.")
        return array[0]

    @property
    def weights(self) -> int:
        """How many weights are coded."""
        return self.shape[0] * self.shape[1]

    @property
    def _entries(self) -> dict[str, Entry]:
        return {name: stream.entry for name, stream in self.streams.items()}

    @property
    def prices(self) -> dict[str, int]:
        """Bits of every stream, and of the ``header``: what :meth:`to_bytes` spends on each."""
        return prices(self.shape, self._entries)

    @property
    def bits(self) -> int:
        """Total price: 8 times the length of the file."""
        return sum(self.prices.values())

    @property
    def rates(self) -> dict[str, float]:
        """Bits per weight of each stream and of the header; zero where there are no weights."""
        return {name: self._per_weight(bits) for name, bits in self.prices.items()}

    @property
    def rate(self) -> float:
        """Total bits per weight; zero where there are no weights."""
        return self._per_weight(self.bits)

    @property
    def side_rate(self) -> float:
        """Bits per weight of all but the payload."""
        return self._per_weight(sum(bits for name, bits in self.prices.items() if name not in PAYLOAD))

    def _per_weight(self, bits: int) -> float:
        return bits / self.weights if self.weights else 0.0

    def __repr__(self) -> str:
        return f"{self._head}, {self.rate:.3f} bits each: {streams_line(self.rates)}"

    def _repr_html_(self) -> str:
        return f"<div>{self._head}, <b>{self.rate:.3f} bits</b> each</div>{streams_bar(self.rates)}"

    @property
    def _head(self) -> str:
        return f"Code of {self.shape[0]:,} × {self.shape[1]:,} weights"

    def to_bytes(self) -> bytes:
        """Header, then each stream packed to whole bytes, then a CRC-32 of all that: ``bits`` / 8 bytes."""
        payloads = [stream.format.pack(stream.array) for stream in self.streams.values()]
        body = b"".join([write_header(self.shape, self._entries), *payloads])
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Code":
        """The code that :meth:`to_bytes` wrote.

        Raises:
            ValueError: the bytes are not a code of this version, are cut short, were changed, or claim more than
                fits into memory.
        """
        shape, entries, payload = open_envelope(data)
        streams: dict[str, Stream] = {}
        try:
            for name, entry in entries.items():
                _refuse_endless(name, entry, shape)
                form = _completed(entry.format, streams, shape)
                length = entry.bits // 8
                streams[name] = Stream(form.unpack(payload[:length], entry.shape), form)
                payload = payload[length:]
        except MemoryError as error:
            raise ValueError("The code claims more symbols than fit into memory.") from error
        return cls(shape, streams)


def open_envelope(data: bytes) -> tuple[tuple[int, int], dict[str, Entry], bytes]:
    """Check magic, length and checksum of a file; return the shape of its weights, its streams, and their bytes."""
    begin = MAGIC + VERSION
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"These bytes are not a code: they do not begin with {MAGIC.decode()!r}.")
    if data[: len(begin)] != begin:
        found = data[len(MAGIC) : len(begin)]
        raise ValueError(f"Version {found!r} of the layout is unknown; this rdlib reads {VERSION!r}.")
    body, checksum = data[:-CHECKSUM], data[-CHECKSUM:]
    if len(body) < len(begin) or struct.pack("<I", zlib.crc32(body)) != checksum:
        raise ValueError("The code is cut short or was changed: its checksum does not match.")
    try:
        shape, entries, begin = read_header(body)
    except ValueError as error:
        raise ValueError("The header of the code cannot be read.") from error
    expected = sum(entry.bits for entry in entries.values()) // 8
    if len(body) - begin != expected:
        raise ValueError(f"The streams of the code take {expected} bytes, but {len(body) - begin} are there.")
    return shape, entries, body[begin:]


def _refuse_endless(name: str, entry: Entry, shape: tuple[int, int]) -> None:
    """Raise where a stream claims far more symbols than its bits pay for, or the weights can have."""
    count = math.prod(entry.shape)
    if count > FREE + 64 * entry.bits or (
        not entry.bits and count > math.prod(shape) + 256 * (sum(shape) + 1)
    ):
        raise ValueError(f"{entry.bits} bits of {name!r} cannot be {count} symbols of weights {shape}.")


def frequency_table(counts: np.ndarray) -> Stream:
    """Model of a source for entropy coding, one byte a symbol that occurs: −16·log₂ of its frequency, rounded.

    Rounding to a sixteenth of an octave costs about 10⁻⁴ bit a symbol, and at most ½·(ln 2/32)²/ln 2 = 3.4·10⁻⁴
    while no symbol that occurs is rarer than 2⁻¹⁶; 255 marks a symbol that does not occur.

    Args:
        counts: how often each symbol occurs, (size,), or a row for every context.
    """
    with np.errstate(divide="ignore"):
        octaves = -np.log2(counts / np.maximum(counts.sum(axis=-1, keepdims=True), 1))
    steps = np.where(counts > 0, np.minimum(np.rint(16 * octaves), ABSENT - 1), ABSENT)
    return Stream.table(steps)


def _completed(form: Format | type[Format], streams: Mapping[str, Stream], shape: tuple[int, int]) -> Format:
    """The format of an entry, with the streams before it where it is read with some.

    Raises:
        ValueError: such a stream is missing, or is no table and no count of each of its rows.
    """
    if form is Table:
        return form()
    if form is not Ans:
        return form
    if streams.keys() & {"deviation", "row_deviation"}:
        return normal_model({name: stream.array for name, stream in streams.items()})
    table = _needed(streams, "table", 1, 2)
    if table.ndim == 1:
        return Ans(table)
    counts = _counts(streams, shape, len(table))
    if len(counts) != len(table):
        raise ValueError(f"There are {len(table)} contexts, but the symbols of {len(counts)} are counted.")
    return Ans(table, counts)


def _counts(streams: Mapping[str, Stream], shape: tuple[int, int], contexts: int) -> np.ndarray:
    """How many symbols each context has: as stored, or one for each weight of the rows of a class."""
    if "counts" in streams:
        return _needed(streams, "counts", 1)
    if "row_class" in streams and streams["row_class"].format == Fixed(contexts):
        return shape[1] * np.bincount(_needed(streams, "row_class", 1), minlength=contexts)
    raise ValueError("Contexts cannot be read without 'counts' or 'row_class' before them.")


def _needed(streams: Mapping[str, Stream], name: str, *dimensions: int) -> np.ndarray:
    """A stream that an entropy-coded one is read with: integers, of so many dimensions; a table has bytes."""
    if name not in streams:
        raise ValueError(f"An entropy-coded stream cannot be read without {name!r} before it.")
    array = streams[name].array
    if array.ndim not in dimensions or (
        array.dtype != np.uint8 if name == "table" else array.dtype.kind != "u"
    ):
        raise ValueError(
            f"An entropy-coded stream cannot be read with a {name!r} of {array.dtype} and shape {array.shape}."
        )
    return array
