"""The Lloyd–Max quantizer: of all tables of 2^b levels, the one of least squared error."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.histogram import Histogram, lloyd_max
from rdlib.quantizers.scalar.level_table import Index, LevelTable, level_streams, levels_of


@dataclass(frozen=True)
class LloydMax(LevelTable):
    """ŵ = s·t_q with the 2^b levels that minimise Σ (w − ŵ)², found exactly.

    Streams: ``index`` (b bits), ``levels`` (t, 2^b float16), ``scale`` (s, the largest weight, float32).  The
    rounding of the levels to float16 is part of the distortion.

    References:
        Lloyd 1982, doi:10.1109/TIT.1982.1056489; Max 1960, doi:10.1109/TIT.1960.1057548.
    """

    bits: int
    bits_allowed: ClassVar[range] = range(1, 9)
    centred: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return "Lloyd–Max tensor"

    def design(self, histogram: Histogram) -> tuple[dict[str, Stream], Index]:
        side = level_streams(lloyd_max(histogram, 1 << self.bits), histogram)
        table = levels_of(side["levels"].array, side["scale"].array[0]).astype(np.float64)
        middles, size = (table[1:] + table[:-1]) / 2, max(len(table), 1)
        return side, lambda values: Stream.fixed(np.searchsorted(middles, values), size)

    def reconstruct(self, code: Code) -> np.ndarray:
        return levels_of(code["levels"], code.number("scale"))[code["index"]]
