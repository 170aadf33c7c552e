"""A tensor of a checkpoint: what it is, where it lies, and its numbers when they are asked for."""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

import ml_dtypes
import numpy as np

from rdlib.models.names import layer_and_group
from rdlib.weights import BFLOAT16

FLOATS = {  # as safetensors names them; F64 can be run, but not analysed
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
}
FP8 = {"F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn), "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2)}
DTYPES = FLOATS | FP8 | {"F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu), "BOOL": np.dtype(bool)}
DTYPES |= {f"{kind}{8 * size}": np.dtype(f"{kind.lower()}{size}") for kind in "IU" for size in (1, 2, 4, 8)}


class Kind(StrEnum):
    """What a tensor is."""

    WEIGHT = "weight"
    CODE = "code of a weight"  # not the weight: it takes scales, a table or zero points to decode
    SCALE = "scale or zero point"  # or any other part of a code that lies beside it
    NORM = "norm"
    BIAS = "bias"
    BUFFER = "buffer"  # follows from the configuration
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Weight:
    """A tensor: what it is, and where it lies.

    Args:
        name: in a plain Llama, see :func:`rdlib.models.names.canonical`.
        layer: 0 …, or −1 for what is no matrix of a layer.
        group: one of q, k, v, o, gate, up, down, embed, lm_head, or other.
        shape: (out, in) of a matrix.
        dtype: as stored, by the name that its container gives it.
        file: that holds it.
        offset: of its first byte in the file.
        nbytes: how many bytes it takes.
        kind: see :mod:`rdlib.models.classify`.
        note: what was decided about it that a reader should know; mostly empty.
        fault: why its numbers cannot be taken for weights, in a sentence; mostly empty.
    """

    name: str
    layer: int
    group: str
    shape: tuple[int, ...]
    dtype: str
    file: Path = Path()
    offset: int = 0
    nbytes: int = 0
    kind: Kind = Kind.UNKNOWN
    note: str = ""
    fault: str = ""

    @classmethod
    def named(cls, name: str, shape: tuple[int, ...], dtype: str, *where: object, **more: object) -> "Weight":
        """A tensor whose layer and group follow from its name; ``where`` is file, offset and nbytes."""
        layer, group = layer_and_group(name)
        return cls(name, layer, group or "other", shape, dtype, *where, **more)

    def renamed(self, name: str) -> "Weight":
        """The same tensor by another name."""
        layer, group = layer_and_group(name)
        return replace(self, name=name, layer=layer, group=group or "other")

    @property
    def label(self) -> str:
        """Short name for tables: the layer and the group."""
        return self.group if self.layer < 0 else f"{self.layer}.{self.group}"

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(out, in): the last axis stays, the others are joined; a vector is one row."""
        return (math.prod(self.shape[:-1]), self.shape[-1] if self.shape else 1)

    @property
    def parts(self) -> tuple["Weight", ...]:
        """Itself, and whatever else has to be read to decode it."""
        return (self,)

    def stored(self) -> np.ndarray:
        """The numbers as they are stored, of any type: a read-only array mapped into memory.

        Raises:
            ValueError: NumPy has no such type, or the bytes are not as many as the shape says.
        """
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name} is {self.dtype}, which cannot be read.")
        dtype = DTYPES[self.dtype]
        if self.size * dtype.itemsize != self.nbytes:
            raise ValueError(f"{self.name} has {self.nbytes} bytes, which is not {self.dtype} {self.shape}.")
        if not self.nbytes:
            return np.zeros(self.shape, dtype)
        try:
            raw = np.memmap(self.file, np.uint8, "r", self.offset, (self.nbytes,))
        except (OSError, ValueError) as error:  # gone, or cut short, since its header was read
            raise ValueError(f"{self.name} cannot be read from {self.file.name}: {error}.") from None
        return np.asarray(raw).view(dtype).reshape(self.shape)

    def values(self) -> np.ndarray:
        """What the network multiplies with: of a float type, decoded where it is stored as a code.

        Raises:
            ValueError: the tensor is not of a float type, or its numbers cannot be taken for weights.
        """
        if self.fault:
            raise ValueError(self.fault)
        if self.dtype not in FLOATS | FP8:
            raise ValueError(self._unfit)
        W = self.stored()
        if self.dtype in FP8 and (np.abs(W) == ml_dtypes.finfo(W.dtype).max).any():
            raise ValueError(
                f"{self.name} reaches the largest number of {self.dtype}: these are codes, and their scale is missing."
            )
        return W

    def refuse_unscaled(self) -> None:
        """Raise for 8-bit floats without a scale: a census can say so beside its numbers, a network cannot."""
        if self.dtype in FP8:
            raise ValueError(
                f"{self.name} is {self.dtype} without a scale: it cannot be known whether these are the weights; "
                "cast it to float16, bfloat16 and float32 can be analysed."
            )

    def matrix(self) -> np.ndarray:
        """W (out, in) for quantizers: float16, bfloat16, float32 or FP8, mapped and not read where nothing is decoded.

        Raises:
            ValueError: as :meth:`values`, or the type is too wide.
        """
        W = self.values()
        if W.dtype == np.float64:
            raise ValueError(self._unfit)
        return W.reshape(self.matrix_shape)

    @property
    def _unfit(self) -> str:
        return f"{self.name} is {self.dtype}; float16, bfloat16 and float32 can be analysed, and FP8 with its scales."


@dataclass(frozen=True)
class Absent(Weight):
    """A tensor that an index names and its file lacks; ``fault`` says so."""

    def stored(self) -> np.ndarray:
        raise ValueError(self.fault)


@dataclass(frozen=True)
class Scaled(Weight):
    """W = q · s: codes q of 8 bits with a scale s of any granularity.

    Along every axis s has one entry, one for each of its n places, or one for each block of neighbours, the last of
    which may be shorter.

    Args:
        scale: s; (), (1,), (out,), (in,), or as many axes as the weight.
        block: how long the blocks are along the last axes, where the settings say so.
    """

    scale: Weight = field(kw_only=True)
    block: tuple[int, ...] = field(default=(), kw_only=True)

    @property
    def parts(self) -> tuple[Weight, ...]:
        return (self, self.scale)

    def refuse_unscaled(self) -> None:
        """There is a scale."""

    def values(self) -> np.ndarray:
        """W, float32: the products are rounded once, as a kernel with float32 scales does.

        Raises:
            ValueError: the scale does not fit the codes, holds NaN or Inf, or is larger than 1, as its reciprocal is.
        """
        scale = self.scale.stored().astype(np.float32)
        if not np.isfinite(scale).all():
            raise ValueError(f"{self.scale.name} holds NaN or Inf: {self.name} cannot be decoded.")
        if (times := np.median(np.abs(scale))) > 1:
            raise ValueError(
                f"{self.scale.name} makes the weights {times:.3g} times larger than their codes: it is not the scale "
                "that multiplies."
            )
        wide = self.stored().astype(np.float32)
        wide *= self._spread(scale)
        return wide

    def _spread(self, scale: np.ndarray) -> np.ndarray:
        """The scale in a shape that broadcasts to the weight's."""
        shape = self.shape
        if scale.size == 1:
            return scale.reshape(())
        if (
            scale.ndim == 1 and len(shape) == 2 and len(scale) in shape
        ):  # of the outputs, or else of the inputs
            scale = scale[:, None] if len(scale) == shape[0] else scale[None]
        if scale.ndim != len(shape):
            raise ValueError(self._misfit)
        blocks = (0,) * (len(shape) - len(self.block)) + self.block
        for axis, (n, block) in enumerate(zip(shape, blocks, strict=True)):
            scale = self._along(scale, axis, n, block)
        return scale

    def _along(self, scale: np.ndarray, axis: int, n: int, block: int) -> np.ndarray:
        """The scale with every entry of one axis repeated for the n places that it is for."""
        count = scale.shape[axis]
        if count in (1, n):
            return scale
        length = block or block_length(n, count)
        if not length or -(-n // length) != count:
            raise ValueError(self._misfit)
        return np.take(scale, np.arange(n) // length, axis)

    @property
    def _misfit(self) -> str:
        blocks = f" in blocks of {' × '.join(map(str, self.block))}" if self.block else ""
        return f"{self.scale.name} {self.scale.shape} does not fit {self.name} {self.shape}{blocks}."


def block_length(n: int, count: int) -> int:
    """How long blocks are that n places make ``count`` of: a power of two, or else n / count; 0 where neither fits.

    >>> block_length(576, 5), block_length(60, 5), block_length(7, 3)
    (128, 12, 0)
    """
    if not 1 < count <= n:
        return 0
    power = 1 << (-(-n // count) - 1).bit_length()  # the least with no more than so many blocks
    if -(-n // power) == count:
        return power
    return n // count if n % count == 0 else 0
