"""Uniform scalar quantizers: symmetric with and without a level at zero, and asymmetric.

All share one form.  A group of weights spans a range; the levels are evenly spaced and both ends of the range
are levels; a weight is written as the index of the nearest level.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.histogram import Histogram
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.clipping import Clipping, MinMax
from rdlib.quantizers.granularity import Granularity, PerTensor
from rdlib.quantizers.scalar.kernels import asymmetric_indices, fit_ranges, symmetric_indices
from rdlib.weights import as_float32


@dataclass(frozen=True)
class _Uniform(Quantizer):
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

    def _ranges(self, W: np.ndarray, values: np.ndarray, symmetric: bool) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest level of each group before rounding, each (out or 1, groups)."""
        if isinstance(self.granularity, PerTensor):  # the histogram is the tensor
            histogram = Histogram.of(W)
            rows, counts = histogram.values[None, :], histogram.counts.astype(np.float64)
        else:
            rows, counts = values, np.ones(values.shape[1])
        width = max(self.granularity.width(rows.shape[1]), 1)
        return fit_ranges(rows, counts, width, self.levels, symmetric, *self.clipping.search)


@dataclass(frozen=True)
class Uniform(_Uniform):
    """ŵ = s·(2q/(2^b − 1) − 1), q = 0 … 2^b − 1: symmetric *mid-rise* levels, none of them zero.

    Streams: ``index`` (b bits), ``scale`` (s, the highest level of the group).
    """

    family: ClassVar[str] = "uniform"

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        values = as_float32(W)
        scale = Stream.floats(self._ranges(W, values, symmetric=True)[1], self.granularity.scale_format)
        scales = np.broadcast_to(scale.array.astype(np.float32), (len(values), scale.array.shape[1]))
        width = max(self.granularity.width(values.shape[1]), 1)
        index = symmetric_indices(values, scales, width, self.levels)
        return Code(values.shape, {"index": Stream.fixed(index, self.levels), "scale": scale})

    def reconstruct(self, code: Code) -> np.ndarray:
        levels = code.streams["index"].format.size if "index" in code.streams else 0
        unit = np.linspace(-1, 1, levels, dtype=np.float32)
        return self.granularity.expand(code["scale"], code.shape) * unit[code["index"]]


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

    The range is widened to hold zero, which is then a level.  Streams: ``index`` (b bits), ``scale``
    (s = max − min), ``zero`` (z, b bits).
    """

    family: ClassVar[str] = "asymmetric"

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        values = as_float32(W)
        low, high = self._ranges(W, values, symmetric=False)
        scale = Stream.floats(high - low, self.granularity.scale_format)
        span = np.where(scale.array == 0, 1, scale.array).astype(np.float64)
        zero = Stream.fixed(
            np.clip(np.rint(-low * (self.levels - 1) / span), 0, self.levels - 1), self.levels
        )
        scales, zeros = (
            np.broadcast_to(s.array.astype(np.float32), (len(values), s.array.shape[1]))
            for s in (scale, zero)
        )
        width = max(self.granularity.width(values.shape[1]), 1)
        index = asymmetric_indices(values, scales, zeros, width, self.levels)
        streams = {"index": Stream.fixed(index, self.levels), "scale": scale, "zero": zero}
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        steps = code["index"].astype(np.float32) - self.granularity.expand(code["zero"], code.shape)
        last = np.float32(max(code.streams["index"].format.size - 1, 1))
        return self.granularity.expand(code["scale"], code.shape) * (steps / last)
