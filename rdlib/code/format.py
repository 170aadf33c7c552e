"""How an array is written down: what every format can do.

Each format knows the price of an array in bits before it writes anything, and packs it into that many bits,
filled up to whole bytes.
"""

from abc import ABC, abstractmethod

import numpy as np

FREE = 1 << 32  # symbols that are believed though nothing was paid for them


class Format(ABC):
    """A way of writing an array."""

    @property
    @abstractmethod
    def spec(self) -> list:
        """The format as the header of a file names it."""

    @abstractmethod
    def bits(self, array: np.ndarray) -> int:
        """Price of an array."""

    @abstractmethod
    def pack(self, array: np.ndarray) -> bytes:
        """The array as ⌈bits / 8⌉ bytes."""

    @abstractmethod
    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        """The array that :meth:`pack` wrote.

        Raises:
            ValueError: the bytes do not hold an array of this shape.
        """

    def expect(self, data: bytes, bits: int) -> None:
        """Raise unless ``data`` is as long as a price of ``bits`` says."""
        if len(data) != -(-bits // 8):
            raise ValueError(f"A stream of {bits} bits takes {-(-bits // 8)} bytes, not {len(data)}.")


def refuse_endless(count: int) -> None:
    """Raise where a stream claims more symbols without a bit than any matrix has weights."""
    if count > FREE:
        raise ValueError(f"A stream of no bits cannot hold {count} symbols; at most {FREE} are believed.")
