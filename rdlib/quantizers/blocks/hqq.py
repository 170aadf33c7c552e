"""Half-quadratic quantization: a float zero point for each group, found without data."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit, prange

from rdlib.code.code import Code, Stream
from rdlib.quantizers.blocks.blocks import (
    BlockFormat,
    as_indices,
    block_ranges,
    steps_in_blocks,
    table_weights,
    widths,
)
from rdlib.weights import as_float32

P = 0.7  # of the ℓ_p norm of the error
BETA = 10.0  # how much the split-off error is bound to the error
ITERATIONS = 20
NARROWEST = np.float32(1e-4)  # a narrower group has the step 1
STEEPEST = np.float32(2e4)  # steps per unit of w, for the sake of float16


@dataclass(frozen=True)
class HQQ(BlockFormat):
    """ŵ = s·(q − z) with a float z for each group that makes Σ |w − ŵ|^p small, p = 0.7; no data is needed.

    s is the range of the group over 2^b − 1.  With an error e split off from the rest, two steps alternate:
    e = shrink(w − ŵ) = sign(x)·max(|x| − |x|^(p−1)/β, 0), and z = mean(q − (w − e)/s).  An error below
    β^(−1/(2−p)) = 0.17 is shrunk to zero, so that for weights of the usual size z is just the mean of q − w/s,
    and p does not matter.  All groups stop when Σ |w − ŵ| of the matrix falls no more.

    Groups run along a row, and the last one of a row may be shorter.  Streams: ``index`` (q, b bits), ``scale``
    (s, float16), ``zero`` (z, float16): 32 / size bits a weight.

    References:
        Badri and Shaji 2023, Half-Quadratic Quantization of Large Machine Learning Models,
        https://mobiusml.github.io/hqq_blog; the ``hqq`` package 0.2.8, ``axis=1``.
    """

    size: int = 64
    bits_allowed: ClassVar[range] = range(1, 9)
    family: ClassVar[str] = "HQQ"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values, last = as_float32(W), np.float32((1 << self.bits) - 1)
        low, high = block_ranges(values, self.size)
        steps = _steps_per_unit(widths(low, high), last)
        zero = -low * steps
        if self.bits == 4:  # as hqq starts
            zero = np.rint(zero)
        zero = _half_quadratic(values, steps, zero, last, self.size)
        index = np.rint(steps_in_blocks(values, steps, self.size, shift=zero))
        streams = {
            "index": as_indices(index, 1 << self.bits),
            "scale": Stream.floats(1 / steps),
            "zero": Stream.floats(zero),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        index = code["index"]
        zero = table_weights(np.zeros_like(index), code["zero"], np.ones(1), self.size)
        scale = table_weights(np.zeros_like(index), code["scale"], np.ones(1), self.size)
        return (index - zero) * scale


def _steps_per_unit(width: np.ndarray, last: float) -> np.ndarray:
    """1 / s of each group, float32: ``last`` steps over its width."""
    steps = last / np.maximum(width, NARROWEST)
    steps = np.clip(
        steps, np.finfo(np.float32).tiny, STEEPEST
    )  # so that s is finite, and float16 may refuse it
    return np.where(width > NARROWEST, steps, np.float32(1))


def _half_quadratic(
    rows: np.ndarray, steps: np.ndarray, zero: np.ndarray, last: float, width: int
) -> np.ndarray:
    """The zero point of each group after at most 20 steps, the last of which no longer lowers Σ |w − ŵ|."""
    least = np.float32(np.inf)
    for _ in range(ITERATIONS):
        zero, errors = _proximal_step(rows, steps, zero, last, width)
        error = np.float32(errors.sum() / max(rows.size, 1))  # compared as float32, as hqq does
        if not error < least:
            break
        least = error
    return zero


@njit(parallel=True, cache=True)
def _proximal_step(
    rows: np.ndarray, steps: np.ndarray, zero: np.ndarray, last: float, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The next zero point of each group, and Σ |w − ŵ| with the one before."""
    groups = steps.shape[1]
    moved, errors = np.empty(zero.shape, np.float32), np.zeros(zero.shape)
    negligible = np.float32(BETA ** (-1 / (2 - P)))
    for b in prange(steps.size):
        i, g = b // groups, b % groups
        w = rows[i, g * width : (g + 1) * width]
        s, z, total = steps[i, g], zero[i, g], 0.0
        for j in range(len(w)):
            q = min(max(np.rint(w[j] * s + z), np.float32(0)), last)
            x = w[j] - (q - z) / s
            errors[i, g] += abs(x)
            e = np.float32(0)
            if abs(x) > negligible:
                e = np.float32(np.copysign(max(abs(x) - abs(x) ** (P - 1) / BETA, 0.0), x))
            total += q - (w[j] - e) * s
        moved[i, g] = total / len(w)
    return moved, errors
