"""Symbols of a fixed length: log₂(size) bits each, by radix packing."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numba import njit

from rdlib.code.format import Format

WORDS = 32  # of 32 bits: room for the symbols of an alphabet that is not a power of two, packed together


@dataclass(frozen=True)
class Fixed(Format):
    """Symbols 0 … size − 1 at log₂(size) bits each.

    Where the size is not a power of two, a block of symbols is written as the digits of one number in base
    ``size``: log₂(15) = 3.9069 bits a symbol become 3.9077.
    """

    size: int

    def bits_for(self, count: int) -> int:
        digits, width = block(self.size)
        blocks, rest = divmod(count, digits)
        return 8 * -(-(blocks * width + (self.size**rest - 1).bit_length()) // 8)

    def pack(self, array: np.ndarray) -> bytes:
        digits, width = block(self.size)
        numbers = _join_digits(array.ravel().astype(np.uint32), self.size, digits, -(-width // 32))
        return _pack_bits(numbers, width)[: self.bits(array) // 8].tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        self.expect(data, shape)
        if self.size < 2:
            return np.broadcast_to(np.uint8(0), shape)  # any number of them takes no memory
        count = math.prod(shape)
        digits, width = block(self.size)
        blocks = -(-count // digits)
        raw = np.zeros(-(-blocks * width // 8), np.uint8)  # the last block is whole again
        raw[: len(data)] = np.frombuffer(data, np.uint8)
        symbols = _split_digits(_unpack_bits(raw, width, blocks), self.size, digits, count)
        return symbols.astype(np.min_scalar_type(self.size - 1)).reshape(shape)


@lru_cache
def block(size: int) -> tuple[int, int]:
    """How many symbols of an alphabet go into how many bits: the fewest bits a symbol within WORDS words."""
    if size < 2:
        return 1, 0
    widths = [(size**digits - 1).bit_length() for digits in range(1, int(32 * WORDS / math.log2(size)) + 1)]
    digits = 1 + min(range(len(widths)), key=lambda k: widths[k] / (k + 1))
    return digits, widths[digits - 1]


@njit(cache=True)
def _pack_bits(numbers: np.ndarray, width: int) -> np.ndarray:
    """Numbers of ``width`` bits, shape (n, words) with the lowest word first, one after the other."""
    out = np.zeros((len(numbers) * width + 7) // 8, np.uint8)
    pending, held, k = np.uint64(0), 0, 0
    for i in range(numbers.shape[0]):
        for w in range(numbers.shape[1]):
            pending |= np.uint64(numbers[i, w]) << np.uint64(held)
            held += min(width - 32 * w, 32)
            while held >= 8:
                out[k] = pending & np.uint64(255)
                pending >>= np.uint64(8)
                held -= 8
                k += 1
    if held:
        out[k] = pending
    return out


@njit(cache=True)
def _unpack_bits(data: np.ndarray, width: int, count: int) -> np.ndarray:
    """Inverse of :func:`_pack_bits`."""
    numbers = np.empty((count, (width + 31) // 32), np.uint32)
    pending, held, k = np.uint64(0), 0, 0
    for i in range(numbers.shape[0]):
        for w in range(numbers.shape[1]):
            bits = min(width - 32 * w, 32)
            while held < bits:
                pending |= np.uint64(data[k]) << np.uint64(held)
                held += 8
                k += 1
            numbers[i, w] = pending & ((np.uint64(1) << np.uint64(bits)) - np.uint64(1))
            pending >>= np.uint64(bits)
            held -= bits
    return numbers


@njit(cache=True)
def _join_digits(symbols: np.ndarray, base: int, digits: int, words: int) -> np.ndarray:
    """Every ``digits`` symbols as one number in base ``base``, shape (n, words) with the low word first."""
    out = np.zeros((-(-len(symbols) // digits), words), np.uint32)
    for b in range(out.shape[0]):
        for i in range(min(len(symbols), (b + 1) * digits) - 1, b * digits - 1, -1):
            carry = np.uint64(symbols[i])
            for w in range(words):
                carry += np.uint64(out[b, w]) * np.uint64(base)
                out[b, w] = carry & np.uint64(0xFFFFFFFF)
                carry >>= np.uint64(32)
    return out


@njit(cache=True)
def _split_digits(numbers: np.ndarray, base: int, digits: int, count: int) -> np.ndarray:
    """Inverse of :func:`_join_digits`; it uses ``numbers`` up."""
    symbols = np.empty(count, np.uint32)
    for i in range(count):
        rest = np.uint64(0)
        for w in range(numbers.shape[1] - 1, -1, -1):
            rest = (rest << np.uint64(32)) | np.uint64(numbers[i // digits, w])
            numbers[i // digits, w] = rest // np.uint64(base)
            rest %= np.uint64(base)
        symbols[i] = rest
    return symbols
