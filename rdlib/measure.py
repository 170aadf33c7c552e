"""One measured point: what a quantizer spends on a weight matrix and what error it makes."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numba import njit
from scipy.interpolate import PchipInterpolator

from rdlib.code.ans import Ans
from rdlib.code.code import PAYLOAD, Code
from rdlib.code.header import Entry, prices
from rdlib.histogram import Histogram, entropy_of, occurrences
from rdlib.quantizers.base import Quantizer
from rdlib.weights import as_float32, as_moment

BLOCK = 1 << 20  # weights that are looked at in float64 at once
COLUMNS = 1024  # of H that are multiplied at once


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


@dataclass(frozen=True)
class Signal:
    """What the error of a weight matrix is compared with.

    Args:
        size: number of weights.
        variance: σ² = mean (w − w̄)².
        power: P = mean w².
        largest: max |w|.
    """

    size: int
    variance: float
    power: float
    largest: float

    @classmethod
    def of(cls, W: np.ndarray) -> "Signal":
        """Of a matrix W, (out, in).

        Raises:
            ValueError: ``W`` is no weight matrix or holds NaN or Inf.
        """
        values = as_float32(W)
        n, rows = max(values.size, 1), max(BLOCK // max(values.shape[1], 1), 1)
        mean = values.sum(dtype=np.float64) / n
        blocks = (values[i : i + rows].astype(np.float64) - mean for i in range(0, len(values), rows))
        variance = sum(((block**2).sum() for block in blocks), np.float64(0)) / n
        largest = np.abs(values).max(initial=0)
        return cls(values.size, float(variance), float(variance + mean**2), float(largest))


def distances(
    W: np.ndarray, W_hat: np.ndarray, H: np.ndarray | None = None, signal: Signal | None = None
) -> dict[str, float]:
    """How far Ŵ is from W: mse, nmse, sqnr_db, max_error, rel_max_error and output_mse, as in :class:`Point`.

    Args:
        W: (out, in), float16, bfloat16 or float32.
        W_hat: Ŵ, (out, in).
        H: E[x xᵀ] of the layer's inputs, (in, in).
        signal: of W, where it is known already.

    Raises:
        ValueError: as :func:`measure`.
    """
    values, signal = as_float32(W), signal or Signal.of(W)
    H = None if H is None else as_moment(H, values.shape[1])
    squares, max_error = squared_errors(values, W_hat)
    mse = float(squares.sum() / max(signal.size, 1))
    return {
        "mse": mse,
        "nmse": _ratio(mse, signal.variance),
        "sqnr_db": sqnr_db(mse, signal.power),
        "max_error": max_error,
        "rel_max_error": _ratio(max_error, signal.largest),
        "output_mse": float("nan") if H is None else output_error(values - W_hat, H),
    }


def squared_errors(W: np.ndarray, W_hat: np.ndarray) -> tuple[np.ndarray, float]:
    """Σ_i (w_ij − ŵ_ij)² of each column, float64 (in,), and max |w − ŵ|.

    Args:
        W: (out, in), float32.
        W_hat: Ŵ, (out, in), read as float32.

    Raises:
        ValueError: the shapes differ.
    """
    if W.shape != W_hat.shape:
        raise ValueError(f"W has the shape {W.shape}, and Ŵ {W_hat.shape}.")
    squares, largest = np.zeros((2, W.shape[1]))
    _squared_errors(W, np.ascontiguousarray(W_hat, np.float32), squares, largest)
    return squares, float(largest.max(initial=0))


@njit(cache=True, nogil=True)
def _squared_errors(W: np.ndarray, W_hat: np.ndarray, squares: np.ndarray, largest: np.ndarray) -> None:
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):  # columns side by side: vector instructions
            error = np.float64(W[i, j]) - np.float64(W_hat[i, j])
            squares[j] += error * error
            largest[j] = max(largest[j], abs(error))


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
        nmse=_ratio(mse, histogram.variance),
        sqnr_db=sqnr_db(mse, histogram.power),
        max_error=max_error,
        rel_max_error=_ratio(max_error, histogram.largest),
        symbols=int((counts > 0).sum()),
        index_entropy=entropy_of(counts),
    )


def output_error(E: np.ndarray, H: np.ndarray) -> float:
    """tr(E H Eᵀ) / out = E‖E x‖² / out: mean squared error of a layer's output.

    Products are in the precision of E, and their sums in float64: for a float32 E the result is right to some 10⁻⁷ of
    tr(E·diag(H)·Eᵀ) / out.

    Args:
        E: W − Ŵ, (out, in), float32 or float64.
        H: E[x xᵀ] of the layer's inputs, (in, in).
    """
    largest, power = float(np.abs(E).max(initial=0)), float(np.diagonal(H).max(initial=0))
    if largest == 0 or power == 0:
        return 0.0
    E, total = E / E.dtype.type(largest), 0.0  # no square may leave the range of float32
    for begin in range(
        0, len(H), COLUMNS
    ):  # with the columns before, twice, for those behind: half the work of E·H
        own = slice(begin, begin + COLUMNS)
        columns = (H[: own.stop, own] / power).astype(E.dtype)
        columns[:begin] *= 2
        total += np.einsum("ij,ij->i", E[:, : own.stop] @ columns, E[:, own]).sum(dtype=np.float64)
    return float(total) * largest**2 * power / len(E)


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


def sqnr_db(mse: float, power: float) -> float:
    """Signal to quantization-noise ratio 10·log₁₀(P/D) in dB, P = mean w²; infinite where D = 0.

    >>> sqnr_db(0.01, 1.0)
    20.0
    """
    return float("inf") if mse == 0 else float(10 * np.log10(power / mse))


def gap(rate: float, D: float, bound: Callable[[float], float]) -> float:
    """R − R(D) in bits per weight: what a point spends above a bound at its own distortion.

    NaN where the bound is infinite, as that of a density is at D = 0.

    Args:
        rate: R of the point.
        D: of the point, in the unit of the bound.
        bound: D → R(D); of bounds known between two sides, the lower one: the gap is then no smaller than it is.
    """
    least = float(bound(D))
    return float(rate) - least if np.isfinite(least) else float("nan")


def average_gap(curve: pd.DataFrame, reference: pd.DataFrame) -> float:
    """Mean over log D of R(D) − R_reference(D): how many bits a curve lies to the right of another, on average.

    Both are interpolated as R over log D by monotone cubics (PCHIP), over the distortions that both cover.

    Args:
        curve: columns rate and nmse, at least two points of different distortion.
        reference: the same.

    Returns:
        Bits per weight; NaN where the curves have no distortion in common.

    References:
        Bjøntegaard 2001, ITU-T VCEG-M33; with PCHIP instead of one cubic, as VCEG-AI11 advises.
    """
    rates = [_rate_over_log_distortion(points) for points in (curve, reference)]
    low, high = max(r.x[0] for r in rates), min(r.x[-1] for r in rates)
    if not low < high:
        return float("nan")
    a, b = (r.integrate(low, high) / (high - low) for r in rates)
    return float(a - b)


def _rate_over_log_distortion(points: pd.DataFrame) -> PchipInterpolator:
    """R as a function of ln D through the points that no other point of the curve beats."""
    points = points[points.nmse > 0].sort_values("rate")
    points = points[points.nmse < points.nmse.cummin().shift(fill_value=np.inf)].iloc[::-1]
    return PchipInterpolator(np.log(points.nmse), points.rate)


def rate_at(rates: Iterable[float], distortions: Iterable[float], target: float) -> float:
    """The rate at which a measured curve first comes down to a target distortion, in bits per weight.

    Between two measured points log D is taken as linear in R, as high-resolution theory says.

    >>> rate_at([2, 4], [0.4, 0.025], 0.1)
    3.0

    Args:
        rates: of the points, (n,), in any order.
        distortions: of the points, (n,).
        target: D, in the same unit.

    Returns:
        NaN where the curve does not cover the target: nothing is extrapolated.
    """
    r0 = d0 = float("nan")
    for r1, d1 in sorted(zip(rates, distortions, strict=True)):
        if d1 == target:
            return float(r1)
        if d1 < target and d1 <= 0:  # log 0 cannot be interpolated
            return float(r1) if d0 > target else float("nan")
        if d1 < target:
            return float(r0 + (r1 - r0) * np.log(d0 / target) / np.log(d0 / d1))
        r0, d0 = r1, d1
    return float("nan")


def save(frame: pd.DataFrame, results: str | Path, name: str) -> None:
    """Write a notebook's points to ``results/name.parquet``; nothing where ``results`` is empty."""
    if results:
        folder = Path(results)
        folder.mkdir(parents=True, exist_ok=True)
        frame.to_parquet(folder / f"{name}.parquet", index=False)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0 if part == 0 else float("inf")
