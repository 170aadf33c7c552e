"""WaterSIC: error feedback with a spacing for every column, so that all leave the same error in the output."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit

from rdlib.code.code import Code, Stream
from rdlib.code.contexts import sorted_by, unsorted
from rdlib.code.normal import NARROWEST, OCTAVE, normal_model, normal_table, scales_of
from rdlib.quantizers.base import Quantizer, quarters
from rdlib.quantizers.feedback.both_sides import cancelled_on_both_sides, power_of_others
from rdlib.quantizers.feedback.feedback import fed, feed_forward, feedback_factor
from rdlib.quantizers.feedback.gptq import check_damping
from rdlib.quantizers.feedback.scales import column_scales, powers_of, ratios_of, row_scales, scale_of
from rdlib.weights import as_float32, unit_power, with_room

COMPILED = 32  # columns among which errors are fed by the compiled loop; beyond, by a product of matrices
ROUNDS = 6  # of the search for the step
ROUNDS_OF_BOTH = 2  # of the same with feedback on both sides, where each takes the whole matrix
SAMPLE = 1 << 16  # weights on which the step is searched
LARGEST = 1 << 16  # index, on either side of zero


@dataclass(frozen=True)
class SuccessiveCancellation(Quantizer):
    """Ŵ_ij = γ_ij·α_j·z_ij, z_j integers for the column W_j + feedback, with α_j = Δ / R_jj, R·Rᵀ = H.

    An error of α_j in column j becomes one of R_jj·α_j = Δ in the output (see :mod:`.feedback`), the
    same for every column: reverse water-filling, with Δ² in the part of the level.  A column of which less than
    that matters is written as zeros.

    A row and a column each have a scale of 8 steps an octave; s_ij, the product of both, is the standard deviation in
    units of α_j that the weight is taken to have.  It says what an index costs: the coder takes it for a rounded
    N(0, s²).  And it says where a point is put: γ = s² / (s² + D) is the regression of such a weight on its index,
    with the error D of the cells; no point is moved by more than α/2.  Δ is such that the indices cost the nominal
    rate.

    Streams: ``step`` (Δ, float32), ``spacing`` (8·log₂ of R_max / R_jj, rounded, at a fixed length),
    ``row_deviation``, ``deviation`` (8·log₂ of the scales, at a fixed length; that of a column is written in units of
    Δ, where columns are more alike), ``offset`` (the least of those), ``first``, ``index``.

    Args:
        bits: nominal rate, of the indices.
        damping: of H, in units of the mean power of the inputs.

    Raises:
        ValueError: the damping is negative.
    """

    bits: float
    damping: float = 1e-4
    bits_allowed: ClassVar[tuple[float, ...]] = quarters(1, 8)
    width: ClassVar[int] = 1  # of a cell, in steps of the index
    noise: ClassVar[float] = 1 / 12  # D, in units of α²
    uses_H: ClassVar[bool] = True
    centred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping)

    @abstractmethod
    def _round(
        self, rest: np.ndarray, U: np.ndarray, alpha: np.ndarray, rows: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        """Scales (columns,) of a block (columns, out) that is coded column by column, with feedback.

        Args:
            rest: the block; what is left of it are its reproductions.
            U: that block of the factor.
            alpha: spacings.
            rows: scales of the rows, (out,).
            z: (out, columns), which is filled in.
        """

    @abstractmethod
    def _indices(self, code: Code, scales: np.ndarray) -> np.ndarray:
        """The indices (out, in) of a code, given the scales of all weights, (out, in)."""

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = with_room(as_float32(W))
        U = np.eye(values.shape[1]) if H is None else feedback_factor(H, self.damping)
        sigma, x = unit_power(values)
        spacing, rows = self._spacing(U), row_scales(x**2)
        step = np.float32(sigma * self._step(x, U, spacing, rows))
        z, columns = self._cancelled(x, U, step / (sigma or 1) * ratios_of(spacing), rows)
        return Code(values.shape, self._streams(z, step, spacing, columns, rows))

    def _spacing(self, U: np.ndarray) -> np.ndarray:
        """8·log₂ of each column's spacing in units of the least one, rounded, (in,)."""
        octaves = np.log2(np.diagonal(U))
        return np.rint(OCTAVE * (octaves - octaves.min(initial=np.inf))).astype(np.int64)

    def _cancelled(
        self, x: np.ndarray, U: np.ndarray, alpha: np.ndarray, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices (out, in) and scales of the columns (in,) with given spacings and scales of the rows."""
        z, columns = np.zeros(x.shape, np.int32), np.full(x.shape[1], NARROWEST)

        def quantize(start: int, target: np.ndarray) -> np.ndarray:
            here, decoded = slice(start, start + target.shape[1]), target.T.copy()
            factor = np.ascontiguousarray(U[here, here])
            columns[here] = self._round(decoded, factor, alpha[here], rows, z[:, here])
            return decoded.T

        if (alpha > 0).all():
            feed_forward(x, U, COMPILED, quantize)
        return z, columns

    def _streams(
        self,
        z: np.ndarray,
        step: float,
        spacing: np.ndarray,
        columns: np.ndarray,
        rows: np.ndarray,
        row_spacing: np.ndarray | None = None,
    ) -> dict[str, Stream]:
        symbols, odd = z >> (self.width - 1), z & (self.width - 1)
        first = -int(np.abs(symbols).max(initial=0))
        scales = (rows[:, None] + columns - NARROWEST).astype(np.int32)
        own = {"deviation": columns + spacing, "row_deviation": rows}
        numbers = {"spacing": spacing}
        if row_spacing is not None:
            own["row_deviation"] = rows + row_spacing
            numbers["row_spacing"] = row_spacing
        least = {name: int(own[name].min()) if own[name].size else 0 for name in own}
        numbers |= {name: own[name] - least[name] for name in own}
        streams = {
            "step": Stream.floats(np.array([step]), "float32"),
            **{name: Stream.fixed(n, int(n.max(initial=0)) + 1) for name, n in numbers.items()},
            "offset": Stream.floats(np.array([sum(least.values())]), "float32"),
            "first": Stream.floats(np.array([first]), "float32"),
        }
        if self.width == 2:
            most = rows.max(initial=0) + columns.max(initial=NARROWEST) - NARROWEST
            counts = np.bincount(scales[odd == 1], minlength=most + 1)
            streams["counts"] = Stream.fixed(counts, int(counts.max()) + 1)
        model = normal_model({name: stream.array for name, stream in streams.items()})
        index = sorted_by(symbols - first, self.width * scales + odd, model.counts)
        return streams | {"index": Stream(index, model)}

    def _rate(self, z: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> float:
        """What the indices cost, bits a weight."""
        symbols, odd = z >> (self.width - 1), z & (self.width - 1)
        first = -int(np.abs(symbols).max(initial=0))
        contexts = self.width * (rows[:, None] + columns - NARROWEST) + odd
        table = normal_table(first, np.bincount(contexts.ravel()), self.width)
        excess = np.log2(np.exp2(-table / 16).sum(axis=1))  # of rounded frequencies over 1
        return float((table[contexts, symbols - first] / 16 + excess[contexts]).mean())

    def _step(self, x: np.ndarray, U: np.ndarray, spacing: np.ndarray, rows: np.ndarray) -> float:
        """Δ at which the rate is the nominal one, on a part of the rows; 0 for weights that are all zero.

        Halving Δ costs a bit for every column that is coded at all: the search begins at the Δ of that rate, and goes
        on along the secant of what was measured.
        """
        part = slice(None, None, max(x.size // SAMPLE, 1))
        some, rows = x[part], rows[part]
        if not some.any():
            return 0.0
        least = float(np.abs(x).max()) / LARGEST
        start = 2.0 ** (2.05 - self.bits - spacing.mean() / OCTAVE) / self.width  # h(N(0, 1)) is 2.05 bits
        step, slope = max(start, least), 1.0  # bits an octave
        low, high, at_high = least, np.inf, -1.0
        before: tuple[float, float] | None = None
        for _ in range(ROUNDS):
            rate = self._rate(*self._cancelled(some, U, step * ratios_of(spacing), rows), rows)
            excess = rate - self.bits
            if abs(excess) < 5e-3:
                break
            if excess < 0 and 0.1 < rate <= at_high:  # few values have few symbols, however small the step
                return high
            if before and before[0] != step:
                slope = np.clip((before[1] - rate) / np.log2(step / before[0]), 0.5, 1)
            low, high, at_high = (step, high, at_high) if excess > 0 else (low, step, rate)
            before, moved = (step, rate), step * 2.0 ** np.clip(excess / slope, -4, 4)
            step = float(moved) if low < moved < high else float(np.sqrt(low * high))
        return step

    def reconstruct(self, code: Code) -> np.ndarray:
        rows, columns = scales_of({name: stream.array for name, stream in code.streams.items()})
        if (len(rows), len(columns)) != code.shape:
            raise ValueError("The code does not hold a scale for every row and column.")
        scales = (rows[:, None] + columns).astype(np.int32)
        powers = 4.0 ** ((np.arange(scales.max(initial=0) + 1) + NARROWEST) / OCTAVE)
        z = self._indices(code, scales)
        lost = z * (self.noise / (powers + self.noise))[scales]
        W = (z - np.clip(lost, -0.5, 0.5)) * ratios_of(code["spacing"])
        if "row_spacing" in code.streams:
            W *= ratios_of(code["row_spacing"])[:, None]
        return (W * np.float64(code.number("step"))).astype(np.float32)


@dataclass(frozen=True)
class WaterSIC(SuccessiveCancellation):
    """z_j = round(column / α_j): every column on a grid of its own, at high rate 0.25 bit from the limit for Gaussians.

    With H = I every column has the same spacing.  For formula, streams and arguments, see
    :class:`SuccessiveCancellation`.

    With G errors are fed to the rows below as well (see :mod:`.both_sides`), and a row has a spacing of its own, so
    that all weights leave the same error in A·E·R: ``row_spacing``, as ``spacing``.

    Args:
        damping_G: of G, in units of its mean diagonal.

    References:
        Lifar, Savkin, Ordentlich and Polyanskiy 2026, arXiv:2603.04956. There the scales of rows and columns
        have 16 bits each; here they are on a logarithmic scale, some 9 bits a column and 5 a row.
    """

    damping_G: float = 0.4
    uses_G: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_damping(self.damping_G)

    @property
    def method(self) -> str:
        return "WaterSIC"

    def quantize(self, W: np.ndarray, H: np.ndarray | None, G: np.ndarray | None = None) -> Code:
        """See :meth:`rdlib.quantizers.base.Quantizer.quantize`; G is E[g gᵀ] of the outputs' gradients, (out, out)."""
        values = with_room(as_float32(W))
        if G is None or not values.any():
            return super().quantize(W, H)
        U = np.eye(values.shape[1]) if H is None else feedback_factor(H, self.damping)
        V = feedback_factor(G, self.damping_G).T
        sigma, x = unit_power(values)
        spacing, row_spacing = self._spacing(U), self._spacing(V)
        ratios = ratios_of(row_spacing)[:, None] * ratios_of(spacing)
        alone = x / ratios_of(row_spacing)[:, None]  # as if no row made up for others
        step = self._step(alone, U, spacing, row_scales(alone**2))
        for _ in range(ROUNDS_OF_BOTH):
            power = (x / (step * ratios)) ** 2 + self.noise * power_of_others(U, V, ratios)
            rows = row_scales(power / power.mean(axis=0))
            s = powers_of(rows)[:, None] * powers_of(column_scales(power, rows))
            z, targets = cancelled_on_both_sides(x, U, V, step * ratios, self.noise / (s + self.noise))
            columns = column_scales((targets / (step * ratios)) ** 2, rows)
            excess = self._rate(z, columns, rows) - self.bits
            if abs(excess) < 0.01:
                break
            step *= 2.0**excess
        return Code(values.shape, self._streams(z, sigma * step, spacing, columns, rows, row_spacing))

    def _round(
        self, rest: np.ndarray, U: np.ndarray, alpha: np.ndarray, rows: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        return _rounded(rest, U, alpha, powers_of(rows), self.noise, z)

    def _indices(self, code: Code, scales: np.ndarray) -> np.ndarray:
        return unsorted(code["index"], scales) + np.int64(code.number("first"))


@njit(cache=True)
def _rounded(
    rest: np.ndarray, U: np.ndarray, alpha: np.ndarray, powers: np.ndarray, noise: float, z: np.ndarray
) -> np.ndarray:
    """Every column to integers, with feedback."""
    columns, errors = np.empty(len(rest), np.int64), np.empty_like(rest)
    for j in range(len(rest)):
        target = fed(rest, U, errors, j)
        near = np.rint(target / alpha[j])
        columns[j] = scale_of(target, alpha[j], powers)
        settle(target, near, alpha[j], U[j, j], columns[j], powers, noise, rest[j], errors[j])
        z[:, j] = near
    return columns


@njit(cache=True)
def settle(
    target: np.ndarray,
    near: np.ndarray,
    alpha: float,
    u: float,
    column: int,
    powers: np.ndarray,
    noise: float,
    decoded: np.ndarray,
    error: np.ndarray,
) -> None:
    """The reproduction of a column that is coded by the integers ``near``, and its error over u = U_jj."""
    power = 4.0 ** (column / OCTAVE)
    for i in range(len(target)):
        lost = near[i] * noise / (power * powers[i] + noise)
        decoded[i] = alpha * (near[i] - min(max(lost, -0.5), 0.5))
        error[i] = (target[i] - decoded[i]) / u
