"""One table of levels for the whole tensor: what a weight becomes depends on its value alone."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.histogram import Histogram
from rdlib.quantizers.base import Quantizer, far_mean, with_mean
from rdlib.quantizers.granularity import Granularity, PerTensor
from rdlib.weights import as_float32

FLOAT32 = np.finfo(np.float32)
Index = Callable[[np.ndarray], Stream]  # values → the stream of their symbols, of the same shape


class LevelTable(Quantizer):
    """A scalar quantizer that is designed on the histogram and gives equal weights equal symbols.

    The code of a tensor therefore follows from the code of its K distinct values, a matrix (1, K), and from how
    often each value occurs: a few thousand numbers instead of millions.
    """

    granularity: Granularity = PerTensor()

    @abstractmethod
    def design(self, histogram: Histogram) -> tuple[dict[str, Stream], Index]:
        """Side information for weights of this histogram, and what writes the ``index`` of any of them."""

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        histogram = Histogram.of(W)
        side, index = self.design(histogram)
        if W.dtype.itemsize == 2:
            return Code(W.shape, side | {"index": _looked_up(W, histogram.values, index)})
        return code_of(as_float32(W), side, index)

    def encode_values(self, histogram: Histogram) -> Code:
        """The code of the distinct values, shape (1, K), with the side information of the whole tensor.

        Raises:
            ValueError: scales differ within the tensor, so that its histogram does not determine its code.
        """
        if not has_level_table(self):
            raise ValueError(f"{self.method} depends on where each weight is: encode the matrix.")
        mean = far_mean(histogram.mean, histogram.power) if self.centred else np.float32(0)
        values = histogram.values - mean
        joined, place = np.unique(values, return_inverse=True)
        counts = np.bincount(place, histogram.counts, len(joined)).astype(np.int64)
        return with_mean(code_of(values[None], *self.design(Histogram(joined, counts))), mean)


def has_level_table(quantizer: Quantizer) -> bool:
    """Whether one table of levels serves the whole tensor, so that its histogram determines its code."""
    return isinstance(quantizer, LevelTable) and isinstance(quantizer.granularity, PerTensor)


def code_of(values: np.ndarray, side: dict[str, Stream], index: Index) -> Code:
    """The code of values, (out, in), from what :meth:`LevelTable.design` returns."""
    return Code(values.shape, side | {"index": index(values)})


def level_streams(levels: np.ndarray, histogram: Histogram) -> dict[str, Stream]:
    """Levels as float16 numbers t in units of the largest weight s.

    Args:
        levels: float64, any shape.
        histogram: of the weights.

    Returns:
        the streams ``levels`` (t) and ``scale`` (s, float32).
    """
    scale = np.float32(histogram.largest)
    unit = Stream.floats(levels / np.float64(scale or 1))
    return {"levels": unit, "scale": Stream.floats([scale], "float32")}


def levels_of(levels: np.ndarray, scale: np.float32) -> np.ndarray:
    """s·t, float32, from what :func:`level_streams` wrote."""
    wide = np.float64(scale) * levels.astype(np.float64)
    return np.clip(wide, FLOAT32.min, FLOAT32.max).astype(np.float32)


def _looked_up(W: np.ndarray, values: np.ndarray, index: Index) -> Stream:
    """The index of 16-bit weights by their bit patterns, from that of their distinct values, float32 (K,)."""
    stream = index(values[None])
    table = np.zeros(1 << 16, stream.array.dtype)
    table[(values + 0).astype(W.dtype).view(np.uint16)] = stream.array[0]  # −0 + 0 is +0
    table[np.array(-0.0, W.dtype).view(np.uint16)] = table[0]
    return replace(stream, array=table[np.ascontiguousarray(W).view(np.uint16)])
