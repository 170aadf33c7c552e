"""Entropy-coded lattices: points without limit, and few bits for the frequent ones."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numba import njit
from scipy.optimize import brentq

from rdlib.code.code import Code, Stream
from rdlib.code.contexts import context_streams
from rdlib.histogram import entropy_of
from rdlib.quantizers.base import Quantizer, quarters
from rdlib.quantizers.lattice.lattice import Lattice
from rdlib.quantizers.vector.runs import as_runs, from_runs, sample_of
from rdlib.weights import as_float32

STEP_SAMPLE = 1 << 18  # weights on which the step is chosen
WIDEST = 1 << 16  # an axis, in steps
TOLERANCE = 1e-4  # of ln Δ: about as many bits


@dataclass(frozen=True)
class LatticeCoded(Quantizer):
    """ŵ = s·λ, λ the lattice point nearest to a run of d weights over Δ, with the Δ at which it costs the bits.

    The integers x of a point are entropy-coded one after the other.  Those before x_k tell its remainder r modulo M_k
    (see :class:`.lattice.Lattice`), so that only ⌊x_k / M_k⌋ is written, with one table for each class: r, M_k and the
    stretch of the axis.  s = Σ w·λ / Σ λ² is the regression of the weights on their points, a little less than Δ:
    that brings a Gaussian's points to the means of their cells, and then at high rate D·4^R = 2πe·G·σ², where G is the
    normalised second moment of the lattice.

    Streams: ``table`` (a byte a symbol and context), ``counts`` (32 bits a context), ``index`` (⌊x / M⌋ − first),
    ``scale`` (s, float32), ``first`` (float32).  Runs go along a row, and zeros fill up the last of each: it costs as
    much as a whole one.

    Args:
        bits: nominal rate.
        lattice: of d dimensions, for runs of d weights.

    References:
        Conway and Sloane, Sphere Packings, Lattices and Groups, 3rd edition (1999), chapters 2 and 5; Zamir and
        Feder, Information rates of pre/post-filtered dithered quantizers, IEEE Trans. Inf. Theory 42 (1996),
        doi:10.1109/18.532876, for the regression.
    """

    bits: float
    lattice: Lattice
    bits_allowed: ClassVar[tuple[float, ...]] = quarters(2, 8)
    centred: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"entropy-coded {self.lattice.name}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values, lattice = as_float32(W), self.lattice
        runs = as_runs(values, lattice.dimension)
        step = step_of_rate(runs, lattice, self.bits, values.size)
        x = lattice.nearest(runs.reshape(-1, lattice.dimension) / (step or 1)).reshape(runs.shape)
        points = lattice.points(x)
        scale = (runs * points).sum() / ((points**2).sum() or 1)
        z = x // lattice.M
        first = z.min(initial=0)
        streams = {
            **context_streams(
                z - first, lattice.classes(x), int(z.max(initial=0) - first) + 1, lattice.class_count
            ),
            "scale": Stream.floats(np.array([scale]), "float32"),
            "first": Stream.floats(np.array([first]), "float32"),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        lattice, (out, columns) = self.lattice, code.shape
        shape = (out, -(-columns // lattice.dimension), lattice.dimension)
        index, counts = code["index"], code["counts"].astype(np.int64)
        if counts.shape != (lattice.class_count,) or not index.size == counts.sum() == math.prod(shape):
            raise ValueError(
                f"{index.size} symbols of {counts.size} classes are not those of {shape[:2]} runs"
            )
        x = np.empty(shape, np.int64).reshape(-1, lattice.dimension)
        first = int(code.number("first"))
        _told(index, np.cumsum(counts), first, lattice.M, lattice.C, lattice.first_class, x)
        return from_runs(code.number("scale") * lattice.points(x).reshape(shape), code.shape)


@njit(cache=True)
def _told(
    index: np.ndarray,
    ends: np.ndarray,
    first: int,
    M: np.ndarray,
    C: np.ndarray,
    first_class: np.ndarray,
    x: np.ndarray,
) -> None:
    """Write the points x (n, d), from symbols that are sorted by class.

    Args:
        index: of all points.
        ends: where the symbols of each class end.
        first: what is added to a symbol.
        M: moduli of the lattice.
        C: its checks.
        first_class: of each coordinate, where its remainder is 0.
        x: to write to.
    """
    place = np.append(0, ends[:-1])
    for n in range(len(x)):
        for k in range(len(M)):
            r = 0
            for j in range(k):
                r += C[k, j] * x[n, j]
            r %= M[k]
            c = first_class[k] + r
            if place[c] == ends[c]:
                raise ValueError("a class has fewer symbols than places")
            x[n, k] = M[k] * (np.int64(index[place[c]]) + first) + r
            place[c] += 1


def rate_of(x: np.ndarray, lattice: Lattice) -> float:
    """The rate H(⌊x / M⌋ | class): bits that each integer of lattice points costs.

    Args:
        x: of the points, integers (n, d).
        lattice: of which they are.
    """
    found, z = lattice.classes(x), x // lattice.M
    bits = 0.0
    for one in range(lattice.class_count):
        symbols = z[found == one]
        counts = np.bincount(symbols - symbols.min(initial=0))
        bits += counts.sum() * entropy_of(counts)
    return bits / max(x.size, 1)


def step_of_rate(runs: np.ndarray, lattice: Lattice, bits: float, weights: int) -> float:
    """The step Δ at which the nearest lattice points cost so many bits a weight.

    Where the weights have fewer bits than that, it is the smallest.

    Args:
        runs: weights, (…, d), and zeros that fill up rows.
        lattice: of dimension d.
        bits: a weight.
        weights: how many the runs contain without the zeros.
    """
    largest = float(np.abs(runs).max(initial=0))
    if not largest:
        return 0.0
    sample = sample_of(runs, STEP_SAMPLE)

    def excess(log_step: float) -> float:
        return rate_of(lattice.nearest(sample / np.exp(log_step)), lattice) * runs.size / weights - bits

    low = np.log(2 * largest / WIDEST)
    high = np.log(3 * largest)  # every run goes to the origin
    if excess(low) < 0:
        return float(np.exp(low))
    return float(np.exp(brentq(excess, low, high, xtol=TOLERANCE)))
