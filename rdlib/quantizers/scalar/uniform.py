"""Uniform scalar quantizers: symmetric with and without a level at zero, and asymmetric.

All share one form.  A group of weights spans a range; the levels are evenly spaced and both ends of the range
are levels; a weight is written as the index of the nearest level.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.histogram import Histogram
from rdlib.quantizers.clipping import Clipping, MinMax
from rdlib.quantizers.granularity import Granularity, PerTensor
from rdlib.quantizers.scalar.kernels import (
    asymmetric_indices,
    asymmetric_weights,
    fit_ranges,
    symmetric_indices,
)
from rdlib.quantizers.scalar.level_table import Index, LevelTable, code_of, has_level_table
from rdlib.weights import as_float32


@dataclass(frozen=True)
class _Uniform(LevelTable):
    """Evenly spaced levels over the range of each group.

    Args:
        bits: nominal rate.
        granularity: how many weights share a scale.
        clipping: how the range follows from the weights of a group.
    """

    bits: int
    granularity: Granularity = PerTensor()
    clipping: Clipping = MinMax()
    family: ClassVar[str]

    @property
    def method(self) -> str:
        return " ".join(filter(None, [self.family, self.clipping.label, self.granularity.label]))

    @property
    def levels(self) -> int:
        """How many levels a group has."""
        return 1 << self.bits

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        if has_level_table(self):
            return super().quantize(W, H)
        values = as_float32(W)
        return code_of(values, *self._fitted(values, np.ones(values.shape[1])))

    def design(self, histogram: Histogram) -> tuple[dict[str, Stream], Index]:
        return self._fitted(histogram.values[None], histogram.counts.astype(np.float64))

    @abstractmethod
    def _fitted(self, rows: np.ndarray, counts: np.ndarray) -> tuple[dict[str, Stream], Index]:
        """As :meth:`design`, of rows (rows, columns) in which each column counts so often."""

    def _ranges(self, rows: np.ndarray, counts: np.ndarray, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest level of each group before rounding, each (rows, groups)."""
        return fit_ranges(rows, counts, self._width(rows), self.levels, symmetric, *self.clipping.search)

    def _width(self, rows: np.ndarray) -> int:
        return max(self.granularity.width(rows.shape[1]), 1)


@dataclass(frozen=True)
class Uniform(_Uniform):
    """ŵ = s·(2q/(2^b − 1) − 1), q = 0 … 2^b − 1: symmetric *mid-rise* levels, none of them zero.

    Streams: ``index`` (b bits), ``scale`` (s, the highest level of the group).
    """

    family: ClassVar[str] = "uniform"

    def _fitted(self, rows: np.ndarray, counts: np.ndarray) -> tuple[dict[str, Stream], Index]:
        high = self._ranges(rows, counts, symmetric=True)[1]
        scale = Stream.floats(high, self.granularity.scale_format)

        def index(values: np.ndarray) -> Stream:
            scales = _of_rows(scale, values)
            return Stream.fixed(
                symmetric_indices(values, scales, self._width(values), self.levels), self.levels
            )

        return {"scale": scale}, index

    def reconstruct(self, code: Code) -> np.ndarray:
        index = code["index"]
        unit = np.linspace(-1, 1, code.streams["index"].format.size, dtype=np.float32)
        return self.granularity.expand(code["scale"], code.shape) * unit[index]


@dataclass(frozen=True)
class UniformMidTread(Uniform):
    """ŵ = s·q/(2^(b−1) − 1), |q| < 2^(b−1): symmetric levels with one at zero, 2^b − 1 of them.

    The usual "signed integer" quantizer.  It is charged log₂(2^b − 1) bits, and needs b ≥ 2.
    """

    family: ClassVar[str] = "mid-tread"
    bits_allowed: ClassVar[range] = range(2, 17)

    @property
    def levels(self) -> int:
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class UniformAsymmetric(_Uniform):
    """ŵ = s·(q − z)/(2^b − 1): levels over [min, max] with an integer zero point z, as GPTQ and AWQ store them.

    The range is widened to include zero, which is then a level.  Streams: ``index`` (b bits), ``scale``
    (s = max − min), ``zero`` (z, b bits).
    """

    family: ClassVar[str] = "asymmetric"

    def _fitted(self, rows: np.ndarray, counts: np.ndarray) -> tuple[dict[str, Stream], Index]:
        last = self.levels - 1
        low, high = self._ranges(rows, counts, symmetric=False)
        scale = Stream.floats(high - low, self.granularity.scale_format)
        span = np.where(scale.array == 0, 1, scale.array).astype(np.float64)
        zero = Stream.fixed(np.clip(np.rint(-low * last / span), 0, last), self.levels)

        def index(values: np.ndarray) -> Stream:
            scales, zeros = (_of_rows(stream, values) for stream in (scale, zero))
            q = asymmetric_indices(values, scales, zeros, self._width(values), self.levels)
            return Stream.fixed(q, self.levels)

        return {"scale": scale, "zero": zero}, index

    def reconstruct(self, code: Code) -> np.ndarray:
        scales, zeros = (self.granularity.of_rows(code[name], code.shape) for name in ("scale", "zero"))
        width, last = self._width(index := code["index"]), max(code.streams["index"].format.size - 1, 1)
        if index.shape != code.shape:
            raise ValueError(f"Indices of shape {index.shape} are not those of W {code.shape}.")
        return asymmetric_weights(index.astype(np.float32), scales, zeros, width, np.float32(last))


def _of_rows(stream: Stream, values: np.ndarray) -> np.ndarray:
    """What is sent of each group, float32 (out, groups), also if all rows share one."""
    array = stream.array.astype(np.float32)
    return np.broadcast_to(array, (len(values), array.shape[1])).copy()  # one layout, compiled once
