"""Vector quantizers with trained codebooks: d neighbouring weights are written as one index.

The codebooks are float16 in units of the largest weight, and they are paid for: 2^(R·d)·d·16 bits each.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.vector.kmeans import centroids
from rdlib.quantizers.vector.lloyd import nearest
from rdlib.quantizers.vector.runs import as_runs, from_runs
from rdlib.weights import as_float32, ratio, with_room

INDEX_BITS = 16  # at most: a codebook of 65,536 entries
LONGEST = 16  # weights of a run


@dataclass(frozen=True)
class _Codebooks(Quantizer):
    """ŵ = s·c_q: the run of d weights nearest to w in a codebook that k-means found.

    Args:
        bits: nominal rate R, a multiple of 1/d; a codebook has 2^(R·d) entries, at most 65,536.
        dimension: d, weights of a run; where it does not divide the row, zeros fill up the last run.

    Raises:
        ValueError: the dimension is less than 1 or more than 16.
    """

    bits: float
    dimension: int = 4
    centred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.dimension not in range(1, LONGEST + 1):
            raise ValueError(f"A run holds 1 to {LONGEST} weights, not {self.dimension!r}.")
        super().__post_init__()

    @property
    def bits_allowed(self) -> tuple[float, ...]:
        return tuple(k / self.dimension for k in range(1, INDEX_BITS + 1))

    @property
    def entries(self) -> int:
        """How many a codebook has, unless there are fewer runs."""
        return 1 << round(self.bits * self.dimension)

    @abstractmethod
    def _codebook_of(self, runs: tuple[int, int]) -> np.ndarray:
        """Which codebook each run is written with, integer (out, runs of a row)."""

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = with_room(as_float32(W))
        runs, scale = _normalised(values, self.dimension)
        which = self._codebook_of(runs.shape[:2])
        index, books = np.zeros(which.shape, np.int64), []
        for c in range(which.max(initial=-1) + 1):
            book = Stream.floats(centroids(runs[which == c], self.entries)).array
            index[which == c] = nearest(runs[which == c], book.astype(np.float32))
            books.append(book)
        size = max((len(book) for book in books), default=1)
        codebook = np.zeros((len(books), size, self.dimension), np.float16)
        for c, book in enumerate(books):
            codebook[c, : len(book)] = book
        streams = {
            "index": Stream.fixed(index, size),
            "codebook": Stream.floats(codebook),
            "scale": Stream.floats([scale], "float32"),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        index = code["index"]
        books = code.number("scale") * code["codebook"].astype(np.float32)
        return from_runs(books[self._codebook_of(index.shape), index], code.shape)


@dataclass(frozen=True)
class VectorQuantizer(_Codebooks):
    """ŵ = s·c_q, one codebook for all runs of d weights.

    Streams: ``index`` (R·d bits a run), ``codebook`` (float16), ``scale`` (s, the largest weight, float32).

    References:
        Linde, Buzo and Gray 1980, doi:10.1109/TCOM.1980.1094577.
    """

    @property
    def method(self) -> str:
        return f"k-means d={self.dimension}"

    def _codebook_of(self, runs: tuple[int, int]) -> np.ndarray:
        return np.zeros(runs, np.int64)


@dataclass(frozen=True)
class MultiCodebook(_Codebooks):
    """ŵ = s·c_{m,q}, the runs dealt in turn to M codebooks, run j of the matrix to codebook j mod M.

    All codebooks see the same distribution, so that they cost M times as much and gain next to nothing: it is
    here because it is often called product quantization, which it is not.  Streams as of
    :class:`VectorQuantizer`.

    Args:
        bits: nominal rate.
        dimension: d.
        codebooks: M.

    Raises:
        ValueError: there is less than one codebook.
    """

    codebooks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebooks < 1:
            raise ValueError(f"Runs are dealt to at least 1 codebook, not {self.codebooks}.")

    @property
    def method(self) -> str:
        return f"multi-codebook d={self.dimension} ×{self.codebooks}"

    def _codebook_of(self, runs: tuple[int, int]) -> np.ndarray:
        return (np.arange(runs[0] * runs[1]) % self.codebooks).reshape(runs)


@dataclass(frozen=True)
class ProductQuantizer(_Codebooks):
    """ŵ = s·c_{m,q}, one codebook for each sub-space m of d input channels: a row is written as in/d indices.

    The vectors are whole rows, so that each codebook is trained on and paid for by as many vectors as W has
    rows.  Streams as of :class:`VectorQuantizer`.

    References:
        Jégou, Douze and Schmid 2011, doi:10.1109/TPAMI.2010.57.
    """

    @property
    def method(self) -> str:
        return f"PQ d={self.dimension}"

    def _codebook_of(self, runs: tuple[int, int]) -> np.ndarray:
        return np.broadcast_to(np.arange(runs[1]), runs)


@dataclass(frozen=True)
class ResidualQuantizer(Quantizer):
    """ŵ = s·Σ c_{m,q_m}, each codebook trained on what the ones before it left over.

    M codebooks of 2^(R·d/M) entries do the work of one of 2^(R·d), not as well, but for far fewer bits of
    codebook.  Streams as of :class:`VectorQuantizer`, ``index`` (out, runs of a row, M).

    Args:
        bits: nominal rate R, a multiple of M/d.
        dimension: d, weights of a run.
        stages: M.

    Raises:
        ValueError: there is less than one stage, or a run does not hold 1 to 16 weights.

    References:
        Juang and Gray 1982, doi:10.1109/ICASSP.1982.1171604.
    """

    bits: float
    dimension: int = 8
    stages: int = 2
    centred: ClassVar[bool] = True
    stage_bits: ClassVar[int] = 12  # of an index of one stage, at most

    def __post_init__(self) -> None:
        if self.dimension not in range(1, LONGEST + 1) or self.stages < 1:
            raise ValueError(
                f"A run holds 1 to {LONGEST} weights and a residual code at least 1 stage, "
                f"not {self.dimension!r} and {self.stages!r}."
            )
        super().__post_init__()

    @property
    def bits_allowed(self) -> tuple[float, ...]:
        return tuple(k * self.stages / self.dimension for k in range(1, self.stage_bits + 1))

    @property
    def method(self) -> str:
        return f"residual VQ d={self.dimension} ×{self.stages}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = with_room(as_float32(W))
        runs, scale = _normalised(values, self.dimension)
        rest, entries = runs.reshape(-1, self.dimension), 1 << round(self.bits * self.dimension / self.stages)
        index = np.zeros((*runs.shape[:2], self.stages), np.int64)
        codebook = np.zeros((self.stages, entries, self.dimension), np.float16)
        for stage in range(self.stages if rest.size else 0):
            book = Stream.floats(centroids(rest, entries)).array
            q = nearest(rest, book.astype(np.float32))
            codebook[stage, : len(book)] = book
            index[..., stage] = q.reshape(runs.shape[:2])
            rest = rest - book.astype(np.float32)[q]
        size = int(index.max(initial=0)) + 1
        streams = {
            "index": Stream.fixed(index, size),
            "codebook": Stream.floats(codebook[:, :size]),
            "scale": Stream.floats([scale], "float32"),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        index = code["index"]
        books = code.number("scale") * code["codebook"].astype(np.float32)
        total = np.zeros((*index.shape[:2], books.shape[-1]), np.float32)
        for stage in range(index.shape[2]):
            total += books[stage][index[..., stage]]
        return from_runs(total, code.shape)


def _normalised(values: np.ndarray, dimension: int) -> tuple[np.ndarray, np.float32]:
    """Runs of weights in units of the largest, float32 (out, runs, d), and that largest."""
    scale = np.float32(np.abs(values).max(initial=0))
    return as_runs(ratio(values, scale), dimension).astype(np.float32), scale
