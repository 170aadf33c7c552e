"""The header of a code: what must be known before its streams can be read, in some twenty bytes.

It begins with ``RD``, the version of the layout and the number of streams; then come the shape of the weights and,
for every stream, a byte for its name, a byte for its format and shape, and the numbers that these leave open.
Numbers are varints: seven bits a byte, the lowest first, the highest bit of each byte set but for the last (LEB128).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rdlib.code.ans import Ans
from rdlib.code.fixed import Fixed
from rdlib.code.floats import FLOATS, Float
from rdlib.code.format import Format
from rdlib.code.table import Table
from rdlib.code.varint import read_varint, varint

MAGIC = b"RD"
VERSION = b"4"  # of the layout
CHECKSUM = 4  # bytes at the end of the file: a CRC-32 of all that is before it
LIMIT = 1 << 48  # of a number: rows, symbols, bytes

# All four lists are part of the layout: add to their ends only.
NAMES = tuple(
    "index coset path scale zero levels table counts step first offset spacing row_class "
    "group_scale channel_scale permutation seed codebook scale_scale scale_mean tensor_scale minimum g_idx "
    "sign shift super_scale super_minimum exponent mantissa mean deviation row_deviation row_spacing".split()
)
CODED = (Ans, Table)  # their length does not follow from their shape
KNOWN = (*(Fixed(1 << bits) for bits in range(1, 9)), *(Float(dtype) for dtype in FLOATS))
OTHER, ROWS, ANY = 0, 6, 7  # codes: of a Fixed of another size, of a shape (out, n), of a shape written out


@dataclass(frozen=True)
class Entry:
    """A stream as the header lists it: all but its bytes.

    Args:
        format: how the array is written; while a file is read, it may be the class alone.
        shape: of the array.
        bits: price, a multiple of 8.
    """

    format: Format | type[Format]
    shape: tuple[int, ...]
    bits: int


def prices(shape: tuple[int, int], entries: Mapping[str, Entry]) -> dict[str, int]:
    """Bits of every part of a file: of each stream, and of the ``header`` with its checksum.

    Nothing is packed, so that a code can be priced whose streams were never made: the price of an index of n
    symbols at a fixed length is ``Fixed(size).bits_for(n)``, that of an entropy-coded one is known to a few words.

    Args:
        shape: of the weights, (out, in).
        entries: of each stream.
    """
    header = 8 * (len(write_header(shape, entries)) + CHECKSUM)
    return {name: entry.bits for name, entry in entries.items()} | {"header": header}


def write_header(shape: tuple[int, int], entries: Mapping[str, Entry]) -> bytes:
    """The bytes before those of the first stream."""
    head = MAGIC + VERSION + varint(len(entries)) + varint(shape[0]) + varint(shape[1])
    for name, entry in entries.items():
        head += _name(name)
        form, of_format = _format(entry)
        rule, of_shape = _shape(entry.shape, shape)
        head += bytes([form << 3 | rule]) + of_shape + of_format
    return head


def read_header(data: bytes) -> tuple[tuple[int, int], dict[str, Entry], int]:
    """The shape of the weights, the streams, and the number of bytes that :func:`write_header` wrote.

    Raises:
        ValueError: the bytes are no header, or not as :func:`write_header` would write it.
    """
    reader = _Reader(data, len(MAGIC + VERSION))
    count = reader.number()
    shape = (reader.number(), reader.number())
    entries: dict[str, Entry] = {}
    for _ in range(count):
        name, layout = reader.name(), reader.byte()
        array = _shape_of(layout & 7, shape, reader)
        form = _format_of(layout >> 3, reader)
        length = reader.number() if isinstance(form, type) else form.bits_for(math.prod(array)) // 8
        if name in entries:
            raise ValueError(f"The stream {name!r} is there twice.")
        entries[name] = Entry(form, array, 8 * length)
    if write_header(shape, entries) != data[: reader.place]:
        raise ValueError("The same could be said with fewer bytes.")
    return shape, entries, reader.place


def _name(name: str) -> bytes:
    if name in NAMES:
        return bytes([1 + NAMES.index(name)])
    text = name.encode()
    return b"\0" + varint(len(text)) + text


def _format(entry: Entry) -> tuple[int, bytes]:
    """Code of a format, and the number that it leaves open: of symbols, or of bytes."""
    form = entry.format
    kind = form if isinstance(form, type) else type(form)
    if kind in CODED:
        return 1 + CODED.index(kind), varint(entry.bits // 8)
    if form in KNOWN:
        return 1 + len(CODED) + KNOWN.index(form), b""
    return OTHER, varint(form.size)


def _format_of(code: int, reader: "_Reader") -> Format | type[Format]:
    known = (*CODED, *KNOWN)
    if code == OTHER:
        size = reader.number()
        if not 0 < size <= 1 << 32:
            raise ValueError(f"No stream has an alphabet of {size} symbols.")
        return Fixed(size)
    if code > len(known):
        raise ValueError(f"The format {code} is unknown.")
    return known[code - 1]


def _derived(out: int, columns: int) -> list[tuple[int, ...]]:
    """The shapes that most streams have."""
    return [(1,), (1, 1), (out, columns), (out, 1), (columns,), (out * columns,)]


def _shape(array: tuple[int, ...], shape: tuple[int, int]) -> tuple[int, bytes]:
    """Code of the shape of an array, and the numbers that it leaves open."""
    derived = _derived(*shape)
    if array in derived:
        return derived.index(array), b""
    if len(array) == 2 and array[0] == shape[0]:
        return ROWS, varint(array[1])
    return ANY, b"".join(map(varint, (len(array), *array)))


def _shape_of(code: int, shape: tuple[int, int], reader: "_Reader") -> tuple[int, ...]:
    if code == ROWS:
        return shape[0], reader.number()
    if code == ANY:
        return tuple(reader.number() for _ in range(min(reader.number(), 32)))
    return _derived(*shape)[code]


class _Reader:
    """Bytes that are read one after the other."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place

    def byte(self) -> int:
        if self.place >= len(self.data):
            raise ValueError("The header ends too early.")
        self.place += 1
        return self.data[self.place - 1]

    def number(self) -> int:
        """A varint below ``LIMIT``."""
        n, self.place = read_varint(self.data, self.place)
        if n >= LIMIT:
            raise ValueError(f"The header claims {n} rows, symbols or bytes.")
        return n

    def name(self) -> str:
        code = self.byte()
        if code > len(NAMES):
            raise ValueError(f"The name {code} is unknown.")
        if code:
            return NAMES[code - 1]
        length = self.number()
        text = self.data[self.place : self.place + length]
        self.place += length
        return text.decode()
