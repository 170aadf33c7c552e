"""AWQ: the columns of strong inputs are made larger, so that their errors are smaller."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.linalg.blas import strmm

from rdlib.code.code import Code, Stream
from rdlib.quantizers.wrappers import Wrapper
from rdlib.weights import as_float32

STEPS = 20  # of the search over the exponent, as in the authors' code


@dataclass(frozen=True)
class AWQ(Wrapper):
    """Ŵ = Q(W·diag(s))·diag(s)⁻¹ with s_j = H_jj^(a/2), a one of 0, 1/20, … 1: that of the least output error.

    √H_jj, the root mean square of input j, replaces the mean magnitude of the paper; a = 0 is the inner quantizer,
    and without H it is the choice.  The scales are *paid for*: the stream ``channel_scale`` has 16 bits a column.
    (A deployment may fold them into the layer before, where there is one, and save 16 / out bits a weight.)

    Args:
        inner: the quantizer of the scaled weights; it sees diag(s)⁻¹·H·diag(s)⁻¹.

    References:
        Lin et al. 2023, arXiv:2306.00978, equations 4 and 5.
    """

    uses_H: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"AWQ {self.inner.method}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        if H is None or not values.size:
            return self._scaled(values, H, np.ones(values.shape[1]))
        power = np.maximum(np.diagonal(H), 1e-8 * max(np.diagonal(H).max(), np.finfo(float).tiny))
        upper, largest = np.triu(H / power.max()).astype(np.float32), np.abs(values).max() or 1
        upper[np.diag_indices(len(upper))] /= 2  # H is this and its transpose

        def output_error(code: Code) -> float:
            """½·tr(E·H·Eᵀ) = ⟨E·T, E⟩, T the upper triangle of H: half the work of a product with H."""
            error = (values - self.decode(code)) / largest
            return float(np.vdot(strmm(1, upper.T, error.T, lower=True).T, error))

        exponents = (step / STEPS / 2 for step in range(STEPS + 1))
        scales = (power**a for a in exponents)
        return min(
            (self._scaled(values, H, s / np.sqrt(s.max() * s.min())) for s in scales), key=output_error
        )

    def _scaled(self, W: np.ndarray, H: np.ndarray | None, s: np.ndarray) -> Code:
        """The code with given scales."""
        scale = Stream.floats(s)
        s = scale.array.astype(np.float32)
        H = H / np.outer(s, s).astype(np.float64) if H is not None and self.inner.uses_H else None
        inner = self.inner.encode(W * s, H)
        return self.wrapped(inner, channel_scale=scale)

    def reconstruct(self, code: Code) -> np.ndarray:
        s = code["channel_scale"].astype(np.float32)
        return self.inner.decode(self.unwrapped(code, "channel_scale")) / s
