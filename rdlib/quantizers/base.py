"""What a quantizer is: frozen hyper-parameters; what it learns of the weights is in the code, and paid for."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import ClassVar, Self

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.weights import as_float32, as_matrix, as_moment, with_room


def quarters(low: int, high: int) -> tuple[float, ...]:
    """The rates of an entropy coder, whose step can meet any: every quarter of a bit from ``low`` to ``high``."""
    return tuple(b / 4 for b in range(4 * low, 4 * high + 1))


class Quantizer(Decoder):
    """A method of writing a weight matrix with few bits: a frozen dataclass, with ``bits`` among its fields.

    Attributes:
        bits: nominal rate, bits per weight without side information; a whole number unless the method says
            otherwise.
        bits_allowed: the nominal rates that the method has, rising in even steps.
        uses_H: whether ``encode`` looks at H; if not, it is only checked.
        uses_G: whether it takes G.
        centred: whether a mean beyond σ is taken away before the weights are coded, and sent as ``mean`` (float32).

    Raises:
        ValueError: ``bits`` is not one of the rates that the method has.
    """

    bits: float
    bits_allowed: Sequence[float] = range(1, 17)
    uses_H: ClassVar[bool] = False
    uses_G: ClassVar[bool] = False

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

    def encode(self, W: np.ndarray, H: np.ndarray | None = None, G: np.ndarray | None = None) -> Code:
        """The code of a weight matrix.

        Args:
            W: (out, in), float16, bfloat16 or float32; it is not changed.
            H: E[x xᵀ] of the layer's inputs, (in, in), for methods that use it (``uses_H``).
            G: E[g gᵀ] of the gradients with respect to its outputs, (out, out), for methods that take it (``uses_G``).

        Raises:
            ValueError: ``W`` is no weight matrix or holds NaN or Inf; ``H`` is not symmetric, finite and (in, in), or
                ``G`` (out, out); the method takes no G.
        """
        W = as_matrix(W)
        H = None if H is None else as_moment(H, W.shape[1])
        if G is not None and not self.uses_G:
            raise ValueError(f"{self.method!r} feeds no errors from row to row, and takes no G.")
        sides = {} if G is None else {"G": as_moment(G, W.shape[0], "G", "outputs")}
        if not (self.centred and W.size):
            return self.quantize(W, H, **sides)
        values = as_float32(W)
        power = np.einsum("ij,ij->", values, values, dtype=np.float64) / values.size
        mean = far_mean(values.mean(dtype=np.float64), power)
        return with_mean(self.quantize(with_room(values) - mean if mean else W, H, **sides), mean)

    @abstractmethod
    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        """What a method does: :meth:`encode` of a matrix of a type that it takes, and of an H that was checked.

        Args:
            W: (out, in), to be read by :func:`rdlib.weights.as_float32`.
            H: float64 (in, in), or None.
        """


def far_mean(mean: float, power: float) -> np.float32:
    """μ = E[w] of weights of power E[w²] where it is beyond σ, else 0."""
    return np.float32(mean if 2 * mean**2 > power else 0)


def with_mean(code: Code, mean: np.float32) -> Code:
    """The code of weights whose mean was taken away; the code itself where it is 0.

    Raises:
        ValueError: an inner quantizer took away a mean of its own.
    """
    if "mean" in code.streams:
        raise ValueError(
            "Both a wrapper and the quantizer inside it write a stream 'mean': subtract the mean of W first."
        )
    return Code(code.shape, {**code.streams, "mean": Stream.floats([mean], "float32")}) if mean else code
