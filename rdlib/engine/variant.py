"""What a walk tries: variants of a model, each of which says how some of its tensors are made."""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rdlib.checkpoints import QuantizedCheckpoint
from rdlib.functional.proxies import with_noise
from rdlib.quantizers import Quantizer


class Source(Protocol):
    """How a tensor is made.  Two sources that are equal make the same.

    Attributes:
        method: name in tables and plots.
        bits: nominal rate; NaN where there is none.
    """

    method: str
    bits: float

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, float]:
        """Ŵ, float32 (out, in), of a tensor W, and the rate in total bits per weight."""


@dataclass(frozen=True)
class Quantized:
    """By a quantizer, which is given H."""

    quantizer: Quantizer

    @property
    def method(self) -> str:
        return self.quantizer.method

    @property
    def bits(self) -> float:
        return self.quantizer.bits

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, float]:
        code = self.quantizer.encode(W, H)
        return self.quantizer.decode(code), code.rate


@dataclass(frozen=True)
class Noisy:
    """W + t‖W‖·G/‖G‖, see :func:`rdlib.functional.with_noise`; it has no rate."""

    relative: float
    seed: int = 0
    method = "noise"
    bits = float("nan")

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, float]:
        return with_noise(W, self.relative, self.seed), float("nan")


@dataclass(frozen=True)
class Stored:
    """Ŵ of a quantized checkpoint, in the coordinates of the model from which it was made."""

    checkpoint: QuantizedCheckpoint
    method: str
    bits: float

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, float]:
        packed = self.checkpoint.packed(name)
        return packed.weight, packed.rate


@dataclass(frozen=True, eq=False)
class Variant:
    """A model in which some tensors are made anew.

    Args:
        label: by which its results are found.
        sources: name of a tensor → how it is made.
    """

    label: Hashable
    sources: Mapping[str, Source]

    @classmethod
    def by(cls, label: Hashable, names: Iterable[str], source: Source | Quantizer) -> "Variant":
        """Some tensors by one source or quantizer."""
        return cls(label, dict.fromkeys(names, Quantized(source) if isinstance(source, Quantizer) else source))

    def changes(self, names: Iterable[str]) -> frozenset[tuple[str, Source]]:
        """Which of some tensors are made anew, and how."""
        return frozenset((name, self.sources[name]) for name in names if name in self.sources)
