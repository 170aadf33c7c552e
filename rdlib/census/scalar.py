"""Per-tensor scalar quantizers from the histogram alone: the tensor is not touched again.

Such a quantizer sends equal weights to equal levels.  Its code of the *distinct* values, one each, together
with how often each occurs, therefore says all about its code of the tensor: D = E[(w − ŵ)²] is a sum over
distinct values, and the price of the index follows from how often each symbol occurs.
"""

from functools import singledispatch

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.code.header import Entry, prices
from rdlib.histogram import Histogram, lloyd_max_curve
from rdlib.quantizers import (
    EcsqCentroid,
    LeastSquares,
    LloydMax,
    Quantizer,
    Sigmas,
    Uniform,
    UniformAsymmetric,
)
from rdlib.quantizers.scalar.entropy import cells_of, step_of_entropy
from rdlib.quantizers.scalar.kernels import asymmetric_indices, fit_ranges, symmetric_indices
from rdlib.quantizers.scalar.lloyd_max import nearest_level

METHODS: tuple[Quantizer, ...] = (
    Uniform(4),
    UniformAsymmetric(4),
    Uniform(4, clipping=Sigmas(3)),
    Uniform(4, clipping=LeastSquares()),
    LloydMax(4),
    EcsqCentroid(4),
)


def scalar_points(histogram: Histogram, shape: tuple[int, int], bits: range = range(1, 9)) -> list[dict]:
    """Method, bits, rate, side_rate and mse of every scalar quantizer in ``METHODS`` at every rate, for W of a shape.

    Rates and distortions are those of :func:`rdlib.measure.measure`, but for entropy-coded indices: their
    price is −Σ n·log₂ p under the table that is sent, which a real coder passes by a word or two.
    """
    optimum = lloyd_max_curve(histogram, [1 << b for b in bits])
    points = []
    for quantizer in (method.at(b) for method in METHODS for b in bits):
        if isinstance(quantizer, LloydMax):
            code = lloyd_max_code(histogram, optimum[1 << quantizer.bits])
        else:
            code = code_of_values(quantizer, histogram)
        points.append(point(quantizer, histogram, code, shape))
    return points


def point(quantizer: Quantizer, histogram: Histogram, code: Code, shape: tuple[int, int]) -> dict:
    """One row: the price of the code, were each distinct value written as often as it occurs, and its error."""
    error = histogram.values.astype(np.float64) - quantizer.decode(code)[0]
    form = code.streams["index"].format
    index = form.bits_of_counts(np.bincount(code["index"][0], histogram.counts, form.size))
    entries = {name: stream.entry for name, stream in code.streams.items()}
    bits = sum(prices(shape, entries | {"index": Entry(form, shape, index)}).values())
    weights = histogram.size or np.inf  # no weights have no rate
    return {
        "method": quantizer.method,
        "bits": quantizer.bits,
        "rate": bits / weights,
        "side_rate": (bits - index) / weights,
        "mse": histogram.mean_of(error**2),
    }


@singledispatch
def code_of_values(quantizer: Quantizer, histogram: Histogram) -> Code:
    """The quantizer's code of a tensor with this histogram, the index that of each distinct value, (1, K).

    Raises:
        TypeError: the quantizer is none whose code follows from the histogram.
    """
    raise TypeError(f"The code of {quantizer.method} does not follow from a histogram.")


@code_of_values.register
def _(quantizer: Uniform, histogram: Histogram) -> Code:
    rows, high = histogram.values[None], _range(quantizer, histogram, symmetric=True)[1]
    scale = Stream.floats(high, quantizer.granularity.scale_format)
    index = symmetric_indices(rows, scale.array, max(rows.shape[1], 1), quantizer.levels)
    return Code(rows.shape, {"index": Stream.fixed(index, quantizer.levels), "scale": scale})


@code_of_values.register
def _(quantizer: UniformAsymmetric, histogram: Histogram) -> Code:
    rows, last = histogram.values[None], quantizer.levels - 1
    low, high = _range(quantizer, histogram, symmetric=False)
    scale = Stream.floats(high - low, quantizer.granularity.scale_format)
    span = np.where(scale.array == 0, 1, scale.array).astype(np.float64)
    zero = Stream.fixed(np.clip(np.rint(-low * last / span), 0, last), quantizer.levels)
    zeros = zero.array.astype(np.float32)
    index = asymmetric_indices(rows, scale.array, zeros, max(rows.shape[1], 1), quantizer.levels)
    return Code(rows.shape, {"index": Stream.fixed(index, quantizer.levels), "scale": scale, "zero": zero})


def _range(
    quantizer: Uniform | UniformAsymmetric, histogram: Histogram, symmetric: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest level, each (1, 1)."""
    rows, counts = histogram.values[None], histogram.counts.astype(np.float64)
    search = quantizer.clipping.search
    return fit_ranges(rows, counts, max(rows.shape[1], 1), quantizer.levels, symmetric, *search)


@code_of_values.register
def _(quantizer: EcsqCentroid, histogram: Histogram) -> Code:
    step = np.float32(step_of_entropy(histogram, quantizer.bits))
    cells = cells_of(histogram.values, step)
    first = int(cells[0]) if len(cells) else 0
    index = cells - first
    size = int(index[-1]) + 1 if len(index) else 1
    table = _table(np.bincount(index, histogram.counts, size))
    streams = {
        "table": table,
        "index": Stream.coded(index[None], table),
        "step": Stream.floats(np.array([step]), "float32"),
        "first": Stream.floats(np.array([first]), "float32"),
    }
    offsets = quantizer._offsets(histogram, index, first, step)
    return Code((1, len(index)), streams | offsets)


def _table(counts: np.ndarray) -> Stream:
    """:func:`rdlib.code.code.frequency_table` of symbols that occur so often."""
    with np.errstate(divide="ignore"):
        octaves = -np.log2(counts / max(counts.sum(), 1))
    steps = np.where(counts > 0, np.minimum(np.rint(16 * octaves), 254), 255)
    return Stream.fixed(steps.astype(np.uint8), 256)


def lloyd_max_code(histogram: Histogram, levels: np.ndarray) -> Code:
    """The code of each distinct value with the optimal levels, as :class:`rdlib.quantizers.LloydMax` writes it."""
    scale = np.float32(histogram.largest)
    rounded = Stream.floats(levels / (scale or 1))
    index = nearest_level(histogram.values, scale * rounded.array.astype(np.float32))
    streams = {
        "index": Stream.fixed(index[None], max(len(levels), 1)),
        "levels": rounded,
        "scale": Stream.floats([scale], "float32"),
    }
    return Code((1, len(index)), streams)
