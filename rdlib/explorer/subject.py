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
from rdlib.measure import Point, gap, measure_code, measure_values, output_error, table
from rdlib.quantizers import LatticeCoded, Quantizer
from rdlib.quantizers.scalar.level_table import has_level_table
from rdlib.theory.blahut import blahut_arimoto
from rdlib.theory.entropy import differential_entropy, shannon_distortion, shannon_rate
from rdlib.theory.gaussian import gaussian_distortion, gaussian_rate
from rdlib.theory.rate_distortion import RateDistortion
from rdlib.weights import as_float32

GAUSSIAN, EXACT, SHANNON = "Gaussian R(D)", "R(D) of these weights", "Shannon lower bound"
UNITS = {  # of what is read of a state
    "total rate": "bits per weight",
    "side information": "bits per weight",
    "entropy of the index": "bits per weight",
    "levels in use": "",
    "distortion D": "",
    "D/σ²": "dB",
    "SQNR": "dB",
    "largest error": "% of the largest weight",
    **dict.fromkeys((f"gap to {name}" for name in (GAUSSIAN, EXACT, SHANNON)), "bits"),
    "output error": "dB below the output",
}
RATES = range(1, 9)  # nominal rates of a curve, bits per weight
SAMPLE = 1 << 16  # weights of a large matrix from which a state is guessed that is not at hand
CERTIFICATES = 0.01  # how far apart, in bits, the two sides of R(D) of these weights may be


@dataclass(frozen=True, eq=False)
class Measured:
    """What a quantizer does to a matrix.

    Args:
        point: rate and distortion.
        levels: what it decodes to, rising; where scales differ, for a group of the median scale; none of a code of
            several weights together.
        rates: bits per weight of each stream of the file, and of its header.
    """

    point: Point
    levels: np.ndarray
    rates: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """A weight matrix with its histogram, its bounds, and what was measured on it.

    Args:
        label: name in titles, like 1.down.
        W: (out, in), float16, bfloat16 or float32; it must not change.
        H: E[x xᵀ] of the inputs, (in, in), where the error of the outputs is to be read too.
        python: an expression whose value W is.

    Raises:
        ValueError: ``W`` is no weight matrix, holds NaN or Inf, or its weights are all equal.
    """

    label: str
    W: np.ndarray
    H: np.ndarray | None = None
    python: str = "W"
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
        if has_level_table(quantizer) and self.H is None:
            with one_thread():
                code = quantizer.encode_values(self.histogram)
            point = measure_values(self.histogram, self.W.shape, quantizer, code)
            rates = {name: s.bits / self.W.size for name, s in code.streams.items() if name != "index"}
            rates |= {"header": point.side_rate - sum(rates.values()), "index": point.rate - point.side_rate}
        else:
            code = quantizer.encode(self.W)
            point, rates = measure_code(self.W, quantizer, code, self.H), code.rates
        return Measured(point, levels_of(quantizer, code), rates)

    @cached_property
    def sample(self) -> "Subject":
        """Evenly spaced rows of a large matrix; a small one is its own."""
        rows = max(SAMPLE // self.W.shape[1], 1)
        if self.W.size <= 4 * SAMPLE or rows >= len(self.W):
            return self
        chosen = np.linspace(0, len(self.W) - 1, rows).astype(int)
        return Subject(self.label, self.W[chosen], self.H)

    def at_hand(self, quantizer: Quantizer) -> bool:
        """Whether :meth:`read` answers at once: from memory, from the histogram, or because the matrix is small."""
        instant = has_level_table(quantizer) and self.H is None
        return quantizer in self._measured or instant or self.sample is self

    def glance(self, quantizer: Quantizer) -> Measured:
        """:meth:`read` where it answers at once, and else that of the sample."""
        return (self if self.at_hand(quantizer) else self.sample).read(quantizer)

    def curve(
        self, quantizer: Quantizer, read: Callable[[Quantizer], Measured] | None = None
    ) -> pd.DataFrame:
        """One row a point, at each nominal rate from 1 to 8 bits that the method has."""
        rates = (b for b in RATES if b in quantizer.bits_allowed)
        return table((read or self.read)(quantizer.at(b)).point for b in rates)

    def prepare(self, quantizers: Iterable[Quantizer]) -> None:
        """Measure the curves of those that follow from the histogram, so that no slider waits for them."""
        for quantizer in filter(has_level_table, quantizers):
            self.curve(quantizer)

    def numbers(self, quantizer: Quantizer) -> dict[str, str]:
        """The numbers of one state at a glance, by the names in :data:`UNITS`, as they are shown."""
        point = self.glance(quantizer).point
        gaps = {
            f"gap to {name}": f"{bits:.3f}" if bits == bits else "–"
            for name, bits in self.gaps(point).items()
        }
        shown = {
            "total rate": f"{point.rate:.3f}",
            "side information": f"{point.side_rate:.3f}",
            "entropy of the index": f"{point.index_entropy:.3f}",
            "levels in use": f"{point.symbols}",
            "distortion D": f"{point.mse:.2e}",
            "D/σ²": f"{10 * np.log10(point.nmse):.2f}" if point.nmse else "none: every weight is exact",
            "SQNR": f"{point.sqnr_db:.2f}",
            "largest error": f"{100 * point.rel_max_error:.1f}",
            **gaps,
        }
        if self.H is not None:
            shown["output error"] = f"{10 * np.log10(max(point.output_mse, 1e-99) / self.output_power):.2f}"
        return shown

    def readout(self, quantizer: Quantizer) -> dict[str, str]:
        """The numbers of one state with their units."""
        return {name: with_unit(name, number) for name, number in self.numbers(quantizer).items()}

    @cached_property
    def output_power(self) -> float:
        """tr(W H Wᵀ) / out: the mean square of a layer's output."""
        return output_error(as_float32(self.W).astype(np.float64), self.H)


def with_unit(name: str, number: str) -> str:
    """A number with the unit that :data:`UNITS` gives it; what is no number has none."""
    return f"{number} {UNITS[name]}".rstrip() if number[-1].isdigit() or number == "inf" else number


def levels_of(quantizer: Quantizer, code: Code) -> np.ndarray:
    """All that an index can decode to, rising, float64; with several scales, for the median one.

    A level that an entropy coder has no code word for is not among them.  A code of several weights together has none.
    """
    if isinstance(quantizer, LatticeCoded) or {"coset", "path"} & code.streams.keys():
        return np.empty(0)
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
