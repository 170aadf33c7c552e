"""What every reader of quantized checkpoints has: layers to be found, and a code and its decoder for each.

**How to add one.**  Write a subclass in a file of its own in rdlib/checkpoints/readers, and name it in ``READERS``
there.  It says which checkpoints are its own (``quant_methods``, or :meth:`Reader.reads`), which tensors of a matrix it
takes (``marks``, ``streams``), and what they are (:meth:`Reader.shape`, :meth:`Reader.read`).  Every stored array
becomes a stream with its price, so that the rate of a layer is known by field.  Add fixtures that the package itself
wrote, in rdlib/tools/producers.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.code.fixed import Fixed
from rdlib.code.floats import Float
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.classify import OF_INPUTS


@dataclass(frozen=True, eq=False)
class EncodedLayer:
    """A layer as a checkpoint stores it.

    Args:
        code: what a decoder needs; the price of its streams is the true rate of the layer.
        decoder: of the code.
    """

    code: Code
    decoder: Decoder

    @cached_property
    def bits(self) -> dict[str, int]:
        """Bits of every stream; the header of a code is not among them: the format of the file says what it would."""
        return {name: bits for name, bits in self.code.prices.items() if name != "header"}

    @property
    def rate(self) -> float:
        """Bits per weight of all streams."""
        return sum(self.bits.values()) / self.code.weights

    @cached_property
    def weight(self) -> np.ndarray:
        """Ŵ, float32 (out, in); decoded once."""
        return self.decoder.decode(self.code)


def stored(values: np.ndarray) -> Stream:
    """Numbers as a file has them, at the width of their type."""
    return Stream(values, Float(values.dtype.name))


def unpacked(symbols: np.ndarray, bits: int) -> Stream:
    """Symbols of so many bits that were unpacked from such fields, so that none of them is larger."""
    return Stream(symbols, Fixed(1 << bits))


class Reader(ABC):
    """Reads one format of quantized layers.

    Args:
        checkpoint: whose settings and names of tensors say how its layers are stored.

    Raises:
        ValueError: a setting is missing or unknown, or contradicts another.

    Attributes:
        method: name in tables and plots.
        bits: nominal rate; that of most weights, where layers have several.
        quant_methods: what the settings call the format.
        marks: how the names of tensors end that only a quantized layer has.
        streams: what the stored tensors of a layer contain, by the end of their names; others are refused.
        scaled_norms: how the names of norms end that absorbed scales of inputs.
    """

    method: str
    bits: float
    quant_methods: ClassVar[tuple[str, ...]] = ()
    marks: ClassVar[tuple[str, ...]]
    streams: ClassVar[Mapping[str, str]]
    scaled_norms: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def __init__(self, checkpoint: Checkpoint):
        pass

    @classmethod
    def reads(cls, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is of this format, as its settings say."""
        return checkpoint.settings.quant_method in cls.quant_methods

    def stems(self, names: Iterable[str]) -> list[str]:
        """The layers that are quantized: names of modules, of those of all tensors."""
        ends = [f".{mark}" for mark in self.marks]
        return sorted({name.removesuffix(end) for name in names for end in ends if name.endswith(end)})

    def refuse_unknown(self, parts: LayerTensors) -> None:
        """Raise a ValueError that names a tensor of a layer that decoding does not ask for, and that may change it."""
        for suffix in parts.suffixes:
            if not (suffix in self.streams or suffix == "bias" or OF_INPUTS.fullmatch(suffix)):
                raise ValueError(
                    f"{parts.name(suffix)} is no part of a layer of {self.method}: it may change the weights, and is "
                    "not read."
                )

    def other_readings(self, name: str, code: Code) -> Mapping[str, Code]:
        """The code of a layer as other versions of the format would have it, by what would say so."""
        return {}

    @abstractmethod
    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        """(out, in) of a layer, by the headers of its tensors alone.

        Raises:
            ValueError: a tensor is missing.
        """

    @abstractmethod
    def read(self, parts: LayerTensors) -> EncodedLayer:
        """The code of a layer.

        Raises:
            ValueError: a tensor is missing, or of another type or shape than the configuration makes it.
        """
