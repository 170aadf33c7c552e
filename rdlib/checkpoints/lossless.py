"""What a lossless coder would save: the entropy of every stream of a code."""

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
    found = {}
    for name, stream in code.streams.items():
        array = np.ascontiguousarray(stream.array)
        symbols = array if array.dtype.kind == "u" else array.view(f"u{array.itemsize}")
        found[name] = entropy_of(occurrences(symbols)) * symbols.size / max(code.weights, 1)
    return found
