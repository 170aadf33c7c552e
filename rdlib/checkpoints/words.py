"""Small integers packed into 32-bit words, the lowest bits of the first word first.

A *dense* packing is one stream of bits, in which a field may begin in one word and end in the next.  A *loose* one
leaves the upper bits of each word unused where they hold no whole field, 2 of 32 for fields of 3 bits.  They differ for
3, 5, 6 and 7 bits.
"""

import numpy as np
from numba import njit


def unpack(words: np.ndarray, bits: int, count: int, *, loose: bool = False) -> np.ndarray:
    """The first ``count`` fields of every row.

    Args:
        words: int32, (rows, n), with n at least :func:`words_for` so many fields.
        bits: 1 … 8.
        count: of fields.
        loose: how they are packed.

    Returns:
        uint8, (rows, count).
    """
    rows = np.ascontiguousarray(words).view("<u4")
    if bits == 8:
        return np.ascontiguousarray(rows.view(np.uint8)[:, :count])
    fields = np.empty((len(words), count), np.uint8)
    if bits == 4:
        _split_nibbles(rows.view(np.uint8), fields)
    elif loose or 32 % bits == 0:
        _split_words(rows, bits, fields)
    else:
        _split_stream(rows, bits, 32, fields)
    return fields


def words_for(count: int, bits: int, *, loose: bool = False) -> int:
    """How many 32-bit words hold ``count`` fields."""
    return -(-count // (32 // bits)) if loose else -(-count * bits // 32)


def split_bytes(rows: np.ndarray, bits: int) -> np.ndarray:
    """All fields of rows of bytes, uint8 (rows, n), the lowest bits first: two of 4 bits a byte, four of 6 in three."""
    fields = np.empty((len(rows), rows.shape[1] * 8 // bits), np.uint8)
    if bits == 4:
        _split_nibbles(np.ascontiguousarray(rows), fields)
    else:
        _split_stream(np.ascontiguousarray(rows), bits, 8, fields)
    return fields


@njit(cache=True)
def _split_nibbles(rows: np.ndarray, fields: np.ndarray) -> None:
    for i in range(len(fields)):
        row, out = rows[i], fields[i]
        for j in range(len(out) // 2):
            out[2 * j] = row[j] & np.uint8(15)
            out[2 * j + 1] = row[j] >> np.uint8(4)
        if len(out) % 2:
            out[-1] = row[len(out) // 2] & np.uint8(15)


@njit(cache=True)
def _split_words(words: np.ndarray, bits: int, fields: np.ndarray) -> None:
    per_word, mask = 32 // bits, np.uint32((1 << bits) - 1)
    whole = fields.shape[1] // per_word
    for i in range(len(fields)):
        row, out = words[i], fields[i]
        for w in range(whole):
            for k in range(per_word):
                out[w * per_word + k] = row[w] >> np.uint32(k * bits) & mask
        for j in range(whole * per_word, len(out)):
            out[j] = row[whole] >> np.uint32((j - whole * per_word) * bits) & mask


@njit(cache=True)
def _split_stream(words: np.ndarray, bits: int, size: int, fields: np.ndarray) -> None:
    width, mask = np.uint64(bits), np.uint64((1 << bits) - 1)
    for i in range(len(fields)):
        row, out, pending, held, w = words[i], fields[i], np.uint64(0), 0, 0
        for j in range(len(out)):
            if held < bits:
                pending |= np.uint64(row[w]) << np.uint64(held)
                held += size
                w += 1
            out[j] = pending & mask
            pending >>= width
            held -= bits
