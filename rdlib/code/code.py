"""What a code is, what it costs, and its bytes.

A :class:`Code` is all that a decoder gets: the shape of the weights and named :class:`Stream` s, each an
array with the price of writing it down.  :meth:`Code.to_bytes` really writes it down: the file is as long as
the price claims, plus a short header.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from rdlib.code.ans import Ans, ClassifiedAns, ContextAns
from rdlib.code.fixed import Fixed
from rdlib.code.floats import FLOATS, Float
from rdlib.code.format import Format

PAYLOAD = ("index", "coset")  # what is told of every weight, or of every few; all else is side information
MAGIC = b"RDC1"  # the last character is the version of the layout
ENVELOPE = len(MAGIC) + 4 + 4  # bytes: magic, length of the header, checksum


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
            ValueError: a symbol lies outside the alphabet.
        """
        symbols = np.asarray(symbols)
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
    def coded(cls, symbols: np.ndarray, table: "Stream") -> "Stream":
        """Symbols entropy-coded by ANS with the model of a table stream (see :func:`frequency_table`)."""
        form = Ans(table.array)
        return cls(np.asarray(symbols).astype(np.min_scalar_type(len(table.array))), form)

    @property
    def bits(self) -> int:
        """Total price of the stream."""
        return self.format.bits(self.array)


@dataclass(frozen=True, eq=False)
class Code:
    """Weights as a decoder receives them.

    Args:
        shape: of the weights, (out, in).
        streams: ``index`` is the payload, together with ``coset`` in lattice and trellis codes; every other
            stream is side information.  A stream that is needed to read another (the ``table`` of an
            entropy-coded ``index``) stands before it.
    """

    shape: tuple[int, int]
    streams: Mapping[str, Stream]

    def __post_init__(self) -> None:
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
        """How many weights the code stands for."""
        return self.shape[0] * self.shape[1]

    @property
    def bits(self) -> int:
        """Total price: the sum over the streams."""
        return sum(stream.bits for stream in self.streams.values())

    @property
    def rates(self) -> dict[str, float]:
        """Bits per weight of each stream; zero where there are no weights."""
        return {name: self._per_weight(stream.bits) for name, stream in self.streams.items()}

    @property
    def rate(self) -> float:
        """Total bits per weight; zero where there are no weights."""
        return self._per_weight(self.bits)

    @property
    def side_rate(self) -> float:
        """Bits per weight of all streams but the payload."""
        return self._per_weight(sum(s.bits for name, s in self.streams.items() if name not in PAYLOAD))

    def _per_weight(self, bits: int) -> float:
        return bits / self.weights if self.weights else 0.0

    def to_bytes(self) -> bytes:
        """Header, then each stream packed to whole bytes, then a CRC-32 of all that."""
        payloads = [stream.format.pack(stream.array) for stream in self.streams.values()]
        header = {
            "shape": list(self.shape),
            "streams": [
                [name, stream.format.spec, list(stream.array.shape), len(payload)]
                for (name, stream), payload in zip(self.streams.items(), payloads, strict=True)
            ],
        }
        head = json.dumps(header, separators=(",", ":")).encode()
        body = b"".join([MAGIC, struct.pack("<I", len(head)), head, *payloads])
        return body + struct.pack("<I", zlib.crc32(body))

    @classmethod
    def from_bytes(cls, data: bytes) -> "Code":
        """The code that :meth:`to_bytes` wrote.

        Raises:
            ValueError: the bytes are not a code of this version, are cut short, or were changed.
        """
        header, payload = open_envelope(data)
        streams: dict[str, Stream] = {}
        for name, spec, shape, length in header["streams"]:
            form = format_from(spec, {n: s.array for n, s in streams.items()})
            streams[name] = Stream(form.unpack(payload[:length], tuple(shape)), form)
            payload = payload[length:]
        return cls(tuple(header["shape"]), streams)


def open_envelope(data: bytes) -> tuple[dict, bytes]:
    """Check magic, length and checksum of a file; return its header and the bytes of its streams."""
    if data[:3] != MAGIC[:3]:
        raise ValueError("These bytes are not a code: they do not begin with 'RDC'.")
    if data[:4] != MAGIC:
        raise ValueError(f"Version {data[3:4]!r} of the layout is unknown; this rdlib reads {MAGIC[3:]!r}.")
    if len(data) < ENVELOPE or zlib.crc32(data[:-4]) != struct.unpack("<I", data[-4:])[0]:
        raise ValueError("The code is cut short or was changed: its checksum does not match.")
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    try:
        header = json.loads(data[8 : 8 + length])
        for name, _, shape, size in [["code", [], header["shape"], 0], *header["streams"]]:
            if (
                type(name) is not str
                or type(shape) is not list
                or not all(_is_count(n) for n in [*shape, size])
            ):
                raise ValueError(f"It describes a stream as {[name, shape, size]}.")
        _, _ = header["shape"]
        expected = sum(entry[3] for entry in header["streams"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("The header of the code cannot be read.") from error
    payload = data[8 + length : -4]
    if len(payload) != expected:
        raise ValueError(f"The streams of the code take {expected} bytes, but {len(payload)} are there.")
    return header, payload


def _is_count(n: object) -> bool:
    """Whether the header of a file may give ``n`` as a number of rows, symbols or bytes."""
    return type(n) is int and 0 <= n < 1 << 48


def frequency_table(symbols: np.ndarray, size: int) -> Stream:
    """Model of a source for entropy coding, one byte a symbol: −16·log₂ of its frequency, rounded.

    Rounding a frequency to a sixteenth of an octave costs at most about 10⁻⁴ bit a symbol; 255 marks a symbol
    that does not occur.

    Args:
        symbols: integers 0 … size − 1, any shape.
        size: of the alphabet.
    """
    return table_of_counts(np.bincount(np.ravel(symbols), minlength=size))


def table_of_counts(counts: np.ndarray) -> Stream:
    """:func:`frequency_table` of symbols that occur so often, (size,)."""
    with np.errstate(divide="ignore"):
        octaves = -np.log2(counts / max(counts.sum(), 1))
    steps = np.where(counts > 0, np.minimum(np.rint(16 * octaves), 254), 255)
    return Stream.fixed(steps.astype(np.uint8), 256)


def format_from(spec: list, arrays: Mapping[str, np.ndarray]) -> Format:
    """The format that a header names; ``arrays`` are the streams that stand before it.

    Raises:
        ValueError: the format is unknown, or lacks a stream that it is read with.
    """
    match spec:
        case ["fixed", int(size)] if 0 < size <= 1 << 32:
            return Fixed(size)
        case ["float", str(dtype)] if dtype in FLOATS:
            return Float(dtype)
        case ["ans"]:
            return Ans(*_needed(spec, arrays, table=1))
        case ["classified"]:
            return ClassifiedAns(*_needed(spec, arrays, table=2, row_class=1))
        case ["context"]:
            return ContextAns(*_needed(spec, arrays, table=2, counts=1))
    raise ValueError(f"A stream has the format {spec!r}, which is unknown.")


def _needed(spec: list, arrays: Mapping[str, np.ndarray], **dimensions: int) -> list[np.ndarray]:
    """The streams that a format is read with: integers, of so many dimensions; a table has one byte a symbol."""
    for name, count in dimensions.items():
        if name not in arrays:
            raise ValueError(f"A stream of the format {spec!r} cannot be read without {name!r} before it.")
        array = arrays[name]
        if array.ndim != count or (array.dtype != np.uint8 if name == "table" else array.dtype.kind != "u"):
            raise ValueError(
                f"A stream of the format {spec!r} cannot be read with a {name!r} of {array.dtype} "
                f"and shape {array.shape}."
            )
    return [arrays[name] for name in dimensions]
