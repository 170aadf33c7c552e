"""What reads a code: checks shared by all methods around the formula of each."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numba import TypingError

from rdlib.code.code import PAYLOAD, Code


class MalformedCode(ValueError):
    """The streams of a code are not what the method that reads it writes."""


class Decoder(ABC):
    """Ŵ from a code: what :func:`rdlib.measure.measure_code` asks of a quantizer or a layer of a checkpoint.

    Attributes:
        bits: nominal rate.
        method: name in tables and plots.
        centred: whether a stream ``mean`` is added to what :meth:`reconstruct` returns.
    """

    bits: float
    method: str
    centred: ClassVar[bool] = False

    def decode(self, code: Code) -> np.ndarray:
        """Ŵ, float32 (out, in), from the code alone.

        A code may come from anywhere: :meth:`reconstruct` applies the formula, and the result is checked.

        Raises:
            MalformedCode: a ValueError; the code lacks a stream, its streams do not fit each other or the shape, or
                they decode to NaN or Inf.
        """
        for name in PAYLOAD:
            if name in code.streams and code[name].dtype.kind != "u":
                raise self._refusal(f"{name!r} holds {code[name].dtype} instead of integers")
        try:
            with np.errstate(all="ignore"):
                W = self._uncentred(code)
        except MalformedCode:  # of an inner decoder, which knows more
            raise
        except (ValueError, ArithmeticError, IndexError, TypeError) as error:
            raise self._refusal(str(error).removesuffix(".")) from error
        except TypingError as error:  # of a compiled loop, over some lines
            raise self._refusal("an array has other dimensions than theirs") from error
        except MemoryError as error:
            raise self._refusal(f"weights {code.shape} do not fit into memory") from error
        if W.shape != tuple(code.shape):
            raise self._refusal(f"they are of weights {W.shape}, but the code is said to be of {code.shape}")
        if (
            W.dtype != np.float32
        ):  # integers in the place of floats, or an alphabet beyond those of the method
            raise self._refusal(f"they make {W.dtype} instead of float32")
        with np.errstate(invalid="ignore"):  # ∞ − ∞
            total = W.sum(dtype=np.float64)
        if not np.isfinite(total):
            raise self._refusal("they decode to NaN or Inf")
        return W

    def _uncentred(self, code: Code) -> np.ndarray:
        if not (self.centred and "mean" in code.streams):
            return self.reconstruct(code)
        rest = {name: stream for name, stream in code.streams.items() if name != "mean"}
        return self.reconstruct(Code(code.shape, rest)) + code.number("mean")

    @abstractmethod
    def reconstruct(self, code: Code) -> np.ndarray:
        """The formula of the method: Ŵ, float32 (out, in), of streams that are taken to be well-formed.

        :meth:`decode` turns errors of numpy into a :class:`MalformedCode`.
        """

    def _refusal(self, reason: str) -> MalformedCode:
        return MalformedCode(f"The streams of this code are not those of {self.method}: {reason}.")
