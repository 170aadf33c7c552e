"""E8P, the codebook of QuIP#: 65,536 points near E8 from a table of 256."""

from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar

import numpy as np

from rdlib.quantizers.vector.codebook import Codebook
from rdlib.quantizers.vector.public_codebook import PublicCodebook

# Which of the vectors of five 3/2 and three ½ fill the table up to 256: the places of the ½.
HALVES = """
    123 023 013 012 367 357 347 356 346 345 267 257 247 256 246 245 167 157 147 156 146
    045 067 057 047 056 046 014 237
"""


@dataclass(frozen=True)
class E8P(PublicCodebook):
    """ŵ = s·(±a_q ± ¼): a row of a table of 256 magnitudes, a sign for each coordinate, and a shift of all by ±¼.

    The 2 bits of 8 weights are one ``index`` of 16: 8 bits choose the row; 7 are the signs of the coordinates from
    the second on, with that of the first such that the sum is even; the last is the shift.  The rows are of half
    integers, so that the points before the shift are of D̂8 = D8 + ½, one of the two cosets of D8 in E8.  Streams:
    ``index``, ``scale`` (s, float32).  Runs go along a row, and zeros fill up the last of each: it costs as much as
    a whole one.

    References:
        Tseng, Chee, Sun, Kuleshov and De Sa 2024, QuIP#, arXiv:2402.04396, section 4; the rows that pad the
        table, and the layout of the index, are those of its code.
    """

    bits: int = 2
    bits_allowed: ClassVar[range] = range(2, 3)

    @property
    def method(self) -> str:
        return "E8P"

    @property
    def dimension(self) -> int:
        return 8

    def codebook(self, size: int) -> Codebook:
        if size != 1 << 16:
            raise ValueError(f"E8P has 65536 codewords, but the index is one of {size}.")
        return e8p_codebook()


def magnitudes() -> np.ndarray:
    """The rows a, float64 (256, 8): 227 of D̂8 with Σ a² ≤ 10, in lexicographic order, and 29 with Σ a² = 12."""
    grid = np.array(list(product((0.5, 1.5, 2.5), repeat=8)))
    padding = np.full((len(HALVES.split()), 8), 1.5)
    for row, places in zip(padding, HALVES.split(), strict=True):
        row[[int(place) for place in places]] = 0.5
    return np.concatenate([grid[(grid**2).sum(axis=1) <= 10], padding])


@cache
def e8p_codebook() -> Codebook:
    """The codeword of every index, (65536, 8)."""
    index = np.arange(1 << 16)
    points = magnitudes()[index >> 8]
    points[:, 1:] *= np.where(index[:, None] >> np.arange(7, 0, -1) & 1, -1, 1)
    points[:, 0] *= np.where(points.sum(axis=1) % 2 == 0, 1, -1)
    return Codebook(points + np.where(index & 1, 0.25, -0.25)[:, None])
