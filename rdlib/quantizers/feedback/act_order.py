"""Act-order: the columns of strong inputs first."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.quantizers.wrappers import Wrapper
from rdlib.weights import as_float32


@dataclass(frozen=True)
class ActOrder(Wrapper):
    """Ŵ = Q(W·P)·Pᵀ, P the permutation that sorts the inputs by falling power H_jj.

    The column that is rounded first has all others to make up for its error.  The sort is stable, so that equal
    powers, or no H, change nothing.  Groups are those of neighbours in the new order.  Streams: those of the inner
    code, and ``permutation`` (log₂(in) bits a column), because the decoder does not know H.

    Args:
        inner: a quantizer with error feedback.

    References:
        Frantar et al. 2022, arXiv:2210.17323: the option ``--act-order`` of their code.
    """

    uses_H: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"act-order {self.inner.method}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        power = np.zeros(values.shape[1]) if H is None else np.diagonal(H)
        order = np.argsort(-power, kind="stable")
        inner = self.inner.encode(values[:, order], None if H is None else H[order][:, order])
        permutation = Stream.fixed(order, max(len(order), 1))
        return self.wrapped(inner, permutation=permutation)

    def reconstruct(self, code: Code) -> np.ndarray:
        back = np.argsort(code["permutation"], kind="stable")
        if not np.array_equal(code["permutation"][back], np.arange(code.shape[1])):
            raise ValueError("The stream 'permutation' does not name every column once.")
        return np.ascontiguousarray(self.inner.decode(self.unwrapped(code, "permutation"))[:, back])
