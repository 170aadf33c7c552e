"""How an array is written down: fixed-length symbols, floats, or entropy-coded symbols.

Each format knows the price of an array in bits before it writes anything, and packs it into that many bits,
filled up to whole bytes.
"""

import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from heapq import heapify, heappop, heappush

import constriction
import ml_dtypes
import numpy as np
from numba import njit

WORDS = 32  # of 32 bits: room for the symbols of an alphabet that is not a power of two, packed together


class Format(ABC):
    """A way of writing an array."""

    @property
    @abstractmethod
    def spec(self) -> list:
        """The format as the header of a file names it."""

    @abstractmethod
    def bits(self, array: np.ndarray) -> int:
        """Price of an array."""

    @abstractmethod
    def pack(self, array: np.ndarray) -> bytes:
        """The array as ⌈bits / 8⌉ bytes."""

    @abstractmethod
    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """The array that :meth:`pack` wrote.

        Raises:
            ValueError: the bytes do not hold an array of this shape.
        """

    def expect(self, data: bytes, bits: int) -> None:
        """Raise unless ``data`` is as long as a price of ``bits`` says."""
        if len(data) != -(-bits // 8):
            raise ValueError(f"A stream of {bits} bits takes {-(-bits // 8)} bytes, not {len(data)}.")


@dataclass(frozen=True)
class Fixed(Format):
    """Symbols 0 … size − 1 at log₂(size) bits each.

    Where the size is not a power of two, a block of symbols is written as the digits of one number in base
    ``size``: log₂(15) = 3.9069 bits a symbol become 3.9077.
    """

    size: int

    @property
    def spec(self) -> list:
        return ["fixed", self.size]

    def _count_bits(self, count: int) -> int:
        digits, width = block(self.size)
        blocks, rest = divmod(count, digits)
        return blocks * width + (self.size**rest - 1).bit_length()

    def bits(self, array: np.ndarray) -> int:
        return self._count_bits(array.size)

    def pack(self, array: np.ndarray) -> bytes:
        digits, width = block(self.size)
        numbers = _join_digits(array.ravel().astype(np.uint32), self.size, digits, -(-width // 32))
        return _pack_bits(numbers, width)[: -(-self.bits(array) // 8)].tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        count = math.prod(shape)
        self.expect(data, self._count_bits(count))
        refuse_endless(count if self.size < 2 else 0)
        digits, width = block(self.size)
        blocks = -(-count // digits)
        raw = np.zeros(-(-blocks * width // 8), np.uint8)  # the last block is whole again
        raw[: len(data)] = np.frombuffer(data, np.uint8)
        symbols = _split_digits(_unpack_bits(raw, width, blocks), self.size, digits, count)
        return symbols.astype(np.min_scalar_type(max(self.size - 1, 0))).reshape(shape)


@dataclass(frozen=True)
class Float(Format):
    """Numbers at the width of a float type.

    Args:
        dtype: float32, float16, bfloat16, float8_e8m0fnu (a power of two) or float8_e4m3fn.
    """

    dtype: str = "float16"

    @property
    def spec(self) -> list:
        return ["float", self.dtype]

    @property
    def _numpy(self) -> np.dtype:
        if self.dtype not in FLOATS:
            raise ValueError(f"Unknown float format {self.dtype!r}; known are {', '.join(FLOATS)}.")
        return FLOATS[self.dtype]

    def round(self, values: np.ndarray) -> np.ndarray:
        """Values rounded to the format.

        Raises:
            ValueError: a finite value is beyond the largest of the format, or negative where it has no sign.
        """
        if self.dtype == "float8_e8m0fnu":
            values = np.where(values == 0, 2.0**-127, values)  # it has no zero: its smallest power of two
        with np.errstate(over="ignore"):
            rounded = values.astype(self._numpy)
        lost = np.isfinite(values) & ~np.isfinite(rounded.astype(np.float64))
        if lost.any():
            raise ValueError(
                f"{values[lost].flat[0]:.3g} does not fit {self.dtype}: choose another format for the scales."
            )
        return rounded

    def bits(self, array: np.ndarray) -> int:
        return array.size * self._numpy.itemsize * 8

    def pack(self, array: np.ndarray) -> bytes:
        return np.ascontiguousarray(array.astype(self._numpy)).tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        self.expect(data, math.prod(shape) * self._numpy.itemsize * 8)
        array = np.frombuffer(data, self._numpy).reshape(shape)
        if not np.isfinite(array).all():
            raise ValueError(f"A stream of {self.dtype} holds NaN or Inf, which no encoder writes.")
        return array


FREE = 1 << 32  # symbols that are believed though nothing was paid for them
FLOATS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
}


@dataclass(frozen=True, eq=False)
class Ans(Format):
    """Symbols entropy-coded by asymmetric numeral systems (Duda 2013, arXiv:1311.2540), by ``constriction``.

    Args:
        table: the model, −16·log₂ of each symbol's frequency (see :func:`rdlib.code.frequency_table`).
    """

    table: np.ndarray

    @property
    def spec(self) -> list:
        return ["ans"]

    @property
    def size(self) -> int:
        """Of the alphabet."""
        return len(self.table)

    @property
    def _present(self) -> np.ndarray:
        return np.flatnonzero(self.table != 255)

    def _model(self) -> constriction.stream.model.Model:
        frequencies = np.exp2(-self.table[self._present].astype(np.float64) / 16)
        return constriction.stream.model.Categorical(frequencies / frequencies.sum(), perfect=False)

    def _words(self, array: np.ndarray) -> np.ndarray:
        present = self._present
        if len(present) < 2 or not array.size:  # nothing to tell
            return np.empty(0, np.uint32)
        rank = np.full(len(self.table), -1, np.int32)
        rank[present] = np.arange(len(present))
        symbols = rank[array.ravel()]
        if symbols.min() < 0:
            raise ValueError("A symbol to be coded has no frequency in the table.")
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbols, self._model())
        return coder.get_compressed()

    def bits(self, array: np.ndarray) -> int:
        return 32 * len(self._words(array))

    def pack(self, array: np.ndarray) -> bytes:
        return self._words(array).astype("<u4").tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        present, count = self._present, math.prod(shape)
        dtype = np.min_scalar_type(len(self.table))
        if len(present) < 2 or not count:
            self.expect(data, 0)
            refuse_endless(count)
            if count and not len(present):
                raise ValueError("The table of an entropy-coded stream holds no symbol.")
            return np.full(shape, present[0] if count else 0, dtype)
        if len(data) % 4:
            raise ValueError(f"An entropy-coded stream is whole 32-bit words, not {len(data)} bytes.")
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))
        symbols = coder.decode(self._model(), count)
        if not coder.is_empty():
            raise ValueError("An entropy-coded stream does not end where its symbols end.")
        return present[symbols].astype(dtype).reshape(shape)


@dataclass(frozen=True, eq=False)
class ClassifiedAns(Format):
    """Rows of symbols, each entropy-coded with the table of its class; every class says how many words it takes.

    Args:
        table: the models, one row a class (see :class:`Ans`).
        row_class: class of each row of symbols.
    """

    table: np.ndarray
    row_class: np.ndarray

    @property
    def spec(self) -> list:
        return ["classified"]

    @property
    def size(self) -> int:
        """Of the alphabet."""
        return self.table.shape[1]

    def _payloads(self, array: np.ndarray) -> list[bytes]:
        return [Ans(table).pack(array[self.row_class == c]) for c, table in enumerate(self.table)]

    def bits(self, array: np.ndarray) -> int:
        return sum(32 + 8 * len(payload) for payload in self._payloads(array))

    def pack(self, array: np.ndarray) -> bytes:
        return b"".join(struct.pack("<I", len(p) // 4) + p for p in self._payloads(array))

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        if len(shape) != 2 or self.table.ndim != 2 or self.row_class.shape != shape[:1]:
            raise ValueError(f"Symbols of shape {shape} do not fit {self.row_class.shape} classes of rows.")
        array = np.zeros(shape, np.min_scalar_type(self.size))
        for c, table in enumerate(self.table):
            if len(data) < 4:
                raise ValueError(f"The symbols of class {c} are missing.")
            end = 4 + 4 * struct.unpack_from("<I", data)[0]
            rows = self.row_class == c
            array[rows] = Ans(table).unpack(data[4:end], (int(rows.sum()), shape[1]))
            data = data[end:]
        self.expect(data, 0)
        return array


@dataclass(frozen=True, eq=False)
class ContextAns(Format):
    """Symbols sorted by context, those of each context entropy-coded with its own table.

    The decoder knows the context of a symbol from other streams (the coset of a lattice point, the state of a
    trellis) and puts the sorted symbols back.  Every context says how many words it takes.

    Args:
        table: the models, one row a context (see :class:`Ans`).
        counts: how many symbols each context has.
    """

    table: np.ndarray
    counts: np.ndarray

    @property
    def spec(self) -> list:
        return ["context"]

    @property
    def size(self) -> int:
        """Of the alphabet."""
        return self.table.shape[1]

    def _payloads(self, array: np.ndarray) -> list[bytes]:
        runs = np.split(array, np.cumsum(self.counts.astype(np.int64))[:-1])
        return [Ans(table).pack(run) for table, run in zip(self.table, runs, strict=True)]

    def bits(self, array: np.ndarray) -> int:
        return sum(32 + 8 * len(payload) for payload in self._payloads(array))

    def pack(self, array: np.ndarray) -> bytes:
        return b"".join(struct.pack("<I", len(p) // 4) + p for p in self._payloads(array))

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        counts = [int(count) for count in np.ravel(self.counts)]
        if self.table.ndim != 2 or len(counts) != len(self.table) or shape != (sum(counts),):
            raise ValueError(f"Symbols of shape {shape} do not fit contexts of {counts} symbols.")
        runs = [np.empty(0, np.min_scalar_type(self.size))]
        for context, (table, count) in enumerate(zip(self.table, counts, strict=True)):
            if len(data) < 4:
                raise ValueError(f"The symbols of context {context} are missing.")
            end = 4 + 4 * struct.unpack_from("<I", data)[0]
            runs.append(Ans(table).unpack(data[4:end], (count,)))
            data = data[end:]
        self.expect(data, 0)
        return np.concatenate(runs)


def refuse_endless(count: int) -> None:
    """Raise where a stream claims more symbols without a bit than any matrix has weights."""
    if count > FREE:
        raise ValueError(f"A stream of no bits cannot hold {count} symbols; at most {FREE} are believed.")


def huffman_bits(counts: np.ndarray) -> int:
    """What Huffman's code spends on symbols that occur so often: the sum of all merged counts.

    For the classroom: a whole number of bits a symbol, up to one bit a symbol above the entropy that
    :class:`Ans` reaches (Huffman 1952, doi:10.1109/JRPROC.1952.273898).
    """
    heap = [int(count) for count in counts if count > 0]
    heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heappop(heap) + heappop(heap)
        total += merged
        heappush(heap, merged)
    return total


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


@lru_cache
def block(size: int) -> tuple[int, int]:
    """How many symbols of an alphabet go into how many bits: the fewest bits a symbol within WORDS words."""
    if size < 2:
        return 1, 0
    widths = [(size**digits - 1).bit_length() for digits in range(1, int(32 * WORDS / math.log2(size)) + 1)]
    digits = 1 + min(range(len(widths)), key=lambda k: widths[k] / (k + 1))
    return digits, widths[digits - 1]


@njit(cache=True)
def _pack_bits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Numbers of ``width`` bits, shape (n, words) with the lowest word first, one after the other."""
    out = np.zeros((len(numbers) * width + 7) // 8, np.uint8)
    pending, held, k = np.uint64(0), 0, 0
    for i in range(numbers.shape[0]):
        for w in range(numbers.shape[1]):
            pending |= np.uint64(numbers[i, w]) << np.uint64(held)
            held += min(width - 32 * w, 32)
            while held >= 8:
                out[k] = pending & np.uint64(255)
                pending >>= np.uint64(8)
                held -= 8
                k += 1
    if held:
        out[k] = pending
    return out


@njit(cache=True)
def _unpack_bits(data: np.ndarray, width: int, count: int) -> np.ndarray:
    """Inverse of :func:`_pack_bits`."""
    numbers = np.empty((count, (width + 31) // 32), np.uint32)
    pending, held, k = np.uint64(0), 0, 0
    for i in range(numbers.shape[0]):
        for w in range(numbers.shape[1]):
            bits = min(width - 32 * w, 32)
            while held < bits:
                pending |= np.uint64(data[k]) << np.uint64(held)
                held += 8
                k += 1
            numbers[i, w] = pending & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
            pending >>= np.uint64(bits)
            held -= bits
    return numbers


@njit(cache=True)
def _join_digits(symbols: np.ndarray, base: int, digits: int, words: int) -> np.ndarray:
    """Every ``digits`` symbols as one number in base ``base``, shape (n, words) with the low word first."""
    out = np.zeros((-(-len(symbols) // digits), words), np.uint32)
    for b in range(out.shape[0]):
        for i in range(min(len(symbols), (b + 1) * digits) - 1, b * digits - 1, -1):
            carry = np.uint64(symbols[i])
            for w in range(words):
                carry += np.uint64(out[b, w]) * np.uint64(base)
                out[b, w] = carry & np.uint64(0xFFFFFFFF)
                carry >>= np.uint64(32)
    return out


@njit(cache=True)
def _split_digits(numbers: np.ndarray, base: int, digits: int, count: int) -> np.ndarray:
    """Inverse of :func:`_join_digits`; it uses ``numbers`` up."""
    symbols = np.empty(count, np.uint32)
    for i in range(count):
        rest = np.uint64(0)
        for w in range(numbers.shape[1] - 1, -1, -1):
            rest = (rest << np.uint64(32)) | np.uint64(numbers[i // digits, w])
            numbers[i // digits, w] = rest // np.uint64(base)
            rest %= np.uint64(base)
        symbols[i] = rest
    return symbols
