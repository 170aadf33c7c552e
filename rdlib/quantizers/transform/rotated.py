"""Random rotations: they make any weights look Gaussian, and a quantizer of Gaussians good for all of them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.fft import dct, idct

from rdlib.code.code import Code, Stream
from rdlib.quantizers.wrappers import Wrapper
from rdlib.weights import as_float32, with_room


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
        turned = largest * _turned(values / largest, self.seed, rotate)
        inner = self.inner.encode(turned.astype(np.float32), None if H is None else _seen(H, self.seed))
        seed = Stream.fixed(np.array([self.seed]), 1 << 32)
        return self.wrapped(inner, seed=seed)

    def reconstruct(self, code: Code) -> np.ndarray:
        turned = self.inner.decode(self.unwrapped(code, "seed")).astype(np.float64)
        return _turned(turned, int(code.number("seed")), rotate_back).astype(np.float32)


def _turned(W: np.ndarray, seed: int, turn: Callable) -> np.ndarray:
    """Rows of W turned by the rotation of an odd seed, columns by that of an even one."""
    return turn(turn(W, 2 * seed + 1).T, 2 * seed).T


def _seen(H: np.ndarray, seed: int) -> np.ndarray:
    """E[x xᵀ] of the rotated inputs: Vᵀ·H·V."""
    return rotate(rotate(H, 2 * seed + 1).T, 2 * seed + 1).T


def rotate(x: np.ndarray, seed: int) -> np.ndarray:
    """x·V, V = S·(𝓗 ⊗ C) orthogonal: random signs S, a Hadamard matrix 𝓗 and a cosine transform C.

    With in = 2^k·m, m odd, the Hadamard matrix has 2^k rows and the transform (DCT-II) m, so that every output
    mixes all inputs, whatever their number is.  For a power of two it is the randomised Hadamard transform.

    Args:
        x: (rows, in).
        seed: of the signs.

    Returns:
        float64 (rows, in).
    """
    signed = x * _signs(x.shape[1], seed)
    blocks = signed.reshape(len(x), *_factors(x.shape[1]))
    return _hadamard(dct(blocks, norm="ortho") if blocks.shape[2] > 1 else blocks).reshape(x.shape)


def rotate_back(y: np.ndarray, seed: int) -> np.ndarray:
    """y·Vᵀ: the inverse of :func:`rotate`."""
    blocks = _hadamard(y.reshape(len(y), *_factors(y.shape[1])))
    mixed = idct(blocks, norm="ortho") if blocks.shape[2] > 1 else blocks
    return mixed.reshape(y.shape) * _signs(y.shape[1], seed)


def _factors(size: int) -> tuple[int, int]:
    """2^k and the odd m of size = 2^k·m."""
    power = size & -size
    return (power, size // power) if size else (0, 0)


def _hadamard(blocks: np.ndarray) -> np.ndarray:
    """Fast Walsh–Hadamard transform, orthonormal, of the second of three axes, whose length is a power of two."""
    rows, size, rest = blocks.shape
    half = 1
    while half < size:
        pairs = blocks.reshape(rows, size // (2 * half), 2, half, rest)
        blocks = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2)
        half *= 2
    return blocks.reshape(rows, size, rest) / np.sqrt(max(size, 1))


def _signs(count: int, seed: int) -> np.ndarray:
    """±1, bits of the splitmix64 generator (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return 1.0 - 2.0 * (z >> np.uint64(63))
