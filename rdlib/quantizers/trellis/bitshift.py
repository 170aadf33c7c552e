"""Trellis codes: a shift register runs over the weights, and few bits a weight choose among many levels.

The bits of neighbours overlap in the register, so that a weight is written with k bits but reproduced by one of
2^L values: the gain of a vector quantizer of hundreds of dimensions at the price of a Viterbi search.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
from scipy.special import ndtri

from rdlib.code.code import Code, Stream
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.trellis.viterbi import best_paths, tail_biting_paths
from rdlib.weights import as_float32, unit_power, with_room

LENGTH = 1024  # weights of a sequence: long enough that biting the tail costs little
WINDOW = 128  # steps to either side of the seam that decide about its state
TRIED = 128  # sequences on which a factor is tried, and
STEPS = 256  # of each as many weights
RATIO = 1.15  # of neighbouring factors
LARGEST = 32  # power of it


@dataclass(frozen=True)
class BitshiftTrellis(Quantizer):
    """ŵ = s·c(r), r the last L bits of the index: a tail-biting shift register with a public Gaussian code c.

    The weights of the matrix, in the order of its rows, are cut into sequences of about 1024; the register of
    the first weight of a sequence holds the bits of the last ones.  The path is that of the best of all factors of
    the code (:func:`fitted`), s is then that of least squares.  Streams: ``index`` (b bits a weight), ``scale``
    (s, float32).

    Args:
        bits: nominal rate, new bits of a step.
        register: L, its length in bits; the search costs 2^L operations a weight.

    Raises:
        ValueError: the register is shorter than two steps or longer than 16 bits.

    References:
        Tseng et al. 2024 (QTIP), arXiv:2406.11235; of the code, :func:`gaussian_code`.
    """

    bits: int
    register: int = 12
    bits_allowed: ClassVar[range] = range(1, 5)
    centred: ClassVar[bool] = True
    length: ClassVar[int] = LENGTH

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 * self.bits_allowed[-1] <= self.register <= 16:
            raise ValueError(f"A register holds 8 to 16 bits, not {self.register}.")

    @property
    def method(self) -> str:
        return f"bitshift trellis L={self.register}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = with_room(as_float32(W))
        sigma, unit = unit_power(values)
        x = sequences(unit.astype(np.float32), -(-self.register // self.bits), self.length)
        code = self.code * np.float32(self._factor(x))
        registers = tail_biting_paths(x[..., None], np.zeros(len(code)), code, self.bits, WINDOW)
        chosen = self.code[in_rows(registers, values.shape)].astype(np.float64)
        scale = sigma * least_squares(unit, chosen)
        index = Stream.fixed(registers >> (self.register - self.bits), 1 << self.bits)
        return Code(values.shape, {"index": index, "scale": Stream.floats(np.array([scale]), "float32")})

    def reconstruct(self, code: Code) -> np.ndarray:
        index = code["index"]
        bits = code.streams["index"].format.size.bit_length() - 1
        chosen = self.code[registers_of(index, bits, self.register)]
        return code.number("scale") * in_rows(chosen, code.shape)

    @property
    def code(self) -> np.ndarray:
        """c of every register, float32 (2^L,), of unit power."""
        return gaussian_code(self.register)

    def _factor(self, x: np.ndarray) -> float:
        """What the code is multiplied by in the search: that of least squared error on a sample, with its own s."""
        some = x[:: -(-len(x) // TRIED) or 1, :STEPS]
        if not some.any():
            return 1.0

        def error(factor: float) -> float:
            code = self.code * np.float32(factor)
            chosen = code[best_paths(some[..., None], np.zeros(len(code)), code, self.bits)]
            return float(((some - least_squares(some, chosen) * chosen) ** 2).sum())

        return fitted(error)


def fitted(error: Callable[[float], float]) -> float:
    """The factor of least error: by steps of ``RATIO`` from 1 to where it rises again, then the vertex of a parabola.

    Args:
        error: of a factor > 0, with one minimum.
    """
    found = {k: error(RATIO**k) for k in (-1, 0, 1)}
    while (best := min(found, key=found.get)) in (min(found), max(found)) and abs(best) < LARGEST:
        beyond = best + (1 if best == max(found) else -1)
        found[beyond] = error(RATIO**beyond)
    before, least, after = (found.get(best + k, found[best]) for k in (-1, 0, 1))
    bend = before - 2 * least + after
    return float(RATIO ** (best + ((before - after) / (2 * bend) if bend > 0 else 0)))


@cache
def gaussian_code(register: int) -> np.ndarray:
    """c(r) = Φ⁻¹((π(r) + ½) / 2^L): all quantiles of a Gaussian in an order π without pattern, float32 (2^L,).

    π ranks the hash of r by the mixing function of MurmurHash3, so that neighbours in the trellis, whose
    registers overlap, have unrelated values.  It is computed, not learned, hence free.
    """
    h = np.arange(1 << register, dtype=np.uint64) * np.uint64(0x9E3779B1) & np.uint64(0xFFFFFFFF)
    for shift, factor in ((15, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint64(shift))) * np.uint64(factor) & np.uint64(0xFFFFFFFF)
    h ^= h >> np.uint64(16)
    rank = np.empty(1 << register)
    rank[np.argsort(h, kind="stable")] = np.arange(1 << register)
    code = ndtri((rank + 0.5) / (1 << register)).astype(np.float32)
    code.setflags(write=False)
    return code


def registers_of(index: np.ndarray, bits: int, register: int) -> np.ndarray:
    """Content of the register at every step of tail-biting sequences: its top bits are the newest.

    Args:
        index: new bits of each step, (sequences, steps).
        bits: of a step.
        register: length in bits.
    """
    content = np.zeros(index.shape, np.int64)
    for age in range(-(-register // bits)):
        shift = register - bits * (age + 1)
        aged = np.roll(index, age, axis=1).astype(np.int64)
        content |= aged << shift if shift >= 0 else aged >> -shift
    return content


def sequences(values: np.ndarray, shortest: int = 1, length: int = LENGTH) -> np.ndarray:
    """A matrix, row after row, cut into sequences of about a length, filled up with zeros: (sequences, steps)."""
    count = max(round(values.size / length), min(values.size, 1))
    steps = max(-(-values.size // max(count, 1)), shortest)
    padded = np.zeros(count * steps, values.dtype)
    padded[: values.size] = values.ravel()
    return padded.reshape(count, steps)


def in_rows(sequences: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sequences as the matrix that :func:`sequences` cut.

    Raises:
        ValueError: they are too few.
    """
    size = shape[0] * shape[1]
    if sequences.size < size:
        raise ValueError(f"The code holds {sequences.size} indices for {size} weights.")
    return sequences.ravel()[:size].reshape(shape)


def least_squares(values: np.ndarray, chosen: np.ndarray) -> float:
    """The factor s of least Σ (w − s·c)²: Σ w·c / Σ c²."""
    power = float((chosen**2).sum())
    return float((values * chosen).sum()) / power if power else 0.0
