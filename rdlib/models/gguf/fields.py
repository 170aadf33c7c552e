"""Where the fields of a block lie: small integers, each a few bits at a place of its own.

A block of a GGUF tensor holds the same fields in the same places as every other block of its type, so that a type is
described by the positions of its fields, and one compiled loop reads them all.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit


@dataclass(frozen=True, eq=False)
class Field:
    """One array of a block: n symbols, each put together from parts, the lowest bits first.

    Args:
        parts: (positions, width) pairs; a part is ``width`` bits from the bit ``positions[i]`` of the block on,
            where bit 0 is the lowest of the first byte.
    """

    parts: tuple[tuple[np.ndarray, int], ...]

    @property
    def count(self) -> int:
        """Symbols in a block."""
        return len(self.parts[0][0])

    @property
    def bits(self) -> int:
        """Of a symbol."""
        return sum(width for _, width in self.parts)

    @cached_property
    def pieces(self) -> np.ndarray:
        """Parts cut at the borders of bytes, uint32 (pieces, 4, n): byte, shift right, mask, shift left."""
        found, low = [], 0
        for positions, width in self.parts:
            first, last = positions // 8, (positions + width - 1) // 8
            for k in range(int((last - first).max()) + 1):
                begin = np.maximum(positions, 8 * (first + k))
                end = np.minimum(positions + width, 8 * (first + k + 1))
                mask = (1 << np.maximum(end - begin, 0)) - 1
                byte = np.minimum(first + k, last)
                found.append(np.stack([byte, begin % 8, mask, low + begin - positions]))
            low += width
        return np.stack(found).astype(np.uint32)

    @cached_property
    def whole(self) -> slice | None:
        """The bytes of the field, where they are its symbols, one after the other."""
        positions, width = self.parts[0]
        begin = int(positions[0]) // 8
        in_order = np.array_equal(positions, 8 * begin + width * np.arange(self.count))
        whole = in_order and len(self.parts) == 1 and width in (8, 16)
        return slice(begin, begin + self.count * width // 8) if whole else None

    def read(self, blocks: np.ndarray) -> np.ndarray:
        """The symbols of every block: unsigned integers (blocks, n) of uint8 (blocks, bytes)."""
        dtype = np.uint8 if self.bits <= 8 else np.uint16 if self.bits <= 16 else np.uint32
        if self.whole:
            return blocks[:, self.whole].copy().view(dtype)
        symbols = np.empty((len(blocks), self.count), dtype)
        _read(blocks, self.pieces, symbols)
        return symbols


class Half(Field):
    """Numbers of 16 bits: float16."""

    def read(self, blocks: np.ndarray) -> np.ndarray:
        return super().read(blocks).view(np.float16)


@njit(cache=True)
def _read(blocks: np.ndarray, pieces: np.ndarray, symbols: np.ndarray) -> None:
    for p in range(len(pieces)):
        byte, right, mask, left = pieces[p]
        for b in range(len(blocks)):
            block, row = blocks[b], symbols[b]
            for i in range(len(row)):
                value = ((block[byte[i]] >> right[i]) & mask[i]) << left[i]
                row[i] = value if p == 0 else row[i] | value


def words(begin: int, count: int, bits: int, *, step: int | None = None, bit: int = 0) -> Field:
    """Symbols one after the other.

    Args:
        begin: byte of the first.
        count: of symbols.
        bits: of a symbol.
        step: bits from one symbol to the next, where others lie between them.
        bit: of the first symbol within its byte, or within what follows.
    """
    return Field(((8 * begin + bit + np.arange(count) * (step or bits), bits),))


def half(byte: int) -> Half:
    """One float16 at a byte."""
    return Half(words(byte, 1, 16).parts)


def strided(begin: int, count: int, bits: int, run: int) -> Field:
    """Symbols in runs of bytes: the lowest bits of ``run`` bytes, then the next bits of the same bytes, and so on."""
    i, fields = np.arange(count), 8 // bits
    byte = begin + i // (run * fields) * run + i % run
    return Field(((8 * byte + bits * (i // run % fields), bits),))


def joined(*fields: Field) -> Field:
    """Each symbol from several fields, the lowest bits first."""
    return Field(tuple(part for field in fields for part in field.parts))


def chained(*fields: Field) -> Field:
    """The symbols of one field, then those of the next; their parts have the same widths."""
    widths = [width for _, width in fields[0].parts]
    return Field(
        tuple((np.concatenate([f.parts[k][0] for f in fields]), width) for k, width in enumerate(widths))
    )


def every(field: Field, period: int, repeats: int) -> Field:
    """The field once in each of ``repeats`` stretches of ``period`` bytes."""
    shifts = 8 * period * np.arange(repeats)[:, None]
    return Field(tuple(((positions + shifts).ravel(), width) for positions, width in field.parts))
