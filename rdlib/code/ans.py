"""Entropy-coded symbols: asymmetric numeral systems, with one table, or one for every context."""

import math
import struct
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import constriction
import numpy as np

from rdlib.code.format import Format


@dataclass(frozen=True, eq=False)
class Ans(Format):
    """Symbols entropy-coded by asymmetric numeral systems (Duda 2013, arXiv:1311.2540), by ``constriction``.

    Args:
        table: the model, −16·log₂ of each symbol's frequency (see :func:`rdlib.code.code.frequency_table`).
    """

    table: np.ndarray

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

    def bits_of_counts(self, counts: np.ndarray) -> int:
        """−Σ n·log₂ p in whole words: what :meth:`bits` finds, within two words and 10⁻⁴, without coding.

        Args:
            counts: how often each symbol occurs, (size,).
        """
        used = counts > 0
        if used.sum() < 2:
            return 0
        octaves = self.table[used] / 16.0
        octaves += np.log2(np.exp2(-octaves).sum())  # frequencies are rounded, and then add up to 1 again
        return 32 * int(np.ceil(counts[used] @ octaves / 32))

    def pack(self, array: np.ndarray) -> bytes:
        return self._words(array).astype("<u4").tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        present, count = self._present, math.prod(shape)
        dtype = np.min_scalar_type(len(self.table))
        if len(present) < 2 or not count:
            _expect_end(data)
            if count and not len(present):
                raise ValueError("The table of an entropy-coded stream holds no symbol.")
            return np.broadcast_to(dtype.type(present[0] if count else 0), shape)
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
        _expect_end(data)
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
        _expect_end(data)
        return np.concatenate(runs)


def _expect_end(data: bytes) -> None:
    if data:
        raise ValueError(f"An entropy-coded stream is {len(data)} bytes longer than its symbols.")


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
