"""What every format of quantized checkpoints has: layers to be found, and a code and its decoder for each."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.code.code import Code
from rdlib.code.decoder import Decoder


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


class CheckpointFormat(ABC):
    """A format of quantized layers.

    Attributes:
        method: name in tables and plots.
        bits: nominal rate.
        marks: how the names of tensors end that only a quantized layer has.
        streams: what the stored tensors of a layer contain, by the end of their names.
        scaled_norms: how the names of norms end that absorbed scales of inputs.
    """

    method: str
    bits: int
    marks: ClassVar[tuple[str, ...]]
    streams: ClassVar[Mapping[str, str]]
    scaled_norms: ClassVar[tuple[str, ...]] = ()

    def stems(self, names: Iterable[str]) -> list[str]:
        """The layers that are quantized."""
        found = {
            name.removesuffix(f".{mark}")
            for name in names
            for mark in self.marks
            if name.endswith(f".{mark}")
        }
        return sorted(found)

    def stream(self, suffix: str) -> str:
        """What a stored tensor of a layer contains."""
        return self.streams.get(suffix, suffix)

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
