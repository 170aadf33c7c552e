"""Numbers at the width of a float type."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from rdlib.code.format import Format

FLOATS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float8_e8m0fnu": np.dtype(ml_dtypes.float8_e8m0fnu),
    "float8_e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
}


@dataclass(frozen=True)
class Float(Format):
    """Numbers at the width of a float type.

    Args:
        dtype: float32, float16, bfloat16, float8_e8m0fnu (a power of two) or float8_e4m3fn.
    """

    dtype: str = "float16"

    @property
    def _numpy(self) -> np.dtype:
        if self.dtype not in FLOATS:
            raise ValueError(f"Unknown float format {self.dtype!r}; known are {', '.join(FLOATS)}.")
        return FLOATS[self.dtype]

    def round(self, values: np.ndarray) -> np.ndarray:
        """Values rounded to the format.

        Raises:
            ValueError: a finite value is beyond the largest of the format, or negative where it has no sign.
        """
        if self.dtype == "float8_e8m0fnu":
            values = np.where(values == 0, 2.0**-127, values)  # it has no zero: its smallest power of two
        with np.errstate(over="ignore"):
            rounded = values.astype(self._numpy)
        lost = np.isfinite(values) & ~np.isfinite(rounded.astype(np.float64))
        if lost.any():
            raise ValueError(
                f"{values[lost].flat[0]:.3g} does not fit {self.dtype}: choose another format for the scales."
            )
        return rounded

    def bits_for(self, count: int) -> int:
        return 8 * self._numpy.itemsize * count

    def pack(self, array: np.ndarray) -> bytes:
        return np.ascontiguousarray(array.astype(self._numpy)).tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        self.expect(data, shape)
        array = np.frombuffer(data, self._numpy).reshape(shape)
        if not np.isfinite(array).all():
            raise ValueError(f"A stream of {self.dtype} holds NaN or Inf, which no encoder writes.")
        return array
