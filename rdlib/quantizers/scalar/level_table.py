"""One table of levels for the whole tensor: what a weight becomes depends on its value alone."""

from abc import abstractmethod
from collections.abc import Callable

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.histogram import Histogram
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.granularity import Granularity, PerTensor
from rdlib.weights import as_float32

FLOAT32 = np.finfo(np.float32)
Index = Callable[[np.ndarray], Stream]  # values → the stream of their symbols, of the same shape


class LevelTable(Quantizer):
    """A scalar quantizer that is designed on the histogram and gives equal weights equal symbols.

    The code of a tensor therefore follows from the code of its K distinct values, a matrix (1, K), and from how
    often each value occurs: a few thousand numbers stand for millions.
    """

    granularity: Granularity = PerTensor()

    @abstractmethod
    def design(self, histogram: Histogram) -> tuple[dict[str, Stream], Index]:
        """Side information for weights of this histogram, and what writes the ``index`` of any of them."""

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        return code_of(values, *self.design(Histogram.of(W)))

    def encode_values(self, histogram: Histogram) -> Code:
        """The code of the distinct values, shape (1, K), with the side information of the whole tensor.

        Raises:
            ValueError: scales differ within the tensor, so that its histogram does not determine its code.
        """
        if not has_level_table(self):
            raise ValueError(f"{self.method} depends on where each weight is: encode the matrix.")
        return code_of(histogram.values[None], *self.design(histogram))


def has_level_table(quantizer: Quantizer) -> bool:
    """Whether one table of levels serves the whole tensor, so that its histogram determines its code."""
    return isinstance(quantizer, LevelTable) and isinstance(quantizer.granularity, PerTensor)


def code_of(values: np.ndarray, side: dict[str, Stream], index: Index) -> Code:
    """The code of values, (out, in), from what :meth:`LevelTable.design` returns."""
    return Code(values.shape, side | {"index": index(values)})


def level_streams(levels: np.ndarray, histogram: Histogram) -> dict[str, Stream]:
    """Levels t as float16 numbers (t − m) / s, with the mean m of the weights and the largest s = |w − m|.

    float16 is finest near zero, and that is where most weights are once their mean is taken away.

    Args:
        levels: float64, any shape.
        histogram: of the weights.

    Returns:
        the streams ``levels`` and ``scale`` (s and m, float32).
    """
    mean = np.float32(histogram.mean)
    reach = np.abs(histogram.values - np.float64(mean)).max(initial=0)
    scale = np.float32(min(reach, FLOAT32.max))
    unit = Stream.floats((levels - np.float64(mean)) / np.float64(scale or 1))
    return {"levels": unit, "scale": Stream.floats([scale, mean], "float32")}


def levels_of(levels: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The levels, float32, from the arrays of :func:`level_streams`."""
    s, mean = scale.astype(np.float64)
    return np.clip(mean + s * levels.astype(np.float64), FLOAT32.min, FLOAT32.max).astype(np.float32)
