"""What bitsandbytes decodes: Ŵ of a quantizer of :mod:`rdlib.quantizers.blocks`, rounded to the type of the weights."""

from dataclasses import dataclass

import numpy as np

from rdlib.code.code import Code
from rdlib.code.decoder import Decoder
from rdlib.code.floats import FLOATS
from rdlib.quantizers.base import Quantizer


@dataclass(frozen=True)
class Rounded(Decoder):
    """Ŵ of a quantizer, rounded to the float type that the weights had.

    Args:
        inner: the quantizer.
        dtype: float16, bfloat16 or float32.
    """

    inner: Quantizer
    dtype: str

    @property
    def bits(self) -> int:
        return self.inner.bits

    @property
    def method(self) -> str:
        return f"bitsandbytes {self.inner.method}"

    def reconstruct(self, code: Code) -> np.ndarray:
        return self.inner.decode(code).astype(FLOATS[self.dtype]).astype(np.float32)
