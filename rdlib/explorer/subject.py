"""The matrix on display, and everything that the sliders do not change: its histogram and its bounds."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from numba import get_num_threads, set_num_threads

from rdlib.code.code import Code, Stream
from rdlib.histogram import Histogram
from rdlib.measure import Point, gap, measure_code, measure_values, table
from rdlib.quantizers import Quantizer
from rdlib.quantizers.scalar.level_table import has_level_table
from rdlib.theory.blahut import blahut_arimoto
from rdlib.theory.entropy import differential_entropy, shannon_distortion, shannon_rate
from rdlib.theory.gaussian import gaussian_distortion, gaussian_rate
from rdlib.theory.rate_distortion import RateDistortion

GAUSSIAN, EXACT, SHANNON = "Gaussian R(D)", "R(D) of these weights", "Shannon lower bound"
RATES = range(1, 9)  # nominal rates of a curve, bits per weight
CERTIFICATES = 0.01  # how far apart, in bits, the two sides of R(D) of these weights may be


@dataclass(frozen=True, eq=False)
class Measured:
    """What a quantizer does to a matrix.

    Args:
        point: rate and distortion.
        levels: what it decodes to, rising; where scales differ, for a group of the median scale.
    """

    point: Point
    levels: np.ndarray


@dataclass(frozen=True, eq=False)
class Subject:
    """A weight matrix with its histogram, its bounds, and what was measured on it.

    Args:
        label: name in titles, like 1.down.
        W: (out, in), float16, bfloat16 or float32; it must not change.

    Raises:
        ValueError: ``W`` is no weight matrix, holds NaN or Inf, or its weights are all equal.
    """

    label: str
    W: np.ndarray
    _measured: dict[Quantizer, Measured] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.histogram.variance:
            raise ValueError(f"All weights of {self.label} are equal: there is nothing to explore.")

    @cached_property
    def histogram(self) -> Histogram:
        """The exact histogram."""
        return Histogram.of(self.W)

    @cached_property
    def entropy(self) -> float:
        """Differential entropy h of the weights, bits."""
        return differential_entropy(self.histogram.values, self.histogram.counts)

    @cached_property
    def limit(self) -> RateDistortion:
        """R(D) of the histogram, between two certificates."""
        return blahut_arimoto(self.histogram.values, self.histogram.counts, RATES[-1] + 1, CERTIFICATES)

    @cached_property
    def bounds(self) -> Mapping[str, Callable[[np.ndarray], np.ndarray]]:
        """Name → D/σ² at a rate, of each bound."""
        variance = self.histogram.variance
        return {
            GAUSSIAN: gaussian_distortion,
            EXACT: lambda rate: self.limit.distortion_lower(rate) / variance,
            SHANNON: lambda rate: shannon_distortion(rate, self.entropy) / variance,
        }

    def gaps(self, point: Point) -> dict[str, float]:
        """R − R(D) in bits at the distortion of a point, for each bound; see :func:`rdlib.measure.gap`."""
        rates = {
            GAUSSIAN: lambda D: gaussian_rate(D, self.histogram.variance),
            EXACT: self.limit.rate_lower,
            SHANNON: lambda D: shannon_rate(D, self.entropy),
        }
        return {name: gap(point.rate, point.mse, rate) for name, rate in rates.items()}

    def read(self, quantizer: Quantizer) -> Measured:
        """Point and levels of a quantizer, remembered; from the histogram alone where that determines the code."""
        if quantizer not in self._measured:
            self._measured[quantizer] = self._read(quantizer)
        return self._measured[quantizer]

    def _read(self, quantizer: Quantizer) -> Measured:
        if has_level_table(quantizer):
            with one_thread():
                code = quantizer.encode_values(self.histogram)
            point = measure_values(self.histogram, self.W.shape, quantizer, code)
        else:
            code = quantizer.encode(self.W)
            point = measure_code(self.W, quantizer, code)
        return Measured(point, levels_of(quantizer, code))

    def curve(self, quantizer: Quantizer) -> pd.DataFrame:
        """One row a point, at each nominal rate from 1 to 8 bits that the method has."""
        return table(self.read(quantizer.at(b)).point for b in RATES if b in quantizer.bits_allowed)

    def prepare(self, quantizers: Iterable[Quantizer]) -> None:
        """Measure the curves of those that follow from the histogram, so that no slider waits for them."""
        for quantizer in filter(has_level_table, quantizers):
            self.curve(quantizer)

    def readout(self, quantizer: Quantizer) -> dict[str, str]:
        """The numbers of one state as they are shown, with their units."""
        point = self.read(quantizer).point
        return {
            "total rate": f"{point.rate:.3f} bits per weight",
            "side information": f"{point.side_rate:.3f} bits per weight",
            "entropy of the index": f"{point.index_entropy:.3f} bits per weight",
            "levels in use": f"{point.symbols}",
            "distortion D": f"{point.mse:.2e}",
            "D/σ²": f"{10 * np.log10(point.nmse):.2f} dB" if point.nmse else "none: every weight is exact",
            "SQNR": f"{point.sqnr_db:.2f} dB",
            "largest error": f"{100 * point.rel_max_error:.1f} % of the largest weight",
            **{f"gap to {name}": f"{bits:.3f} bits" for name, bits in self.gaps(point).items()},
        }


def levels_of(quantizer: Quantizer, code: Code) -> np.ndarray:
    """All that an index can decode to, rising, float64; with several scales, for the median one.

    A level that an entropy coder has no code word for is not among them.
    """
    index, table = code.streams["index"].format, code.streams.get("table")
    symbols = np.arange(index.size) if table is None else np.flatnonzero(table.array != 255)
    if has_level_table(quantizer):
        return np.unique(_decoded(quantizer, code, symbols[None]).astype(np.float64))
    scales = code["scale"]
    middle = np.median(scales.astype(np.float64)).astype(scales.dtype).reshape((1,) * scales.ndim)
    one = Code((1, 1), dict(code.streams) | {"scale": Stream(middle, code.streams["scale"].format)})
    return np.unique([_decoded(quantizer, one, np.array([[k]])).item() for k in symbols])


@contextmanager
def one_thread() -> Iterator[None]:
    """Run kernels on this thread alone: for a few thousand values, waking another costs more than it saves."""
    before = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)


def _decoded(quantizer: Quantizer, code: Code, index: np.ndarray) -> np.ndarray:
    """Ŵ of another index, under the same side information."""
    stream = Stream(index.astype(code["index"].dtype), code.streams["index"].format)
    return quantizer.decode(Code(index.shape, dict(code.streams) | {"index": stream}))
