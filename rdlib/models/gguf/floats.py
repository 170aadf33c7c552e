"""Tensors that were not quantized: F32, F16 and BF16, as sign, exponent and mantissa."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rdlib.models.gguf.blocks import Fields, TensorType
from rdlib.models.gguf.fields import Field, words
from rdlib.weights import BFLOAT16


@dataclass(frozen=True, eq=False)
class FloatType(TensorType):
    """w = (−1)^s · 1.m · 2^(e − bias): a float, whose three fields are three streams.

    Split so, they show what a lossless coder would save: exponents have few values, mantissas hardly any structure.

    Args:
        method: name of the type.
        dtype: the same type in NumPy.
        exponent: bits.
        mantissa: bits.
    """

    method: str
    dtype: np.dtype
    exponent: int
    mantissa: int
    size = 1

    @property
    def bytes(self) -> int:
        return (1 + self.exponent + self.mantissa) // 8

    @property
    def fields(self) -> Mapping[str, Field]:
        return {
            "mantissa": words(0, 1, self.mantissa),
            "exponent": words(0, 1, self.exponent, bit=self.mantissa),
            "sign": words(0, 1, 1, bit=self.mantissa + self.exponent),
        }

    def compute(self, fields: Fields, out: np.ndarray) -> None:
        whole = fields["sign"].astype(np.uint32) << (self.exponent + self.mantissa)
        whole |= fields["exponent"].astype(np.uint32) << self.mantissa
        whole |= fields["mantissa"]
        out[:] = whole.astype(f"<u{self.bytes}").view(self.dtype)

    def weights(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """As :meth:`TensorType.weights`, without taking the numbers apart."""
        values = rows.view(self.dtype)
        if out is None:
            return values.astype(np.float32)
        out[:] = values
        return out


F32 = FloatType("F32", np.dtype(np.float32), 8, 23)
F16 = FloatType("F16", np.dtype(np.float16), 5, 10)
BF16 = FloatType("BF16", BFLOAT16, 8, 7)
