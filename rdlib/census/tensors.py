"""Tensors of a checkpoint where they lie: mapped into memory, not loaded, and read a block of rows at a time."""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from rdlib.histogram import Histogram
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import layer_and_group
from rdlib.weights import BFLOAT16

BLOCK = 1 << 24  # weights that are looked at together: 64 MiB as float32
DTYPES = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": BFLOAT16,
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}


@dataclass(frozen=True)
class Stored:
    """Where a tensor lies.

    Args:
        name: in the checkpoint.
        file: that holds it.
        start: first byte in the file.
        nbytes: how many bytes it takes.
        shape: as stored.
        dtype: as safetensors names it.
    """

    name: str
    file: Path
    start: int
    nbytes: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def layer(self) -> int:
        """0 …, or −1 for what belongs to no layer."""
        return layer_and_group(self.name)[0]

    @property
    def group(self) -> str:
        """One of q, k, v, o, gate, up, down, embed, lm_head, or other."""
        return layer_and_group(self.name)[1] or "other"

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(out, in): the last axis stays, the others are joined; a vector is one row."""
        columns = self.shape[-1] if self.shape else 1
        return (math.prod(self.shape[:-1]), columns)

    def matrix(self) -> np.ndarray:
        """The tensor as a read-only matrix (out, in) in the type in which it is stored, mapped, not read.

        Raises:
            ValueError: it is not of a float type, or its bytes are not as many as its shape says.
        """
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name} is {self.dtype}; a census takes {', '.join(DTYPES)}.")
        dtype, shape = DTYPES[self.dtype], self.matrix_shape
        if math.prod(shape) * dtype.itemsize != self.nbytes:
            raise ValueError(f"{self.name} has {self.nbytes} bytes, which is not {self.dtype} {self.shape}.")
        if not self.nbytes:
            return np.zeros(shape, dtype)
        raw = np.memmap(self.file, np.uint8, "r", self.start, (self.nbytes,))
        return np.asarray(raw).view(dtype).reshape(shape)


def row_blocks(W: np.ndarray, rows: int = 1) -> Iterator[np.ndarray]:
    """The matrix in blocks of at most ``BLOCK`` weights, or of ``rows`` rows where these are more.

    Args:
        W: (out, in).
        rows: every block but the last is a multiple of so many rows.
    """
    step = max(BLOCK // max(W.shape[1], 1) // rows, 1) * rows
    for begin in range(0, len(W), step):
        yield W[begin : begin + step]


def widened(W: np.ndarray) -> np.ndarray:
    """FP8 as float32, which holds all its values; every other type as it is."""
    return W.astype(np.float32) if W.dtype.itemsize == 1 else W


def histogram_of(W: np.ndarray) -> Histogram:
    """The exact histogram of a matrix of any of ``DTYPES``, a block of rows at a time.

    Raises:
        ValueError: the matrix holds NaN or Inf.
    """
    if W.dtype.itemsize == 1:
        return _histogram_8_bit(W)
    parts = [Histogram.of(block) for block in row_blocks(W)]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _histogram_8_bit(W: np.ndarray) -> Histogram:
    counts = sum(
        (np.bincount(block.view(np.uint8).ravel(), minlength=256) for block in row_blocks(W)),
        np.zeros(256, np.int64),
    )
    patterns = np.flatnonzero(counts)
    values = patterns.astype(np.uint8).view(W.dtype).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("W holds NaN or Inf: quantizers need finite weights.")
    return _joined([Histogram(values, counts[patterns])])


def _joined(parts: list[Histogram]) -> Histogram:
    """One histogram of all; equal values are counted together, +0 and −0 too."""
    if not parts:
        return Histogram(np.empty(0, np.float32), np.empty(0, np.int64))
    counts = np.concatenate([part.counts for part in parts])
    values, where = np.unique(np.concatenate([part.values for part in parts]), return_inverse=True)
    return Histogram(values, np.bincount(where, counts, len(values)).astype(np.int64))


def stored_tensors(folder: Path) -> list[Stored]:
    """All tensors of a checkpoint, by the names of their files, in the order in which they lie there.

    Raises:
        ValueError: the folder holds no safetensors, lacks a shard of its index, or a shard is cut short.
    """
    checkpoint = Checkpoint(folder)  # says what is wrong with the folder and its index
    found = {}
    for file in sorted({checkpoint.folder / name for name in checkpoint.file_of.values()}):
        found |= {tensor.name: tensor for tensor in _header(file)}
    if missing := [name for name in checkpoint.names if name not in found]:
        raise ValueError(f"{folder.name} lacks the tensor {missing[0]!r} of its index.")
    return sorted((found[name] for name in checkpoint.names), key=lambda t: (t.file, t.start))


def _header(file: Path) -> list[Stored]:
    """What the header of a safetensors file says (https://github.com/huggingface/safetensors)."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > size:
                raise ValueError("its header is longer than the file")
            entries = json.loads(stream.read(length))
        entries.pop("__metadata__", None)
        tensors = [
            Stored(name, file, 8 + length + begin, end - begin, tuple(entry["shape"]), entry["dtype"])
            for name, entry in entries.items()
            for begin, end in [entry["data_offsets"]]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise ValueError(f"{file.name} is truncated or no safetensors file: {error}.") from None
    if size < max((t.start + t.nbytes for t in tensors), default=0):
        raise ValueError(f"{file.name} is truncated: its header describes more bytes than it has.")
    return tensors
