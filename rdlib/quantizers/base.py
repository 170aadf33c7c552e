"""What a quantizer is: frozen hyper-parameters; what it learns of the weights is in the code, and paid for."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Self

import numpy as np

from rdlib.code.code import Code
from rdlib.code.decoder import Decoder


class Quantizer(Decoder):
    """A method of writing a weight matrix with few bits: a frozen dataclass, with ``bits`` among its fields.

    Attributes:
        bits: nominal rate, bits per weight without side information; a whole number unless the method says
            otherwise.
        bits_allowed: the nominal rates that the method has, rising in even steps.

    Raises:
        ValueError: ``bits`` is not one of the rates that the method has.
    """

    bits: float
    bits_allowed: Sequence[float] = range(1, 17)

    def __post_init__(self) -> None:
        allowed = self.bits_allowed
        kind = Integral if isinstance(allowed, range) else Real
        if isinstance(self.bits, bool) or not isinstance(self.bits, kind) or self.bits not in allowed:
            steps = "a whole number of" if kind is Integral else f"a multiple of {allowed[1] - allowed[0]:g}"
            raise ValueError(
                f"{type(self).__name__} takes {steps} bits from {allowed[0]:g} to {allowed[-1]:g}, "
                f"not {self.bits!r}."
            )
        plain = int(self.bits) if self.bits == int(self.bits) else float(self.bits)
        object.__setattr__(self, "bits", plain)  # 1 << np.uint8(8) would be 0

    def at(self, bits: float) -> Self:
        """The same method at another nominal rate.

        Raises:
            ValueError: the method does not have that rate.
        """
        return replace(self, bits=bits)

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
