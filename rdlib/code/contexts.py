"""Entropy coding with contexts that the decoder knows from another stream.

The coordinates of a lattice point so far, or the path through a trellis, say which of a few distributions a
symbol is drawn from.  Each distribution has a table of its own, and the symbols are written sorted by context.
"""

import numpy as np
from numba import njit

from rdlib.code.ans import Ans
from rdlib.code.code import Stream, frequency_table

MOST = 1 << 20  # contexts that a code may have beyond one for every symbol


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
    flat, places = symbols.astype(np.min_scalar_type(size)).ravel(), contexts.astype(np.int32).ravel()
    joint = np.zeros((count, size), np.int64)
    _tally(flat, places, joint)
    table, counts = frequency_table(joint), Stream.fixed(joint.sum(axis=1), 1 << 32)
    index = sorted_by(flat, places, counts.array)
    return {"table": table, "counts": counts, "index": Stream(index, Ans(table.array, counts.array))}


def sorted_by(symbols: np.ndarray, contexts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The symbols (n,) by context, those of one context in their order.

    Args:
        symbols: integers ≥ 0, any shape.
        contexts: integers ≥ 0, the same shape.
        counts: how many symbols each context has.
    """
    flat = symbols.astype(np.min_scalar_type(int(symbols.max(initial=0)))).ravel()
    index = np.empty_like(flat)
    _sort(flat, contexts.astype(np.int32).ravel(), _starts(counts), index)
    return index


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
    if contexts.max(initial=0) > contexts.size + MOST:
        raise ValueError(f"The context {contexts.max()} of a symbol is none of {contexts.size} symbols.")
    places = contexts.astype(np.int32).ravel()
    symbols = np.empty(contexts.size, index.dtype)
    _unsort(np.ascontiguousarray(index).ravel(), places, _starts(np.bincount(places)), symbols)
    return symbols.reshape(contexts.shape)


def _starts(counts: np.ndarray) -> np.ndarray:
    """Where the symbols of each context begin."""
    return np.cumsum(counts, dtype=np.int64) - counts.astype(np.int64)


@njit(cache=True)
def _tally(symbols: np.ndarray, contexts: np.ndarray, joint: np.ndarray) -> None:
    """Count each symbol in its context."""
    for symbol, c in zip(symbols, contexts):  # noqa: B905 (no `strict` in compiled code)
        joint[c, symbol] += 1


@njit(cache=True)
def _sort(symbols: np.ndarray, contexts: np.ndarray, place: np.ndarray, index: np.ndarray) -> None:
    """Write the symbols by context, each at the next place of its context."""
    for symbol, c in zip(symbols, contexts):  # noqa: B905
        index[place[c]] = symbol
        place[c] += 1


@njit(cache=True)
def _unsort(index: np.ndarray, contexts: np.ndarray, place: np.ndarray, symbols: np.ndarray) -> None:
    """Inverse of :func:`_sort`."""
    for i in range(len(contexts)):
        symbols[i] = index[place[contexts[i]]]
        place[contexts[i]] += 1
