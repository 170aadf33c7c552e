"""One measured point: what a quantizer spends on a weight matrix and what error it makes."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from rdlib.code.ans import Ans
from rdlib.code.code import PAYLOAD, Code
from rdlib.code.header import Entry, prices
from rdlib.histogram import Histogram, entropy_of, occurrences
from rdlib.measure.errors import distances, ratio, sqnr_db
from rdlib.quantizers.base import Quantizer


@dataclass(frozen=True)
class Point:
    """A quantizer on a weight matrix, with every bit counted.

    Args:
        method: name of the quantizer, the same at every rate.
        bits: nominal rate.
        rate: total bits per weight.
        side_rate: the part of ``rate`` that is not the payload: scales, zeros, levels, codebooks, tables, header.
        mse: D = mean (w − ŵ)².
        nmse: D/σ², σ² = mean (w − w̄)² the variance of the weights; 0 where both are 0.
        sqnr_db: 10·log₁₀(P/D), P = mean w² their power, which is σ² + w̄²; infinite where D = 0.
        max_error: max |w − ŵ|.
        rel_max_error: ``max_error`` over max |w|; 0 where the weights are 0.
        symbols: how many different indices occur.
        index_entropy: H(index) in bits per weight: what an ideal entropy coder would spend on the payload.
        output_mse: tr(E H Eᵀ) / out, E = W − Ŵ: mean squared error of a layer's output; NaN without H.
    """

    method: str
    bits: float
    rate: float
    side_rate: float
    mse: float
    nmse: float
    sqnr_db: float
    max_error: float
    rel_max_error: float
    symbols: int
    index_entropy: float
    output_mse: float = float("nan")

    def _repr_html_(self) -> str:
        return table([self]).T.rename(columns={0: ""}).to_html(border=0, float_format="{:.4g}".format)


class Curve(list[Point]):
    """Points of one method at rising nominal rates; in a notebook, and in print, a table."""

    COLUMNS = ["method", "bits", "rate", "side_rate", "index_entropy", "sqnr_db", "nmse"]

    @property
    def frame(self) -> pd.DataFrame:
        """What is shown of each point."""
        return table(self).reindex(columns=self.COLUMNS)

    def __repr__(self) -> str:
        return self.frame.to_string(index=False, float_format="{:.4g}".format)

    def _repr_html_(self) -> str:
        return self.frame.to_html(index=False, border=0, float_format="{:.4g}".format)


def measure(W: np.ndarray, quantizer: Quantizer, H: np.ndarray | None = None) -> Point:
    """Encode, decode, and compare: one :class:`Point`.

    Args:
        W: (out, in), float16, bfloat16 or float32.
        quantizer: to be measured.
        H: E[x xᵀ] of the layer's inputs, (in, in), for the error of its output.

    Raises:
        ValueError: ``W`` is no weight matrix or holds NaN or Inf; ``H`` is not symmetric, finite and (in, in).
    """
    return measure_code(W, quantizer, quantizer.encode(W, H), H)


def measure_code(W: np.ndarray, quantizer: Quantizer, code: Code, H: np.ndarray | None = None) -> Point:
    """:func:`measure` of a code that exists; besides W and Ŵ it takes memory for ``BLOCK`` weights.

    Args:
        W: (out, in), float16, bfloat16 or float32.
        quantizer: what decodes the code.
        code: of W.
        H: E[x xᵀ] of the layer's inputs, (in, in).

    Raises:
        ValueError: as of :func:`measure`; or the quantizer cannot decode the code.
    """
    return Point(
        method=quantizer.method,
        bits=quantizer.bits,
        rate=code.rate,
        side_rate=code.side_rate,
        symbols=np.count_nonzero(occurrences(code["index"])),
        index_entropy=payload_entropy(code),
        **distances(W, quantizer.decode(code), H),
    )


def measure_values(histogram: Histogram, shape: tuple[int, int], quantizer: Quantizer, code: Code) -> Point:
    """:func:`measure_code` of a whole matrix from the code of its distinct values.

    Nothing is approximated but an entropy-coded index: it is not coded again, and its price is the ideal length
    (:meth:`rdlib.code.ans.Ans.bits_of_counts`).

    Args:
        histogram: of the matrix.
        shape: of the matrix, (out, in).
        quantizer: with one table of levels for the tensor.
        code: (1, K), from :meth:`rdlib.quantizers.scalar.level_table.LevelTable.encode_values`.
    """
    form = code.streams["index"].format
    counts = np.bincount(code["index"][0], histogram.counts, form.size).astype(np.int64)
    entries = {name: stream.entry for name, stream in code.streams.items()}
    bits = prices(shape, entries | {"index": Entry(form, shape, form.bits_of_counts(counts))})
    weights = histogram.size or np.inf  # no weights have no rate
    error = histogram.values.astype(np.float64) - quantizer.decode(code)[0]
    mse, max_error = histogram.mean_of(error**2), float(np.abs(error).max(initial=0))
    return Point(
        method=quantizer.method,
        bits=quantizer.bits,
        rate=sum(bits.values()) / weights,
        side_rate=(sum(bits.values()) - bits["index"]) / weights,
        mse=mse,
        nmse=ratio(mse, histogram.variance),
        sqnr_db=sqnr_db(mse, histogram.power),
        max_error=max_error,
        rel_max_error=ratio(max_error, histogram.largest),
        symbols=int((counts > 0).sum()),
        index_entropy=entropy_of(counts),
    )


def payload_entropy(code: Code) -> float:
    """Σ H of the payload in bits per weight, that of an index sorted by context within each context."""
    total = 0.0
    for name in code.streams.keys() & set(PAYLOAD):
        array, form = code[name].ravel(), code.streams[name].format
        runs = [run for _, run in form.runs(array.size)] if isinstance(form, Ans) else [slice(None)]
        for run in runs:
            total += entropy_of(occurrences(array[run])) * array[run].size
    return total / max(code.weights, 1)


def curve(
    W: np.ndarray, quantizer: Quantizer, bits: Iterable[float] = range(1, 9), H: np.ndarray | None = None
) -> Curve:
    """:func:`measure` of the quantizer at each of ``bits`` that its method has.

    Args:
        W: (out, in), float16, bfloat16 or float32.
        quantizer: of any rate.
        bits: nominal rates.
        H: E[x xᵀ] of the layer's inputs, (in, in).
    """
    return Curve(measure(W, quantizer.at(b), H) for b in bits if b in quantizer.bits_allowed)


def table(points: Iterable[Point], **labels: object) -> pd.DataFrame:
    """One row a point with the fields of :class:`Point`; ``labels`` are constant columns before them."""
    frame = pd.DataFrame([asdict(point) for point in points])
    for place, (name, value) in enumerate(labels.items()):
        frame.insert(place, name, value)
    return frame


def save(frame: pd.DataFrame, results: str | Path, name: str) -> None:
    """Write a notebook's points to ``results/name.parquet``; nothing where ``results`` is empty."""
    if results:
        folder = Path(results)
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(folder / f"{name}.parquet", index=False)
