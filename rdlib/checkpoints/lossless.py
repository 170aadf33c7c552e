"""What a lossless coder would save: the entropy of every stream of a code."""

import math

import numpy as np

from rdlib.code.code import Code
from rdlib.histogram import entropy_of, occurrences


def entropies(code: Code) -> dict[str, float]:
    """H(X) of the symbols X of each stream, in bits per weight: no coder of single symbols takes less.

    Beside :attr:`rdlib.code.code.Code.rates` it shows which field is worth coding.  It is that of the symbols
    that occur, and too low where they are few compared with the alphabet: the table of frequencies is not counted.
    Floats are compared by their bits.

    References:
        Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x, theorem 9.
    """
    rates = {name: entropy_of(counts) * counts.sum() for name, counts in _counts(code).items()}
    return {name: bits / max(code.weights, 1) for name, bits in rates.items()}


def coded_bits(code: Code) -> dict[str, int]:
    """n·H(X) and the table of frequencies, in bits of each stream: what a coder of single symbols really takes.

    The table lists each symbol that occurs, at the width of the stream, with 8 bits of frequency.  Where that saves
    nothing the stream stays as it is.
    """
    found = {}
    for name, counts in _counts(code).items():
        stream, used = code.streams[name], int(np.count_nonzero(counts))
        width = -(-stream.bits // max(stream.array.size, 1))
        found[name] = min(stream.bits, math.ceil(entropy_of(counts) * counts.sum()) + (width + 8) * used)
    return found


def _counts(code: Code) -> dict[str, np.ndarray]:
    """How often each symbol of every stream occurs."""
    arrays = {name: np.ascontiguousarray(stream.array) for name, stream in code.streams.items()}
    return {
        name: occurrences(a if a.dtype.kind == "u" else a.view(f"u{a.itemsize}"))
        for name, a in arrays.items()
    }
