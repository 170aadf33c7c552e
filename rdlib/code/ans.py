"""Entropy-coded symbols: asymmetric numeral systems, with one table, or one for every context."""

import math
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import constriction
import numpy as np

from rdlib.code.format import Format

ABSENT = 255  # in a table: a symbol that does not occur


@dataclass(frozen=True, eq=False)
class Ans(Format):
    """Symbols entropy-coded by asymmetric numeral systems (Duda 2013, arXiv:1311.2540), by ``constriction``.

    With contexts, the symbols are sorted by context: first those of the first row of the table, and so on.  One
    coder writes them all.

    Args:
        table: the model, −16·log₂ of each symbol's frequency, (size,), or a row for every context
            (see :func:`rdlib.code.code.frequency_table`).
        counts: how many symbols each context has; None for a table of one row.
    """

    table: np.ndarray
    counts: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Of the alphabet."""
        return self.table.shape[-1]

    def runs(self, count: int) -> list[tuple[np.ndarray, slice]]:
        """The table of each context, and where its symbols are among ``count``.

        Raises:
            ValueError: the contexts have another number of symbols in all.
        """
        ends = [count] if self.counts is None else np.cumsum(self.counts, dtype=np.int64).tolist()
        if [0, *ends][-1] != count:
            raise ValueError(f"{count} symbols are not the {[0, *ends][-1]} of all contexts.")
        places = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]
        return list(zip(np.atleast_2d(self.table), places, strict=True))

    def _words(self, array: np.ndarray) -> np.ndarray:
        coder, symbols = constriction.stream.stack.AnsCoder(), array.ravel()
        for table, run in reversed(self.runs(array.size)):  # what comes last is read first
            ranks = _ranks(table)[symbols[run]]
            if ranks.min(initial=0) < 0:
                raise ValueError("A symbol to be coded has no frequency in the table.")
            if ranks.size and (table != ABSENT).sum() > 1:  # else there is nothing to tell
                coder.encode_reverse(ranks, _model(table))
        return coder.get_compressed()

    def bits(self, array: np.ndarray) -> int:
        return 32 * len(self._words(array))

    def bits_of_counts(self, counts: np.ndarray) -> int:
        """−Σ n·log₂ p in whole words: what :meth:`bits` finds, within two words and 10⁻⁴, without coding.

        Args:
            counts: how often each symbol occurs, of the shape of the table.
        """
        frequencies = np.where(self.table == ABSENT, 0, np.exp2(-self.table / 16.0))
        p = frequencies / np.maximum(frequencies.sum(axis=-1, keepdims=True), np.finfo(float).tiny)
        used = counts > 0
        return 32 * int(np.ceil(-(counts[used] @ np.log2(p[used])) / 32))

    def pack(self, array: np.ndarray) -> bytes:
        return self._words(array).astype("<u4").tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        if len(data) % 4:
            raise ValueError(f"An entropy-coded stream is whole 32-bit words, not {len(data)} bytes.")
        coder = constriction.stream.stack.AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))
        runs = self.runs(math.prod(shape))
        parts = [self._decoded(coder, table, run.stop - run.start) for table, run in runs]
        if not coder.is_empty():
            raise ValueError(
                "An entropy-coded stream does not end where its symbols end: tables, scales or counts before it are "
                "not those that it was written with."
            )
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).reshape(shape)

    def _decoded(
        self, coder: constriction.stream.stack.AnsCoder, table: np.ndarray, count: int
    ) -> np.ndarray:
        """The next symbols; a single possible one takes neither bits nor memory."""
        present = np.flatnonzero(table != ABSENT).astype(np.min_scalar_type(self.size))
        if count and not len(present):
            raise ValueError("The table of an entropy-coded stream holds no symbol.")
        if len(present) < 2 or not count:
            return np.broadcast_to(present[:1] if count else present[:0], count)
        return present[coder.decode(_model(table), count)]


def _ranks(table: np.ndarray) -> np.ndarray:
    """The place of each symbol among those that occur, −1 of one that does not."""
    present = table != ABSENT
    return np.where(present, np.cumsum(present) - 1, -1).astype(np.int32)


def _model(table: np.ndarray) -> constriction.stream.model.Model:
    frequencies = np.exp2(-table[table != ABSENT].astype(np.float64) / 16)
    return constriction.stream.model.Categorical(frequencies / frequencies.sum(), perfect=False)


def huffman_bits(counts: np.ndarray) -> int:
    """What Huffman's code spends on symbols that occur so often: the sum of all merged counts.

    For the classroom: a whole number of bits a symbol, up to one bit a symbol above the entropy that
    :class:`Ans` reaches (Huffman 1952, doi:10.1109/JRPROC.1952.273898).

    >>> huffman_bits(np.array([2, 1, 1]))  # 0, 10, 11
    6
    """
    heap = [int(count) for count in counts if count > 0]
    heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heappop(heap) + heappop(heap)
        total += merged
        heappush(heap, merged)
    return total


def rice_bits(counts: np.ndarray, first: int) -> int:
    """What Rice's code spends on integers z that occur so often: ⌊u / 2ᵏ⌋ + 1 + k bits each, with the best k.

    u = 0, 1, 2, 3, … for z = 0, 1, −1, 2, …  It has no table, and its decoder takes a few instructions (Rice and Plaunt
    1971, doi:10.1109/TCOM.1971.1090789; one of Golomb's codes, doi:10.1109/TIT.1966.1053907).

    >>> rice_bits(np.array([1, 4, 1]), first=-1)  # 0 for 0, 10 for 1, 110 for −1
    9

    Args:
        counts: of first, first + 1, ….
        first: the lowest integer.
    """
    z = first + np.arange(len(counts))
    u = np.where(z > 0, 2 * z - 1, -2 * z)
    return min(int(counts @ ((u >> k) + 1 + k)) for k in range(32))
