"""Small integers packed into 32-bit words: one stream of bits, the lowest bit of the first word first."""

import numpy as np

FIELDS = 32  # a period: so many fields fill so many words as a field has bits


def unpack(words: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The first ``count`` fields of ``bits`` bits of every column; a field may begin in one word and end in the next.

    Args:
        words: int32, (n, columns).
        bits: 1 … 8.
        count: of fields, at most 32·n / bits.

    Returns:
        uint8, (count, columns).
    """
    periods = -(-len(words) // bits)
    filled = np.zeros((periods * bits, words.shape[1]), np.uint32)
    filled[: len(words)] = words.view("<u4")
    filled = filled.reshape(periods, bits, -1)
    fields = np.empty((periods, FIELDS, words.shape[1]), np.uint8)
    for j in range(FIELDS):
        word, offset = divmod(j * bits, 32)
        field = filled[:, word] >> np.uint32(offset)
        if offset + bits > 32:
            field |= filled[:, word + 1] << np.uint32(32 - offset)
        fields[:, j] = field & np.uint32((1 << bits) - 1)
    return fields.reshape(periods * FIELDS, -1)[:count]


def words_for(count: int, bits: int) -> int:
    """How many 32-bit words hold ``count`` fields."""
    return -(-count * bits // 32)
