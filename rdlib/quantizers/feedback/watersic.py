"""WaterSIC: error feedback with a spacing for every column, so that all leave the same error in the output."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit

from rdlib.code.code import Code, Stream
from rdlib.code.contexts import classes_of, context_streams, unsorted
from rdlib.histogram import entropy_of, occurrences
from rdlib.quantizers.base import Quantizer, quarters
from rdlib.quantizers.feedback.feedback import fed, feed_forward, feedback_factor
from rdlib.quantizers.feedback.gptq import check_damping
from rdlib.weights import as_float32, unit_power, with_room

OCTAVE = (
    8  # spacings are multiples of 2^(1/8): that costs 0.001 bit, and the spacing of a column 5 bits or so
)
SHRINKAGES = 32  # 1, 63/64, … 33/64
COMPILED = 32  # columns among which errors are fed by the compiled loop; beyond, by a product of matrices
ROUNDS = 6  # of the search for the step
SAMPLE = 1 << 16  # weights on which the step is searched
LARGEST_TABLES = 1 << 22  # symbols of all contexts together, on either side of zero


@dataclass(frozen=True)
class SuccessiveCancellation(Quantizer):
    """Ŵ_j = γ_j·α_j·z_j, z_j integers for the column W_j + feedback, with α_j = Δ / R_jj, R·Rᵀ = H.

    An error of α_j in column j becomes one of R_jj·α_j = Δ in the output (see :mod:`.feedback`), the
    same for every column: reverse water-filling, with Δ² in the part of the level.  A column of which less than
    that matters is written as zeros.  γ_j = ⟨w, αz⟩ / ⟨αz, αz⟩ is the regression of the column on its code: it
    brings points to the means of their cells.  The indices are entropy-coded with a table for each class of columns;
    Δ is such that their entropy is the nominal rate.

    Streams: ``step`` (Δ, float32), ``spacing`` (8·log₂ of R_max / R_jj, rounded, at a fixed length),
    ``shrinkage`` (64·(1 − γ_j), 5 bits a column), ``column_class``, ``table`` (a byte a symbol and context),
    ``first``, ``index``.

    Args:
        bits: nominal rate, of the indices.
        damping: of H, in units of the mean power of the inputs.
        classes: of equally many columns, by the spread of their indices.

    Raises:
        ValueError: the damping is negative, or there is less than one class.
    """

    bits: float
    damping: float = 1e-4
    classes: int = 4
    bits_allowed: ClassVar[tuple[float, ...]] = quarters(1, 8)
    contexts_of_class: ClassVar[int] = 1
    uses_H: ClassVar[bool] = True
    centred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)
        if self.classes < 1:
            raise ValueError(f"Columns fall into at least 1 class, not {self.classes}.")

    @abstractmethod
    def _round(self, rest: np.ndarray, U: np.ndarray, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Shrinkages (columns,) of a block (columns, out) that is coded column by column, with feedback.

        Args:
            rest: the block; what is left of it are its reproductions.
            U: that block of the factor.
            alpha: spacings.
            z: (out, columns), which is filled in.
        """

    @abstractmethod
    def _symbols(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What is coded, and its context among those of a class, of indices (out, in)."""

    @abstractmethod
    def _indices(self, code: Code, column_class: np.ndarray) -> np.ndarray:
        """The indices (out, in) of a code."""

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = with_room(as_float32(W))
        U = np.eye(values.shape[1]) if H is None else feedback_factor(H, self.damping)
        sigma, x = unit_power(values)
        spacing = self._spacing(U)
        step = np.float32(sigma * self._step(x, U, spacing))
        z, shrinkage = self._cancelled(x, U, _spacings(spacing, step / (sigma or 1)))
        return Code(values.shape, self._streams(z, spacing, shrinkage, step))

    def _spacing(self, U: np.ndarray) -> np.ndarray:
        """8·log₂ of each column's spacing in units of the least one, rounded, (in,)."""
        octaves = np.log2(np.diagonal(U))
        return np.rint(OCTAVE * (octaves - octaves.min(initial=np.inf)))

    def _cancelled(self, x: np.ndarray, U: np.ndarray, alpha: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices (out, in) and shrinkages (in,) with given spacings."""
        z, shrinkage = np.zeros(x.shape, np.int32), np.zeros(x.shape[1], np.int64)

        def quantize(start: int, target: np.ndarray) -> np.ndarray:
            here, decoded = slice(start, start + target.shape[1]), target.T.copy()
            shrinkage[here] = self._round(
                decoded, np.ascontiguousarray(U[here, here]), alpha[here], z[:, here]
            )
            return decoded.T

        if (alpha > 0).all():
            feed_forward(x, U, COMPILED, quantize)
        return z, shrinkage

    def _streams(
        self, z: np.ndarray, spacing: np.ndarray, shrinkage: np.ndarray, step: float
    ) -> dict[str, Stream]:
        column_class = self._classes(z)
        symbols, context = self._symbols(z)
        context = np.broadcast_to(self.contexts_of_class * column_class + context, z.shape)
        first = int(symbols.min(initial=0))
        size = int(symbols.max(initial=0)) - first + 1
        streams = {
            "step": Stream.floats(np.array([step]), "float32"),
            "spacing": Stream.fixed(spacing, int(spacing.max(initial=0)) + 1),
            "shrinkage": Stream.fixed(shrinkage, SHRINKAGES),
            "column_class": Stream.fixed(column_class, self.classes),
            **context_streams(symbols - first, context, size, self.contexts_of_class * self.classes),
            "first": Stream.floats(np.array([first]), "float32"),
        }
        if self.contexts_of_class == 1:
            del streams["counts"]  # they follow from the classes
        return streams

    def _classes(self, z: np.ndarray) -> np.ndarray:
        """Class of each column, from little to much spread of its indices."""
        return classes_of((z.astype(np.float64) ** 2).sum(axis=0), self.classes)

    def _rate(self, z: np.ndarray) -> float:
        """Entropy of the symbols given their contexts, bits a weight."""
        symbols, context = self._symbols(z)
        context = np.broadcast_to(self.contexts_of_class * self._classes(z) + context, z.shape)
        joint = symbols * (self.contexts_of_class * self.classes) + context
        return entropy_of(occurrences(joint)) - entropy_of(occurrences(context))

    def _step(self, x: np.ndarray, U: np.ndarray, spacing: np.ndarray) -> float:
        """Δ at which the rate is the nominal one, on a part of the rows; 0 for weights that are all zero.

        Halving Δ costs a bit for every column that is coded at all, so that the search begins at the one Δ of that
        rate and corrects it by what was measured.
        """
        some = x[:: max(x.size // SAMPLE, 1)]
        if not some.any():
            return 0.0
        least = float(np.abs(x).max()) * self.contexts_of_class * self.classes / LARGEST_TABLES
        step = max(2.0 ** (2.05 - self.bits - spacing.mean() / OCTAVE), least)  # h(N(0, 1)) is 2.05 bits
        slope = 1.0  # bits an octave
        low, high, at_high = least, np.inf, -1.0
        for _ in range(ROUNDS):
            rate = self._rate(self._cancelled(some, U, _spacings(spacing, step))[0])
            excess = rate - self.bits
            if abs(excess) < 3e-3:
                break
            if excess < 0 and 0.1 < rate <= at_high:  # few values have few symbols, however small the step
                return high
            low, high, at_high = (step, high, at_high) if excess > 0 else (low, step, rate)
            moved = step * 2.0 ** np.clip(excess / slope, -4, 4)
            step = float(moved) if low < moved < high else float(np.sqrt(low * high))
        return step

    def reconstruct(self, code: Code) -> np.ndarray:
        for name in ("spacing", "shrinkage", "column_class"):
            if code[name].shape != code.shape[1:]:
                raise ValueError(f"The code does not hold a {name} for every column.")
        z = self._indices(code, code["column_class"])
        alpha = _spacings(code["spacing"], code.number("step"))
        return (z * (_factor(code["shrinkage"]) * alpha)).astype(np.float32)


@dataclass(frozen=True)
class WaterSIC(SuccessiveCancellation):
    """z_j = round(column / α_j): every column on a grid of its own, at high rate 0.25 bit from the limit for Gaussians.

    With H = I every column has the same spacing.  For formula, streams and arguments, see
    :class:`SuccessiveCancellation`.

    References:
        Lifar, Savkin, Ordentlich and Polyanskiy 2026, arXiv:2603.04956. There the scales of rows and columns
        have 16 bits each; here a column has a spacing on a logarithmic scale and a shrinkage, some 12 bits
        together, and a row none.
    """

    @property
    def method(self) -> str:
        return "WaterSIC"

    def _round(self, rest: np.ndarray, U: np.ndarray, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
        return _rounded(rest, U, alpha, z)

    def _symbols(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return z, np.zeros(z.shape[1], np.int64)

    def _indices(self, code: Code, column_class: np.ndarray) -> np.ndarray:
        z = unsorted(code["index"], np.broadcast_to(column_class, code.shape))
        return z + np.int64(code.number("first"))


@njit(cache=True)
def _rounded(rest: np.ndarray, U: np.ndarray, alpha: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Every column to integers, with feedback."""
    shrinkage, errors = np.empty(len(rest), np.int64), np.empty_like(rest)
    for j in range(len(rest)):
        target = fed(rest, U, errors, j)
        near = np.rint(target / alpha[j])
        shrinkage[j] = settle(target, near, alpha[j], U[j, j], rest[j], errors[j])
        z[:, j] = near
    return shrinkage


@njit(cache=True)
def settle(
    target: np.ndarray, near: np.ndarray, alpha: float, u: float, decoded: np.ndarray, error: np.ndarray
) -> int:
    """64·(1 − γ) of a column that is coded by the integers ``near``; its reproduction and its error over u = U_jj."""
    power = near @ near
    gamma = (target / alpha) @ near / power if power > 0 else 1.0
    shrinkage = min(max(int(np.rint(64 * (1 - gamma))), 0), SHRINKAGES - 1)
    decoded[:] = near * ((1 - shrinkage / 64) * alpha)
    error[:] = (target - decoded) / u
    return shrinkage


def _spacings(spacing: np.ndarray, step: float) -> np.ndarray:
    """α of each column, float64 (in,)."""
    return np.float64(step) * 2.0 ** (spacing.astype(np.float64) / OCTAVE)


def _factor(shrinkage: np.ndarray) -> np.ndarray:
    """γ of an index."""
    return 1 - shrinkage / 64
