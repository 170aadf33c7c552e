"""Scalar quantizers of a whole tensor, applied to its distinct values only.

A quantizer with one table of levels treats equal weights equally.  So its code of the matrix is known from its
code of the K distinct values, a matrix of shape (1, K), and from how often each value occurs: a few thousand
numbers stand for millions, and nothing is approximated but the last words of an entropy coder's output.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import singledispatch

import numpy as np
from numba import get_num_threads, set_num_threads

from rdlib.code.code import PAYLOAD, Code, Stream
from rdlib.code.header import Entry, prices
from rdlib.histogram import Histogram, entropy_of, lloyd_max
from rdlib.measure import Point, sqnr_db
from rdlib.quantizers import EcsqMidpoint, EcsqOptimal, LloydMax, PerTensor, Quantizer, Uniform
from rdlib.quantizers.scalar.entropy import cells_of, entropy_constrained, step_of_entropy
from rdlib.quantizers.scalar.kernels import fit_ranges, symmetric_indices
from rdlib.quantizers.scalar.lloyd_max import nearest_level


def is_scalar(quantizer: Quantizer) -> bool:
    """Whether the distinct values tell all: one table of levels for the tensor, of a kind that is known here."""
    known = code_of_values.dispatch(type(quantizer)) is not code_of_values.dispatch(object)
    return known and isinstance(getattr(quantizer, "granularity", PerTensor()), PerTensor)


def point_of_values(histogram: Histogram, quantizer: Quantizer, code: Code, shape: tuple[int, int]) -> Point:
    """What :func:`rdlib.measure.measure` finds on the whole matrix, from the code of its distinct values.

    The price of a fixed-rate payload is exact.  That of an entropy-coded one is −Σ n log₂ p of the model that
    the code pays for, up to whole words of 32 bits; the file differs from it by less than 10⁻³ bit per weight.

    Args:
        histogram: of the matrix, at least one weight.
        quantizer: one that :func:`is_scalar` accepts.
        code: from :func:`code_of_values`.
        shape: of the matrix.
    """
    error = histogram.values.astype(np.float64) - quantizer.decode(code)[0]
    form = code.streams["index"].format
    counts = np.bincount(code["index"][0], histogram.counts, form.size)
    mse = histogram.mean_of(error**2)
    index = Entry(form, shape, form.bits_of_counts(counts))
    bits = prices(shape, {name: s.entry for name, s in code.streams.items()} | {"index": index})
    side = sum(n for name, n in bits.items() if name not in PAYLOAD) / histogram.size
    largest = float(np.abs(error).max())
    return Point(
        method=quantizer.method,
        bits=quantizer.bits,
        rate=sum(bits.values()) / histogram.size,
        side_rate=side,
        mse=mse,
        nmse=mse / histogram.variance if histogram.variance else 0.0,
        sqnr_db=sqnr_db(mse, histogram.power),
        max_error=largest,
        rel_max_error=largest / histogram.largest if histogram.largest else 0.0,
        symbols=int((counts > 0).sum()),
        index_entropy=entropy_of(counts),
    )


@singledispatch
def code_of_values(quantizer: Quantizer, histogram: Histogram) -> Code:
    """The code of the distinct values, shape (1, K), with the side information of the whole matrix.

    Raises:
        TypeError: the distinct values do not determine what this quantizer does.
    """
    raise TypeError(f"{quantizer.method} depends on where weights stand: measure it on the matrix.")


@code_of_values.register
def _(quantizer: Uniform, histogram: Histogram) -> Code:
    values, counts = histogram.values[None], histogram.counts.astype(np.float64)
    width = values.shape[1]
    high = fit_ranges(values, counts, width, quantizer.levels, True, *quantizer.clipping.search)[1]
    scale = Stream.floats(high, quantizer.granularity.scale_format)
    index = symmetric_indices(values, scale.array.astype(np.float32), width, quantizer.levels)
    return Code(values.shape, {"index": Stream.fixed(index, quantizer.levels), "scale": scale})


@code_of_values.register
def _(quantizer: LloydMax, histogram: Histogram) -> Code:
    scale = np.float32(histogram.largest)
    levels = Stream.floats(lloyd_max(histogram, 1 << quantizer.bits) / (scale or 1))
    index = nearest_level(histogram.values, scale * levels.array.astype(np.float32))
    streams = {"levels": levels, "scale": Stream.floats(np.array([scale]), "float32")}
    return Code((1, len(index)), {"index": Stream.fixed(index[None], len(levels.array))} | streams)


@code_of_values.register
def _(quantizer: EcsqMidpoint, histogram: Histogram) -> Code:
    step = np.float32(step_of_entropy(histogram, quantizer.bits))
    cells = cells_of(histogram.values, step)
    first = int(cells[0])
    streams = {
        "step": Stream.floats(np.array([step]), "float32"),
        "first": Stream.floats(np.array([first]), "float32"),
    }
    offsets = quantizer._offsets(histogram, cells - first, first, step)
    return _coded(cells - first, histogram, streams | offsets)


@code_of_values.register
def _(quantizer: EcsqOptimal, histogram: Histogram) -> Code:
    levels, thresholds = entropy_constrained(histogram, quantizer.bits)
    scale = np.float32(histogram.largest)
    streams = {
        "levels": Stream.floats(levels / (scale or 1)),
        "scale": Stream.floats(np.array([scale]), "float32"),
    }
    return _coded(np.searchsorted(thresholds, histogram.values), histogram, streams)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let kernels run on this thread alone: of a few thousand values, waking another costs more than it brings."""
    before = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)


def _coded(index: np.ndarray, histogram: Histogram, streams: dict[str, Stream]) -> Code:
    """A code whose index is entropy-coded with the frequencies of the whole matrix, as `frequency_table` has them."""
    counts = np.bincount(index, histogram.counts)
    with np.errstate(divide="ignore"):
        octaves = -np.log2(counts / histogram.size)
    table = Stream.fixed(
        np.where(counts > 0, np.minimum(np.rint(16 * octaves), 254), 255).astype(np.uint8), 256
    )
    return Code((1, len(index)), {"table": table, "index": Stream.coded(index[None], table)} | streams)
