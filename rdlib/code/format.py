"""How an array is written down: what every format can do.

Each format knows the price of an array, whole bytes, before it writes anything, and packs it into as many.
"""

import math
from abc import ABC, abstractmethod

import numpy as np


class Format(ABC):
    """A way of writing an array."""

    def bits_for(self, count: int) -> int:
        """Price of ``count`` entries, a multiple of 8, where it follows from their number.

        Raises:
            TypeError: it depends on what they are.
        """
        raise TypeError(f"The price in {type(self).__name__} depends on the entries.")

    def bits(self, array: np.ndarray) -> int:
        """Price of an array, a multiple of 8."""
        return self.bits_for(array.size)

    def bits_of_counts(self, counts: np.ndarray) -> int:
        """Price of an array in which symbol k occurs counts[k] times, a multiple of 8: exact, or to a few words."""
        return self.bits_for(int(counts.sum()))

    @abstractmethod
    def pack(self, array: np.ndarray) -> bytes:
        """The array as :meth:`bits` / 8 bytes."""

    @abstractmethod
    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """The array that :meth:`pack` wrote.

        Raises:
            ValueError: the bytes do not hold an array of this shape.
        """

    def expect(self, data: bytes, shape: tuple[int, ...]) -> None:
        """Raise unless ``data`` is as long as the price of an array of this shape says."""
        length = self.bits_for(math.prod(shape)) // 8
        if len(data) != length:
            raise ValueError(f"A stream of shape {shape} takes {length} bytes, not {len(data)}.")
