"""How far a reconstruction is from its weights, and from the outputs of its layer."""

from dataclasses import dataclass

import numpy as np
from numba import njit

from rdlib.weights import SOLVER, as_float32, as_moment

BLOCK = 1 << 20  # weights that are looked at in float64 at once


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
        "nmse": ratio(mse, signal.variance),
        "sqnr_db": sqnr_db(mse, signal.power),
        "max_error": max_error,
        "rel_max_error": ratio(max_error, signal.largest),
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


def output_error(E: np.ndarray, H: np.ndarray) -> float:
    """tr(E H Eᵀ) / out = E‖E x‖² / out: mean squared error of a layer's output.

    Products are in the precision of E, and their sums in float64: for a float32 E the result is right to some 10⁻⁷ of
    tr(E·diag(H)·Eᵀ) / out.

    Args:
        E: W − Ŵ, (out, in), float32 or float64.
        H: E[x xᵀ] of the layer's inputs, (in, in).
    """
    largest = E.dtype.type(np.abs(E).max(initial=0))
    if largest == 0:
        return 0.0
    # no square may leave the range of float32
    return float(SOLVER.get().quadratic_form(E / largest, H)) * float(largest) ** 2 / len(E)


def sqnr_db(mse: float, power: float) -> float:
    """Signal to quantization-noise ratio 10·log₁₀(P/D) in dB, P = mean w²; infinite where D = 0.

    >>> sqnr_db(0.01, 1.0)
    20.0
    """
    return float("inf") if mse == 0 else float(10 * np.log10(power / mse))


def ratio(part: float, whole: float) -> float:
    """part / whole; 0 where both are 0."""
    return part / whole if whole else 0.0 if part == 0 else float("inf")
