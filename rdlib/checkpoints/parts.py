"""The stored tensors of one quantized layer, each checked when it is taken."""

from collections.abc import Callable, Collection

import ml_dtypes
import numpy as np

from rdlib.models.checkpoint import Checkpoint
from rdlib.weights import DTYPES, refuse_non_finite


class LayerTensors:
    """What is stored for one layer.

    Args:
        stem: what the names of its tensors begin with, without the last dot.
        suffixes: the rest of their names.
        load: a tensor, by the rest of its name.
        shape: of a tensor, by the rest of its name.
    """

    def __init__(
        self,
        stem: str,
        suffixes: Collection[str],
        load: Callable[[str], np.ndarray],
        shape: Callable[[str], tuple[int, ...]],
    ):
        self.stem = stem
        self.suffixes = suffixes
        self._load = load
        self._shape = shape

    @classmethod
    def of(cls, checkpoint: Checkpoint, stem: str) -> "LayerTensors":
        """Those of a layer in a checkpoint, which reads a tensor when it is taken."""
        start = f"{stem}."
        suffixes = [name.removeprefix(start) for name in checkpoint.names if name.startswith(start)]
        return cls(
            stem,
            suffixes,
            lambda suffix: checkpoint.stored(start + suffix),
            lambda suffix: checkpoint.tensors[start + suffix].shape,
        )

    def __contains__(self, suffix: str) -> bool:
        return suffix in self.suffixes

    def name(self, suffix: str) -> str:
        """The full name of a tensor."""
        return f"{self.stem}.{suffix}"

    def shape(self, suffix: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor, which is not read.

        Raises:
            ValueError: it is missing, or has another number of dimensions.
        """
        self._refuse_missing(suffix)
        shape = self._shape(suffix)
        self._expect_dimensions(suffix, shape, dimensions)
        return shape

    def dtype(self, suffix: str) -> str:
        """The type of a tensor.

        Raises:
            ValueError: it is missing.
        """
        return self._take(suffix).dtype.name

    def integers(self, suffix: str, *dtypes: str, dimensions: int | None = None) -> np.ndarray:
        """A tensor of one of some integer types, of any number of dimensions where None.

        Raises:
            ValueError: it is missing, or of another type or number of dimensions.
        """
        array = self._take(suffix)
        if dimensions is not None:
            self._expect_dimensions(suffix, array.shape, dimensions)
        if array.dtype.name not in dtypes:
            raise ValueError(f"{self.name(suffix)} is {array.dtype}, but it should be {' or '.join(dtypes)}.")
        return array

    def floats(self, suffix: str, *, dimensions: int | None = None) -> np.ndarray:
        """A tensor of float16, bfloat16 or float32, of any number of dimensions where None.

        Raises:
            ValueError: it is missing, holds NaN or Inf, or is of another type or number of dimensions.
        """
        array = self._take(suffix)
        if dimensions is not None:
            self._expect_dimensions(suffix, array.shape, dimensions)
        if array.dtype not in DTYPES:
            raise ValueError(f"{self.name(suffix)} is {array.dtype}, but it should be a float type.")
        refuse_non_finite(array, self.name(suffix))
        return array

    def patterns(self, suffix: str, *dtypes: str, dimensions: int) -> np.ndarray:
        """The bytes of a tensor of one of some types of 8 bits, uint8.

        Raises:
            ValueError: it is missing, holds NaN, or is of another type or number of dimensions.
        """
        array = self.integers(suffix, *dtypes, dimensions=dimensions)
        if array.dtype.name.startswith("float8"):
            refuse_non_finite(array, self.name(suffix))
        return np.ascontiguousarray(array).view(np.uint8)

    def exponents(self, suffix: str) -> np.ndarray:
        """Bytes e that stand for 2^(e − 127), float8_e8m0fnu (n, m).

        Raises:
            ValueError: they are missing, of another type or number of dimensions, or one is 255, which is NaN.
        """
        array = self.integers(suffix, "uint8", "float8_e8m0fnu", dimensions=2).view(ml_dtypes.float8_e8m0fnu)
        refuse_non_finite(array, self.name(suffix))
        return array

    def tiled(self, suffix: str, shape: tuple[int, ...], reason: str, *dtypes: str) -> np.ndarray:
        """A tensor with a number for each tile: of a float type, or of one of some others; axes of 1 may be left out.

        Raises:
            ValueError: it is missing, or of another type or shape than ``reason`` makes it, or holds NaN or Inf.
        """
        array = self.integers(suffix, *dtypes) if dtypes else self.floats(suffix)
        if [n for n in array.shape if n != 1] != [n for n in shape if n != 1]:
            self.expect(suffix, array, shape, reason)
        return array.reshape(shape)

    def octets(self, suffix: str) -> np.ndarray:
        """The bytes of a tensor, whatever type they were stored as, uint8 (n,).

        Raises:
            ValueError: it is missing.
        """
        return self._take(suffix).reshape(-1).view(np.uint8)

    def expect(self, suffix: str, array: np.ndarray, shape: tuple[int, ...], reason: str) -> None:
        """Raise unless a tensor has the shape that follows from ``reason``."""
        if array.shape != shape:
            raise ValueError(
                f"{self.name(suffix)} has the shape {array.shape}, but {reason} makes it {shape}."
            )

    def _expect_dimensions(self, suffix: str, shape: tuple[int, ...], dimensions: int) -> None:
        if len(shape) != dimensions:
            raise ValueError(
                f"{self.name(suffix)} has the shape {shape}, but it should have {dimensions} dimensions."
            )

    def _take(self, suffix: str) -> np.ndarray:
        self._refuse_missing(suffix)
        return self._load(suffix)

    def _refuse_missing(self, suffix: str) -> None:
        if suffix not in self:
            raise ValueError(
                f"The tensor {self.name(suffix)} is missing: the layer cannot be decoded without it."
            )
