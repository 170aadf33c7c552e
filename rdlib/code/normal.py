"""Rounded Gaussians as the model of an entropy coder: an index of scales instead of tables."""

from collections.abc import Mapping

import numpy as np
from scipy.special import ndtr

from rdlib.code.ans import ABSENT, Ans

OCTAVE = 8  # scales are multiples of 2^(1/8): that costs 0.001 bit an index
NARROWEST = -3 * OCTAVE  # scale of the context 0
RAREST = 16 * 24  # −16·log₂ of a probability: what the coder has left for any symbol
FLOOR = 2.0**-24
LOG2E = float(np.log2(np.e))
WIDEST = 1 << 18  # symbols
MOST = 1 << 25  # entries of all tables together


def normal_table(first: int, counts: np.ndarray, width: int) -> np.ndarray:
    """−16·log₂ of the probability of z = width·m + (c mod width), m = first … −first, in every context c.

    s = 2^(⌊c / width⌋ / 8 − 3).  A rounded weight has P(z) = P(z − ½ < s·N(0, 1) < z + ½).  A path through a trellis
    chooses among all integers of one remainder mod 2 and does not go to the nearest: P(z) ∝ exp(−z² / 2s²).

    Args:
        first: the lowest symbol m, ≤ 0.
        counts: how often each context c occurs; what never does gets a row of zeros.
        width: 1, or 2 for a trellis.

    Returns:
        int16 (contexts, symbols).

    Raises:
        ValueError: the table would not fit into memory.
    """
    size = 1 - 2 * first
    if not 0 < size <= WIDEST or len(counts) * size > MOST:
        raise ValueError(f"{len(counts)} scales of {size} symbols are more than any encoder uses.")
    table = np.zeros((len(counts), size), np.int16)
    for c in np.flatnonzero(counts):
        x = np.abs(width * np.arange(first, 1 - first) + c % width) * 2.0 ** -(
            (c // width + NARROWEST) / OCTAVE
        )
        half = 2.0 ** -((c + NARROWEST) / OCTAVE) / 2
        octaves = (
            -np.log2(np.maximum(ndtr(half - x) - ndtr(-half - x), FLOOR)) if width == 1 else x**2 * LOG2E / 2
        )
        octaves += np.log2(np.exp2(-octaves).sum())
        table[c] = np.rint(np.minimum(16 * octaves, RAREST))
    table[table == ABSENT] -= 1  # this number says in tables of bytes that a symbol does not occur
    return table


def scales_of(streams: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The scales of rows (out,) and columns (in,), int64 ≥ 0, whose sum is the context of a weight's index.

    Args:
        streams: ``row_deviation``, ``deviation`` and the sum of their ``offset`` s, in units of the least spacing;
            ``spacing``, and ``row_spacing`` where there is one.

    Raises:
        ValueError: the streams do not fit each other.
    """
    rows, columns, spacing, offset = (
        _integers(streams, name) for name in ("row_deviation", "deviation", "spacing", "offset")
    )
    of_rows = _integers(streams, "row_spacing") if "row_spacing" in streams else np.zeros_like(rows)
    if offset.shape != (1,) or spacing.shape != columns.shape or of_rows.shape != rows.shape:
        raise ValueError("Scales are one a row and one a column.")
    rows, columns = rows - of_rows, columns + offset - spacing - NARROWEST
    least = rows.min() if rows.size else 0
    rows, columns = rows - least, columns + least
    if columns.min(initial=0) < 0:
        raise ValueError("A column is narrower than any that is written.")
    return rows, columns


def _integers(streams: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """A stream as int64 (n,).

    Raises:
        ValueError: it is not there, or is no vector, or has a number that none can have.
    """
    if (
        name not in streams
        or streams[name].ndim != 1
        or (np.abs(streams[name].astype(np.float64)) > MOST).any()
    ):
        raise ValueError(f"An index with scales needs a vector {name!r} of integers before it.")
    return streams[name].astype(np.int64)


def normal_model(streams: Mapping[str, np.ndarray]) -> Ans:
    """The model of indices that are sorted by the scales of their rows and columns, and then by their remainder.

    Args:
        streams: those of :func:`scales_of`; ``first``, the lowest symbol; and where cells are two wide ``counts``, of
            the odd indices of every scale.

    Raises:
        ValueError: the streams do not fit each other.
    """
    rows, columns = scales_of(streams)
    first, width = _integers(streams, "first"), 1
    if first.shape != (1,) or first[0] > 0:
        raise ValueError("The lowest symbol is one number, and not above zero.")
    counts = np.convolve(np.bincount(rows, minlength=1), np.bincount(columns, minlength=1))
    if "counts" in streams:
        odd, width = _integers(streams, "counts"), 2
        if odd.shape != counts.shape or (odd > counts).any():
            raise ValueError("There are more odd indices than indices of a scale.")
        counts = np.stack([counts - odd, odd], axis=1).ravel()
    return Ans(normal_table(int(first[0]), counts, width), counts)
