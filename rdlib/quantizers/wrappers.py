"""Wrappers: a quantizer around a quantizer."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from rdlib.code.ans import ClassifiedAns
from rdlib.code.code import Code, Stream, frequency_table
from rdlib.code.fixed import Fixed
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.granularity import Granularity, PerGroup
from rdlib.weights import as_float32


@dataclass(frozen=True)
class Wrapper(Quantizer):
    """A quantizer that hands a changed matrix to, or changes the code of, an inner one of the same rate.

    Args:
        inner: the quantizer inside.
    """

    inner: Quantizer

    def __post_init__(self) -> None:
        """The inner quantizer has checked its rate."""

    @property
    def bits(self) -> int:
        return self.inner.bits

    @property
    def bits_allowed(self) -> range:
        return self.inner.bits_allowed

    def at(self, bits: int) -> Self:
        return replace(self, inner=self.inner.at(bits))


@dataclass(frozen=True)
class EntropyCoded(Wrapper):
    """The same Ŵ as the inner quantizer, its index stream written with H(index) bits instead of log₂ of its size.

    Streams: those of the inner code, ``index`` entropy-coded, and ``table`` (a byte a symbol).
    """

    @property
    def method(self) -> str:
        return f"entropy-coded {self.inner.method}"

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        code = self.inner.encode(W, H)
        table = frequency_table(code["index"], code.streams["index"].format.size)
        coded = Stream.coded(code["index"], table)
        return Code(code.shape, {"table": table} | dict(code.streams) | {"index": coded})

    def reconstruct(self, code: Code) -> np.ndarray:
        index = Stream(code["index"], Fixed(len(code["table"])))
        return self.inner.decode(Code(code.shape, dict(code.streams) | {"index": index}))


@dataclass(frozen=True)
class RowClassified(Wrapper):
    """The same Ŵ as the inner quantizer, its index entropy-coded with one table for each class of rows.

    Rows are classified by their power, so that a weight of a weak row costs fewer bits than the same weight of
    a strong one, while the distortion stays the same for all: what reverse water-filling asks for.  Streams:
    those of the inner code, ``row_class`` (log₂ of the number of classes a row), ``table`` (a byte a symbol and
    class), and ``index``.

    Args:
        inner: a quantizer whose index has the shape of W.
        classes: of equally many rows, from weak to strong.

    Raises:
        ValueError: there is less than one class.
    """

    classes: int = 8

    def __post_init__(self) -> None:
        if self.classes < 1:
            raise ValueError(f"Rows fall into at least 1 class, not {self.classes}.")

    @property
    def method(self) -> str:
        return f"{self.inner.method.removesuffix(' tensor')} row classes"

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        code = self.inner.encode(W, H)
        index, size = code["index"], code.streams["index"].format.size
        rank = np.argsort(np.argsort((as_float32(W).astype(np.float64) ** 2).sum(axis=1), kind="stable"))
        row_class = Stream.fixed(rank * self.classes // max(len(rank), 1), self.classes)
        tables = [frequency_table(index[row_class.array == c], size).array for c in range(self.classes)]
        table = Stream.fixed(np.stack(tables), 256)
        streams = {name: stream for name, stream in code.streams.items() if name not in ("table", "index")}
        form = ClassifiedAns(table.array, row_class.array)
        return Code(
            code.shape, {"row_class": row_class, "table": table, "index": Stream(index, form)} | streams
        )

    def reconstruct(self, code: Code) -> np.ndarray:
        if code["row_class"].shape != code.shape[:1] or code["table"].ndim != 2:
            raise ValueError("The code does not hold a class for every row.")
        index = Stream(code["index"], Fixed(code["table"].shape[1]))
        table = Stream.fixed(code["table"].min(axis=0), 256)  # of what occurs in any class
        return self.inner.decode(Code(code.shape, dict(code.streams) | {"index": index, "table": table}))


@dataclass(frozen=True)
class Scaled(Wrapper):
    """Ŵ = s·Q(W / s): each group is brought to unit power, s = √E[w²], before the inner quantizer sees it.

    Streams: those of the inner code, and ``group_scale`` (s, a float a group).

    Args:
        inner: the quantizer of the normalised weights.
        granularity: how many weights share a scale.
    """

    granularity: Granularity = PerGroup(size=128)

    @property
    def method(self) -> str:
        return f"{self.inner.method.removesuffix(' tensor')} {self.granularity.label}"

    def encode(self, W: np.ndarray, H: np.ndarray | None = None) -> Code:
        values = as_float32(W)
        width = max(self.granularity.width(values.shape[1]), 1)
        starts = np.arange(0, values.shape[1], width)
        sizes = np.diff(np.append(starts, values.shape[1]))
        power = np.add.reduceat(values.astype(np.float64) ** 2, starts, axis=1) if len(starts) else values
        scale = Stream.floats(np.sqrt(power / sizes), self.granularity.scale_format)
        s = self.granularity.expand(scale.array, values.shape)
        inner = self.inner.encode(np.divide(values, s, out=np.zeros_like(values), where=s > 0))
        return Code(values.shape, dict(inner.streams) | {"group_scale": scale})

    def reconstruct(self, code: Code) -> np.ndarray:
        return self.granularity.expand(code["group_scale"], code.shape) * self.inner.decode(code)
