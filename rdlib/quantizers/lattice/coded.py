"""Entropy-coded lattices: points without limit, and few bits for the frequent ones."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import brentq

from rdlib.code.code import Code, Stream
from rdlib.code.contexts import context_streams, unsorted
from rdlib.histogram import entropy_of
from rdlib.quantizers.base import Quantizer, quarters
from rdlib.quantizers.lattice.lattice import Lattice
from rdlib.quantizers.vector.runs import as_runs, from_runs, sample_of
from rdlib.weights import as_float32

STEP_SAMPLE = 1 << 20  # weights on which the step is chosen
WIDEST = 1 << 16  # an axis, in steps
TOLERANCE = 1e-4  # of ln Δ: about as many bits


@dataclass(frozen=True)
class LatticeCoded(Quantizer):
    """ŵ = s·λ, λ the lattice point nearest to a run of d weights over Δ, with the Δ at which it costs the bits.

    A point λ = 2z + c is written as its coset c, one of a few binary words, at a fixed length, and the integers
    z, entropy-coded with one table for each remainder c_i (and each stretch of an axis).  The rate is that of
    both.  s = Σ w·λ / Σ λ² is the regression of the weights on their points, a little less than Δ: that brings a
    Gaussian's points to the means of their cells, and then at high rate D·4^R = 2πe·G·σ², where G is the normalised
    second moment of the lattice.

    Streams: ``coset``, ``table`` (a byte a symbol and context), ``counts`` (32 bits a context), ``index`` (z −
    first), ``scale`` (s, float32), ``first`` (float32).  Runs go along a row, and zeros fill up the last of each:
    it costs as much as a whole one.

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
        first = (x >> 1).min(initial=0)
        symbols = (x >> 1) - first
        contexts = contexts_of(x & 1, lattice)
        streams = {
            "coset": Stream.fixed(lattice.coset(x), len(lattice.words)),
            **context_streams(symbols, contexts, int(symbols.max(initial=0)) + 1, context_count(lattice)),
            "scale": Stream.floats(np.array([scale]), "float32"),
            "first": Stream.floats(np.array([first]), "float32"),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        words = self.lattice.words[code["coset"]]
        z = unsorted(code["index"], contexts_of(words, self.lattice)) + code.number("first")
        return from_runs(code.number("scale") * self.lattice.points(2 * z + words), code.shape)


def contexts_of(remainders: np.ndarray, lattice: Lattice) -> np.ndarray:
    """The context in which each integer z is coded: the remainder of x, and the stretch of its axis.

    Args:
        remainders: x mod 2, (…, d).
        lattice: of the points x.
    """
    return (remainders + 2 * lattice.axis_class).astype(np.uint8)


def context_count(lattice: Lattice) -> int:
    """How many contexts there are."""
    return 2 * len(set(lattice.stretch))


def rate_of(x: np.ndarray, lattice: Lattice) -> float:
    """The rate log₂|C| / d + H(z | contexts): bits that each integer of lattice points costs.

    Args:
        x: of the points, integers (n, d).
        lattice: of which they are.
    """
    bits = len(x) * np.log2(len(lattice.words))
    contexts = contexts_of(x & 1, lattice)
    for context in range(context_count(lattice)):
        symbols = x[contexts == context] >> 1
        counts = np.bincount(symbols - symbols.min(initial=0))
        bits += counts.sum() * entropy_of(counts)
    return bits / max(x.size, 1)


def step_of_rate(runs: np.ndarray, lattice: Lattice, bits: float, weights: int) -> float:
    """The step Δ at which the nearest lattice points cost so many bits a weight.

    Where the weights have fewer bits than that, it is the smallest, and where the cosets alone cost more, 2^(1 − bits)
    of the largest weight.

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
    if excess(high) >= 0:
        return largest * 2 ** (1 - bits)
    return float(np.exp(brentq(excess, low, high, xtol=TOLERANCE)))
