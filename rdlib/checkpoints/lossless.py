"""What a lossless coder would save: the entropy of every stream of a code."""

import numpy as np

from rdlib.code.code import Code


def entropies(code: Code) -> dict[str, float]:
    """H(X) of the symbols X of each stream, in bits per weight: no coder of single symbols takes less.

    Beside :attr:`rdlib.code.code.Code.rates` it shows which field is worth coding.  It is that of the symbols
    that occur, and too low where they are few compared with the alphabet: the table of frequencies is not counted.

    Source: Shannon 1948, doi:10.1002/j.1538-7305.1948.tb01338.x, theorem 9.
    """
    return {
        name: _entropy(stream.array) * stream.array.size / max(code.weights, 1)
        for name, stream in code.streams.items()
    }


def _entropy(symbols: np.ndarray) -> float:
    """−Σ p log₂ p of the frequencies of symbols; floats are told apart by their bits."""
    symbols = np.ascontiguousarray(symbols).ravel()
    if symbols.dtype.kind != "u":
        symbols = symbols.view(f"u{symbols.itemsize}")
    if symbols.itemsize <= 2:
        counts = np.bincount(symbols)
        counts = counts[counts > 0]
    else:
        counts = np.unique(symbols, return_counts=True)[1]
    p = counts / max(symbols.size, 1)
    return float(max(-(p * np.log2(p)).sum(), 0.0))
