"""What a quantizer is: frozen hyper-parameters; what it learns of the weights is in the code, and paid for."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from numbers import Integral
from typing import ClassVar, Self

import numpy as np

from rdlib.code import Code


class Quantizer(ABC):
    """A method of writing a weight matrix with few bits.

    Attributes:
        bits: nominal rate, a whole number of bits per weight without side information.
        bits_allowed: the nominal rates that the method has.
    """

    bits: int
    bits_allowed: range

    @abstractmethod
    def at(self, bits: int) -> Self:
        """The same method at another nominal rate.

        Raises:
            ValueError: the method does not have that rate.
        """

    @property
    @abstractmethod
    def method(self) -> str:
        """Name of the method in tables and plots, the same at every rate."""

    @abstractmethod
    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        """Quantize a weight matrix.

        Args:
            W: (out, in), float16, bfloat16 or float32; it is not changed.
            H: E[x xᵀ] of the inputs, (in, in); only error-feedback methods look at it.

        Raises:
            ValueError: ``W`` is no weight matrix or holds NaN or Inf.
        """

    @abstractmethod
    def decode(self, code: Code) -> np.ndarray:
        """Ŵ, float32 (out, in), from the code alone.

        Raises:
            ValueError: the code lacks a stream that the method needs.
        """


@dataclass(frozen=True)
class Rated(Quantizer):
    """A quantizer whose nominal rate is one of its hyper-parameters.

    Args:
        bits: nominal rate.

    Raises:
        ValueError: ``bits`` is not a whole number in the range of the method.
    """

    bits: int
    bits_allowed: ClassVar[range] = range(1, 17)

    def __post_init__(self) -> None:
        allowed = self.bits_allowed
        if isinstance(self.bits, bool) or not isinstance(self.bits, Integral) or self.bits not in allowed:
            raise ValueError(
                f"{type(self).__name__} takes a whole number of bits from {allowed[0]} to {allowed[-1]}, "
                f"not {self.bits!r}."
            )
        object.__setattr__(self, "bits", int(self.bits))  # 1 << np.uint8(8) would be 0

    def at(self, bits: int) -> Self:
        return replace(self, bits=bits)
