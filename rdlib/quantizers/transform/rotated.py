"""Random rotations: they make any weights look Gaussian, and a quantizer of Gaussians good for all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit, prange
from scipy.fft import dct, idct

from rdlib.code.code import Code, Stream
from rdlib.quantizers.transform.hadamard import butterflies
from rdlib.quantizers.wrappers import Wrapper
from rdlib.weights import as_float32, remembered, with_room

LANES = 32  # columns that are transformed together, by vector instructions


@dataclass(frozen=True)
class Rotated(Wrapper):
    """Ŵ = Uᵀ·Q(U·W·V)·Vᵀ with random orthogonal U and V (see :func:`rotate`).

    The inner quantizer sees U·W·V, and Vᵀ·H·V, so that errors are weighed as before.  Streams: those of the
    inner code, and ``seed`` (32 bits), from which the decoder draws the signs.

    Args:
        inner: the quantizer of the rotated weights.
        seed: of the signs.

    Raises:
        ValueError: the seed is not in 0 … 2³² − 1.

    References:
        Tseng et al. 2024 (QuIP#), arXiv:2402.04396: incoherence processing.
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"A seed of 32 bits lies in 0 … 2³² − 1, not {self.seed!r}.")

    @property
    def method(self) -> str:
        return f"rotated {self.inner.method}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = with_room(as_float32(W))
        largest = float(np.abs(values).max(initial=0)) or 1.0  # weights of any size, without overflow
        turned = _turned(values / largest, self.seed, rotate)
        turned *= largest
        seen = None if H is None or not self.uses_H else _seen(H, self.seed)
        seed = Stream.fixed(np.array([self.seed]), 1 << 32)
        return self.wrapped(self.inner.encode(turned.astype(np.float32), seen), seed=seed)

    def reconstruct(self, code: Code) -> np.ndarray:
        turned = self.inner.decode(self.unwrapped(code, "seed")).astype(np.float64)
        return _turned(turned, int(code.number("seed")), rotate_back).astype(np.float32)


def _turned(W: np.ndarray, seed: int, turn: Callable) -> np.ndarray:
    """Rows of W turned by the rotation of an odd seed, columns by that of an even one."""
    return turn(turn(W, 2 * seed + 1), 2 * seed, axis=0)


def _seen(H: np.ndarray, seed: int) -> np.ndarray:
    """E[x xᵀ] of the rotated inputs: Vᵀ·H·V."""
    seed = 2 * seed + 1
    return remembered(H, ("rotated", seed), lambda: rotate(rotate(H, seed), seed, axis=0))


def rotate(x: np.ndarray, seed: int, axis: int = 1) -> np.ndarray:
    """x·V, V = S·(𝓗 ⊗ C) orthogonal: random signs S, a Hadamard matrix 𝓗 and a cosine transform C.

    With in = 2^k·m, m odd, the Hadamard matrix has 2^k rows and the transform (DCT-II) m, so that every output
    mixes all inputs, whatever their number is.  For a power of two it is the randomised Hadamard transform.

    Args:
        x: (rows, in).
        seed: of the signs.
        axis: 0 for Vᵀ·x of an x (in, columns).

    Returns:
        float64, of the shape of x.
    """
    blocks = (x * _signs(x.shape, seed, axis)).reshape(_factors(x.shape, axis))
    mixed = dct(blocks, norm="ortho", axis=2) if blocks.shape[2] > 1 else blocks
    return _hadamard(mixed).reshape(x.shape)


def rotate_back(y: np.ndarray, seed: int, axis: int = 1) -> np.ndarray:
    """y·Vᵀ, or V·y: the inverse of :func:`rotate`."""
    blocks = _hadamard(np.ascontiguousarray(y).reshape(_factors(y.shape, axis)))
    mixed = idct(blocks, norm="ortho", axis=2) if blocks.shape[2] > 1 else blocks
    return mixed.reshape(y.shape) * _signs(y.shape, seed, axis)


def _factors(shape: tuple[int, int], axis: int) -> tuple[int, int, int, int]:
    """The shape with that axis as two, 2^k and the odd m: (rows, 2^k, m, 1) or (1, 2^k, m, columns)."""
    size = shape[axis]
    power = max(size & -size, 1)
    return shape[0] if axis else 1, power, size // power, 1 if axis else shape[1]


@njit(parallel=True, cache=True)
def _hadamard(x: np.ndarray) -> np.ndarray:
    """Fast Walsh–Hadamard transform, orthonormal, of the second of four axes, whose length is a power of two."""
    size, rest = x.shape[1], x.shape[2] * x.shape[3]
    blocks, turned, root = x.reshape(len(x), size, rest), np.empty((len(x), size, rest)), np.sqrt(size)
    parts = -(-rest // LANES)
    for p in prange(len(x) * parts):
        i, first = p // parts, p % parts * LANES
        lanes = min(LANES, rest - first)
        flat = blocks[i, :, first : first + lanes].copy().ravel()  # small enough for the cache
        butterflies(flat, lanes)
        turned[i, :, first : first + lanes] = (flat / root).reshape(size, lanes)
    return turned.reshape(x.shape)


def _signs(shape: tuple[int, int], seed: int, axis: int) -> np.ndarray:
    """±1 along an axis, bits of the splitmix64 generator (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195)."""
    z = np.arange(1, shape[axis] + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    signs = 1.0 - 2.0 * (z >> np.uint64(63))
    return signs if axis else signs[:, None]
