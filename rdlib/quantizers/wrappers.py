"""Wrappers: a quantizer around a quantizer."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from rdlib.code.code import Code, Stream, frequency_table
from rdlib.code.contexts import classes_of, context_streams, unsorted
from rdlib.code.fixed import Fixed
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.granularity import Granularity, PerGroup, PerTensor
from rdlib.weights import as_float32, ratio


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
    def bits(self) -> float:
        return self.inner.bits

    @property
    def bits_allowed(self) -> Sequence[float]:
        return self.inner.bits_allowed

    @property
    def uses_H(self) -> bool:
        return self.inner.uses_H

    def at(self, bits: float) -> Self:
        return replace(self, inner=self.inner.at(bits))

    def wrapped(self, inner: Code, **own: Stream) -> Code:
        """The streams of this wrapper before those of the inner code.

        Raises:
            ValueError: the inner code has one of them already.
        """
        for name in own.keys() & inner.streams.keys():
            raise ValueError(
                f"{self.method!r} is a wrapper around one of its kind: both write a stream {name!r}."
            )
        return Code(inner.shape, own | dict(inner.streams))

    def unwrapped(self, code: Code, *own: str) -> Code:
        """The inner code: what :meth:`wrapped` added is taken away."""
        return Code(code.shape, {name: s for name, s in code.streams.items() if name not in own})


@dataclass(frozen=True)
class EntropyCoded(Wrapper):
    """The same Ŵ as the inner quantizer, its index stream written with H(index) bits instead of log₂ of its size.

    Streams: those of the inner code, ``index`` entropy-coded, and ``table`` (a byte a symbol).
    """

    @property
    def method(self) -> str:
        return f"entropy-coded {self.inner.method}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        code = self.inner.encode(W, H)
        index = code.streams["index"]
        table = frequency_table(np.bincount(index.array.ravel(), minlength=index.format.size))
        return self.wrapped(
            self.unwrapped(code, "index"), table=table, index=Stream.coded(index.array, table)
        )

    def reconstruct(self, code: Code) -> np.ndarray:
        index = Stream(code["index"], Fixed(len(code["table"])))
        return self.inner.decode(self.wrapped(self.unwrapped(code, "table", "index"), index=index))


@dataclass(frozen=True)
class RowClassified(Wrapper):
    """The same Ŵ as the inner quantizer, its index entropy-coded with one table for each class of rows.

    Rows are classified by their power, so that a weight of a weak row costs fewer bits than the same weight of
    a strong one, while the distortion stays the same for all: what reverse water-filling asks for.  Streams:
    those of the inner code, ``row_class`` (log₂ of the number of classes a row), ``table`` (a byte a symbol and
    class), and ``index``, sorted by class.

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

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        code = self.inner.encode(W, H)
        index = code.streams["index"]
        power = (as_float32(W).astype(np.float64) ** 2).sum(axis=1)
        row_class = Stream.fixed(classes_of(power, self.classes), self.classes)
        contexts = np.broadcast_to(row_class.array[:, None], code.shape)
        streams = context_streams(index.array, contexts, index.format.size, self.classes)
        del streams["counts"]  # they follow from the classes
        return self.wrapped(self.unwrapped(code, "table", "index"), row_class=row_class, **streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        if code["row_class"].shape != code.shape[:1] or code["table"].ndim != 2:
            raise ValueError("The code does not hold a class for every row.")
        contexts = np.broadcast_to(code["row_class"][:, None], code.shape)
        index = Stream(unsorted(code["index"], contexts), Fixed(code["table"].shape[1]))
        inner = self.unwrapped(code, "row_class", "table", "index")
        table = Stream.table(code["table"].min(axis=0))  # of what occurs in any class
        return self.inner.decode(self.wrapped(inner, index=index, table=table))


@dataclass(frozen=True)
class Scaled(Wrapper):
    """Ŵ = s·Q(W / s): each group is brought to unit power, s = √E[w²], before the inner quantizer sees it.

    The rows of the error are weighed by the same H as before, up to s², so that H is handed on; with several groups
    in a row it is not so.  Streams: those of the inner code, and ``group_scale`` (s, a float a group).

    Args:
        inner: the quantizer of the normalised weights.
        granularity: how many weights share a scale.

    Raises:
        ValueError: (by ``encode``) the inner quantizer uses H, and there are several groups in a row.
    """

    granularity: Granularity = PerGroup(size=128)

    @property
    def method(self) -> str:
        return f"{self.inner.method.removesuffix(' tensor')} {self.granularity.label}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        width = max(self.granularity.width(values.shape[1]), 1)
        if H is not None and self.uses_H and width < values.shape[1]:
            raise ValueError(
                f"{self.method!r} has scales of {width} weights within a row, for which there is no one H that "
                f"{self.inner.method!r} could use: scale whole rows, by PerChannel()."
            )
        starts = np.arange(0, values.shape[1], width)
        sizes = np.diff(np.append(starts, values.shape[1]))
        power = np.add.reduceat(values.astype(np.float64) ** 2, starts, axis=1) if len(starts) else values
        if isinstance(self.granularity, PerTensor) and len(power):
            power = power.mean(axis=0, keepdims=True)
        scale = Stream.floats(np.sqrt(power / sizes), self.granularity.scale_format)
        s = self.granularity.expand(scale.array, values.shape)
        inner = self.inner.encode(ratio(values, s), H)
        return self.wrapped(inner, group_scale=scale)

    def reconstruct(self, code: Code) -> np.ndarray:
        s = self.granularity.expand(code["group_scale"], code.shape)
        return s * self.inner.decode(self.unwrapped(code, "group_scale"))
