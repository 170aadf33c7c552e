"""Entropy coding with contexts that the decoder knows from another stream.

The coset of a lattice point or the path through a trellis says which of a few distributions a symbol is drawn
from.  Each distribution has a table of its own, and the symbols are written sorted by context.
"""

import numpy as np

from rdlib.code.ans import Ans
from rdlib.code.code import Stream, frequency_table


def context_streams(symbols: np.ndarray, contexts: np.ndarray, size: int, count: int) -> dict[str, Stream]:
    """Σ over contexts c of n_c·H(symbol | c) bits: the symbols, sorted by context, each context with its table.

    Args:
        symbols: integers 0 … size − 1, any shape.
        contexts: integers 0 … count − 1, the same shape; the decoder must know them from other streams.
        size: of the alphabet.
        count: of contexts.

    Returns:
        the streams ``table`` (a byte a context and each of its symbols), ``counts`` (32 bits a context) and ``index``.
    """
    joint = np.bincount((size * contexts.astype(np.int64) + symbols).ravel(), minlength=size * count)
    joint = joint.reshape(count, size)
    table, counts = frequency_table(joint), Stream.fixed(joint.sum(axis=1), 1 << 32)
    order = np.argsort(contexts, axis=None, kind="stable")
    index = symbols.ravel()[order].astype(np.min_scalar_type(size))
    return {"table": table, "counts": counts, "index": Stream(index, Ans(table.array, counts.array))}


def classes_of(power: np.ndarray, count: int) -> np.ndarray:
    """Classes 0 … count − 1 of equally many entries, from weak to strong: shape of ``power``, (n,)."""
    rank = np.argsort(np.argsort(power, kind="stable"))
    return rank * count // max(len(rank), 1)


def unsorted(index: np.ndarray, contexts: np.ndarray) -> np.ndarray:
    """The symbols back in their places, shape of ``contexts``: what :func:`context_streams` sorted.

    Raises:
        ValueError: there are not as many symbols as contexts.
    """
    if index.size != contexts.size:
        raise ValueError(f"The code holds {index.size} symbols for {contexts.size} places.")
    symbols = np.empty(contexts.size, index.dtype)
    symbols[np.argsort(contexts, axis=None, kind="stable")] = index
    return symbols.reshape(contexts.shape)
