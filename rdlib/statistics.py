"""What a weight matrix looks like before anything is quantized."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from rdlib.grid import find_grid
from rdlib.histogram import Histogram
from rdlib.models.checkpoint import Checkpoint, Weight
from rdlib.weights import as_float32


def statistics(W: np.ndarray) -> dict[str, float]:
    """Moments and spreads of a matrix (out, in): what decides how hard it is to quantize.

    Returns:
        ``sigma`` σ; ``kurtosis`` (3 for a Gaussian); ``peak`` max |w| / σ; ``row_spread_db`` and
        ``column_spread_db``, the standard deviation over rows (columns) of their power in dB; ``row_gain_bits`` and
        ``column_gain_bits``, ½·log₂ of the arithmetic over the geometric mean of these powers, which is what knowing
        the power of every row (column) is worth to a Gaussian source; ``even_kurtosis``, the kurtosis once rows and
        then columns are brought to one power; ``entropy`` H(w) of the stored values in bits; ``distinct`` values;
        ``grid_bits``, the rate of a lossless code that finds the grid they lie on, NaN where there is none.

    Raises:
        ValueError: ``W`` is no weight matrix, or holds NaN or Inf.
    """
    histogram = Histogram.of(W)
    square = as_float32(W).astype(np.float64) ** 2
    rows, columns = square.mean(axis=1), square.mean(axis=0)
    sigma = histogram.variance**0.5
    return {
        "sigma": sigma,
        "kurtosis": histogram.kurtosis,
        "peak": histogram.largest / sigma if sigma else float("nan"),
        "row_spread_db": spread_db(rows),
        "column_spread_db": spread_db(columns),
        "row_gain_bits": coding_gain_bits(rows),
        "column_gain_bits": coding_gain_bits(columns),
        "even_kurtosis": kurtosis(evened(W)),
        "entropy": histogram.entropy,
        "distinct": len(histogram.values),
        "grid_bits": grid.rate if (grid := find_grid(W)) else float("nan"),
    }


def evened(W: np.ndarray) -> np.ndarray:
    """W, its rows and then its columns divided by their root mean square; those of zeros stay. Float32, (out, in)."""
    even = as_float32(W)
    for axis in (1, 0):
        power = (even.astype(np.float64) ** 2).mean(axis=axis, keepdims=True)
        even = even / np.sqrt(np.where(power > 0, power, 1)).astype(np.float32)
    return even


def kurtosis(X: np.ndarray) -> float:
    """E[(x − μ)⁴] / σ⁴; NaN where all are equal."""
    square = (X - X.mean(dtype=np.float64)) ** 2
    return float((square**2).mean() / square.mean() ** 2) if square.any() else float("nan")


def spread_db(powers: np.ndarray) -> float:
    """Standard deviation of 10·log₁₀ of the powers that are not zero, in dB."""
    return float(np.std(10 * np.log10(powers[powers > 0]))) if (powers > 0).any() else 0.0


def coding_gain_bits(powers: np.ndarray) -> float:
    """½·log₂(arithmetic mean / geometric mean) ≥ 0 of powers, in bits; over those that are not zero."""
    powers = powers[powers > 0]
    return float(np.log2(powers.mean()) - np.log2(powers).mean()) / 2 if len(powers) else 0.0


def weight_statistics(checkpoint: Checkpoint, weights: Iterable[Weight]) -> pd.DataFrame:
    """One row of :func:`statistics` for every weight matrix, read one at a time."""

    def rows() -> Iterator[dict]:
        for weight in weights:
            yield {"layer": weight.layer, "group": weight.group, **statistics(checkpoint.tensor(weight))}

    return pd.DataFrame(rows())
