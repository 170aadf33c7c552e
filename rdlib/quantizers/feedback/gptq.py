"""GPTQ: error feedback around evenly spaced levels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit, prange

from rdlib.code.code import Code, Stream
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.feedback.feedback import feed_forward, feedback_factor
from rdlib.quantizers.scalar.kernels import nearest
from rdlib.quantizers.scalar.uniform import Uniform, UniformAsymmetric
from rdlib.quantizers.wrappers import Wrapper
from rdlib.weights import as_float32

COMPILED = 128  # columns among which errors are fed by the compiled loop; beyond, by a product of matrices
ROWS = 64  # that a thread rounds together: several at once by vector instructions


def check_damping(damping: float) -> None:
    """Raise unless it is a number ≥ 0."""
    if not damping >= 0:
        raise ValueError(
            f"A damping is a number ≥ 0, in units of the mean power of the inputs, not {damping}."
        )


@dataclass(frozen=True)
class GPTQ(Wrapper):
    """Ŵ_j = Q(W_j + feedback of the errors in the columns before j) (see :mod:`rdlib.quantizers.feedback.feedback`).

    The levels of a group are fixed when its first column is reached, from the weights as they then are; the error of
    every column is fed to all columns after it.  The code is one of the inner quantizer, and so is its decoder.
    With H = I, or without H, it is the code that the inner quantizer would write.

    Args:
        inner: :class:`Uniform`, :class:`UniformMidTread` or :class:`UniformAsymmetric`, of any granularity.
        damping: of H, in units of the mean power of the inputs.

    Raises:
        ValueError: the inner quantizer has no evenly spaced levels, or the damping is negative.

    References:
        Frantar, Ashkboos, Hoefler and Alistarh 2022, arXiv:2210.17323, algorithm 1.
    """

    damping: float = 0.01

    def __post_init__(self) -> None:
        check_damping(self.damping)
        if not isinstance(self.inner, Uniform | UniformAsymmetric):
            raise ValueError(
                f"GPTQ rounds to evenly spaced levels, which {self.inner.method!r} has not: use LDLQ."
            )

    uses_H: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"GPTQ {self.inner.method}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        if H is None or not values.size:
            return self.inner.encode(W)
        U = feedback_factor(H, self.damping)
        groups: list[Code] = []

        def quantize(start: int, columns: np.ndarray) -> np.ndarray:
            here = slice(start, start + columns.shape[1])
            groups.append(_rounded(self.inner, columns, U[here, here]))
            return self.inner.decode(groups[-1])

        feed_forward(values, U, self.inner.granularity.width(values.shape[1]), quantize)
        streams = {
            name: Stream(np.ascontiguousarray(np.hstack([group[name] for group in groups])), stream.format)
            for name, stream in groups[0].streams.items()
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        return self.inner.decode(code)


def _rounded(inner: Quantizer, W: np.ndarray, U: np.ndarray) -> Code:
    """One group of columns, rounded with feedback to the levels that the inner quantizer gives it."""
    plain = inner.encode(W)
    size, index = plain.streams["index"].format.size, np.ascontiguousarray(plain["index"].T)
    low, step = (np.broadcast_to(x, (len(W), 1))[:, 0].copy() for x in _levels(plain, size))

    def quantize(start: int, columns: np.ndarray) -> np.ndarray:
        here = slice(start, start + columns.shape[1])
        factor = np.ascontiguousarray(U[here, here], W.dtype)
        return _round_columns(columns.T, factor, low, step, size, index[here]).T

    feed_forward(W, U, COMPILED, quantize)
    return Code(W.shape, dict(plain.streams) | {"index": Stream.fixed(index.T, size)})


def _levels(code: Code, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest level and step of each row, (out or 1, 1), in the arithmetic of the inner quantizer."""
    scale, last = code["scale"].astype(np.float32).astype(np.float64), max(size - 1, 1)
    if "zero" in code.streams:
        return -code["zero"].astype(np.float64) * (scale / last), scale / last
    return -scale, 2 * scale / last


@njit(parallel=True, cache=True, error_model="numpy")
def _round_columns(
    W: np.ndarray, U: np.ndarray, low: np.ndarray, step: np.ndarray, size: int, index: np.ndarray
) -> np.ndarray:
    """Columns one by one to the nearest of their row's levels, each error fed to those after it.

    Where all levels of a row are one, its index stays what it was.  W, the result and ``index``, which is filled
    in, are transposed: (columns, out).
    """
    decoded = np.empty_like(W)
    for part in prange(-(-W.shape[1] // ROWS)):
        first = part * ROWS
        rest, errors = W[:, first : first + ROWS].copy(), np.empty(ROWS, W.dtype)
        for j in range(len(rest)):
            for r in range(rest.shape[1]):
                i = first + r
                q = nearest(rest[j, r], low[i], step[i], size) if step[i] > 0.0 else int(index[j, i])
                index[j, i], decoded[j, i] = q, low[i] + q * step[i]
                errors[r] = (rest[j, r] - decoded[j, i]) / U[j, j]
            for k in range(j + 1, len(rest)):
                factor = U[j, k]
                for r in range(rest.shape[1]):
                    rest[k, r] -= factor * errors[r]
    return decoded
