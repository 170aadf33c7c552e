"""Weights that lie on a grid already: dequantized, requantized or trained for it.

A matrix that was decoded from a file of 4 bits looks like any other, but each of its blocks has at most 16 values.  A
code that finds them is lossless at about 5 bits.  Bounds for independent draws from a density say nothing there.  Below
that rate a twin of the matrix that lies on no grid (:func:`dithered`) shows which part of a result is due to the grid.
"""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rdlib.weights import BFLOAT16, as_float32

SIZES = (16, 32, 64, 128, 256)
MOST = 256  # levels: more are no grid, but a float type
MOST_IN_TABLE = 32  # levels, where steps are not equal
SAMPLE = 256  # blocks that are looked at
ENOUGH = 0.99  # of the blocks have to lie on a grid
APART = 0.02  # bit: what is less is no matter
TOLERANCE = 0.15  # steps: what is left of a level after rounding to bfloat16


@dataclass(frozen=True)
class Grid:
    """How the weights of a matrix lie.

    Args:
        size: weights of a row that share a grid; all of the matrix where it is larger than a row.
        levels: of the grid of a block, at most.
        rate: bits per weight of a code without loss that knows where blocks begin: log₂ of the levels, and one or two
            numbers a block (scale, offset), of 16 bits where float16 or bfloat16 holds them and else of 32.
    """

    size: int
    levels: int
    rate: float

    @property
    def note(self) -> str:
        """What it means for rates and bounds, in a sentence."""
        return (
            f"These weights lie on a grid already, {self.levels} levels for every {self.size:,} neighbours: a code "
            f"that finds it is lossless at {self.rate:.2f} bits, where bounds for independent draws do not apply"
        )


def find_grid(W: np.ndarray) -> Grid | None:
    """The grid that the weights lie on, block by block; None where there is none of at most 256 levels.

    Three kinds are distinguished: few values in all of the matrix; in every block a scaled copy of one table (NF4); in
    every block equal steps, with zero among the levels (Q4_0, Q8_0) or without (Q4_1).  Blocks are 16, 32, … 256
    neighbours in a row, or a row.  Of those that fit, the grid of the least rate is taken.  At most 256 blocks of each
    size are looked at.

    Args:
        W: (out, in), float16, bfloat16 or float32.

    Raises:
        ValueError: W is no weight matrix, or holds NaN or Inf.
    """
    W = as_float32(W)
    found = [_in_all(W)]
    for size in {*(size for size in SIZES if size < W.shape[1]), W.shape[1]}:
        blocks = _sampled_blocks(W, size)
        if blocks:
            found += [_of_table(blocks, size), _of_steps(blocks, size)]
    return min((grid for grid in found if grid), key=lambda grid: grid.rate, default=None)


def dithered(W: np.ndarray, grid: Grid, seed: int = 0) -> np.ndarray:
    """W + u, u uniform noise that is one step of its block's grid wide: weights of nearly that density, on no grid.

    The noise adds a twelfth of a squared step to the variance: 0.6 % where 16 levels span six standard deviations.

    Args:
        W: (out, in), float16, bfloat16 or float32.
        grid: that :func:`find_grid` found for it; the step of a block is that of its own values.
        seed: of the noise.

    Returns:
        (out, in), float32.

    Raises:
        ValueError: W is no weight matrix, or holds NaN or Inf.

    References:
        Gray and Stockham 1993, Dithered quantizers, doi:10.1109/18.256489.
    """
    values = as_float32(W).astype(np.float64)
    blocks = values.reshape(1, -1) if grid.size >= values.size else values
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, blocks.shape)
    for begin in range(0, blocks.shape[1], grid.size):
        place = slice(begin, begin + grid.size)
        noise[:, place] *= np.array([[_step(np.unique(block))] for block in blocks[:, place]])
    return (blocks + noise).reshape(values.shape).astype(np.float32)


def twin_note(gaps: pd.DataFrame) -> str:
    """Where the grid decides a result, as a sentence.

    Args:
        gaps: in bits, a row for each method and rate; first column of the weights, second of their twin.
    """
    apart = gaps[(gaps.iloc[:, 0] - gaps.iloc[:, 1]).abs() > APART]
    points = ", ".join(f"{method} at {bits} bits" for method, bits in apart.index) or "none"
    return f"More than {APART} bit from the dithered twin, which is the grid's doing: {points}"


def _step(values: np.ndarray) -> float:
    """The step between a block's distinct values, rising; its mean where steps are not equal, 0 where there is one."""
    if len(values) < 2:
        return 0.0
    fit = _steps(values)
    return fit[0] if fit else (values[-1] - values[0]) / (len(values) - 1)


def _in_all(W: np.ndarray) -> Grid | None:
    """Few values in the matrix, each of which is written once in 32 bits."""
    sample = W.ravel()[:: max(W.size // 4096, 1)]
    if not W.size or len(np.unique(sample)) > MOST or (levels := len(np.unique(W))) > min(MOST, W.size // 16):
        return None
    return Grid(W.size, levels, math.log2(levels) + 32 * levels / W.size)


def _sampled_blocks(W: np.ndarray, size: int) -> list[np.ndarray]:
    """The distinct values, rising, of blocks spread over the matrix; blocks of one value say nothing."""
    per_row = W.shape[1] // size if size else 0
    chosen = np.unique(np.linspace(0, max(len(W) * per_row - 1, 0), SAMPLE).astype(int)) if per_row else ()
    blocks = (np.unique(W[i // per_row, i % per_row * size :][:size]) for i in chosen if len(W))
    return [values.astype(np.float64) for values in blocks if len(values) > 1]


def _of_table(blocks: list[np.ndarray], size: int) -> Grid | None:
    """A scaled copy of one table in every block, of at most half as many levels as weights.

    Divided by the weight of the largest magnitude, the values of all blocks are those of a few tables: scales of either
    sign make two.
    """
    levels = max(map(len, blocks))
    if levels > min(size // 2, MOST_IN_TABLE):
        return None
    scales = np.array([values[np.argmax(np.abs(values))] for values in blocks])
    steps = np.concatenate([values / scale for values, scale in zip(blocks, scales, strict=True)])
    tables = np.unique(
        np.rint(128 * steps)
    )  # coarser than bfloat16, so that a level falls in two places at most
    if len(tables) > 4 * levels:  # of 257 places
        return None
    return Grid(size, levels, math.log2(levels) + _width(np.abs(scales)) / size)


def _of_steps(blocks: list[np.ndarray], size: int) -> Grid | None:
    """Equal steps in every block."""
    fitted, most = [], len(blocks)
    for values in blocks:
        if fit := _steps(values):
            fitted.append(fit)
        elif (most := most - 1) < ENOUGH * len(blocks):  # the others cannot be enough any more
            return None
    step, first, count = (np.array(part) for part in zip(*fitted, strict=True))
    place = first / step
    if (np.abs(place - np.rint(place)) < TOLERANCE).mean() >= ENOUGH:  # zero is a level
        ends = np.sort(
            np.abs([np.rint(place), np.rint(place) + count - 1]), axis=0
        )  # a scale may have either sign
        levels, numbers = int(ends.max(axis=1).sum()) + 1, _width(step)
    else:
        levels, numbers = int(count.max()), _width(step) + _width(first)
    return Grid(size, levels, math.log2(levels) + numbers / size) if levels <= MOST else None


def _steps(values: np.ndarray) -> tuple[float, float, int] | None:
    """Step, first level and number of levels of a grid with equal steps that values lie on; None where there is none.

    The step is the smallest difference or a fraction of it, and then follows from the whole range, where the error of
    rounding is least.
    """
    differences = np.diff(values)
    for fraction in (1, 2, 3, 4):
        count = np.rint(differences / (differences.min() / fraction))
        step = (values[-1] - values[0]) / count.sum()
        if count.sum() < MOST and (np.abs(differences / step - count) < TOLERANCE).all():
            return step, values[0], int(count.sum()) + 1
    return None


def _width(numbers: np.ndarray) -> int:
    """16 where float16 or bfloat16 holds most numbers, but for the error of float32 arithmetic; else 32."""
    with np.errstate(over="ignore"):
        narrow = [
            np.abs(numbers.astype(dtype).astype(np.float64) - numbers) for dtype in (np.float16, BFLOAT16)
        ]
    return 16 if any((error <= 2e-6 * np.abs(numbers)).mean() > 0.5 for error in narrow) else 32
