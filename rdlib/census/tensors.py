"""Tensors of a checkpoint, mapped into memory and not loaded, and read a block of rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from rdlib.histogram import Histogram
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.weight import Kind, Weight

BLOCK = 1 << 24  # weights that are looked at together: 64 MiB as float32


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
    """FP8 as float32, exactly; every other type as it is."""
    return W.astype(np.float32) if W.dtype.itemsize == 1 else W


def histogram_of(W: np.ndarray) -> Histogram:
    """The exact histogram of a matrix of a float type of at most 32 bits, a block of rows at a time.

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


def stored_tensors(model: Checkpoint | Path) -> list[Weight]:
    """All tensors of a checkpoint but the scales of others, file by file, in the order in which they lie there.

    Raises:
        ValueError: the folder holds no safetensors, lacks a shard of its index, or a shard is cut short.
    """
    checkpoint = model if isinstance(model, Checkpoint) else Checkpoint(model)
    tensors = [w for w in checkpoint.tensors.values() if w.kind is not Kind.SCALE]
    return sorted(tensors, key=lambda w: (w.file, w.offset))
