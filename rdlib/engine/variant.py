"""What a walk tries: variants of a model, each of which says how some of its tensors are made."""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import nn

from rdlib.checkpoints.reader import EncodedLayer
from rdlib.functional.proxies import with_noise
from rdlib.models.checkpoint import Checkpoint
from rdlib.quantizers import Quantizer
from rdlib.weights import BFLOAT16


class Source(Protocol):
    """How a tensor is made.  Two sources that are equal make the same.

    Attributes:
        method: name in tables and plots.
        bits: nominal rate; NaN where there is none.
    """

    method: str
    bits: float

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        """Ŵ, float32 (out, in), of a tensor W; and what it costs: rate and side_rate, where there is a code."""


Change = tuple[str, Source]  # a tensor, and how it is made


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

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return self._made(W, H)

    def _made(self, W: np.ndarray, *known: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        """Ŵ and its rates, by an encoder that knows H, or H and G."""
        code = self.quantizer.encode(W, *known)
        return self.quantizer.decode(code), {"rate": code.rate, "side_rate": code.side_rate}


@dataclass(frozen=True)
class Blind(Quantized):
    """By a quantizer that is given no H, where there is one."""

    @property
    def method(self) -> str:
        return f"{self.quantizer.method}, no H"

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return super().make(name, W, None)


@dataclass(frozen=True, eq=False)
class TwoSided(Quantized):
    """By a quantizer, which is given H and also G of each tensor's outputs.

    Args:
        G: by name, (out, out), see :class:`rdlib.engine.curvature.Curvature`.
    """

    G: Mapping[str, np.ndarray]

    @property
    def method(self) -> str:
        return f"{self.quantizer.method}, G and H"

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return self._made(W, H, self.G[name])


@dataclass(frozen=True)
class Noisy:
    """W + t‖W‖·G/‖G‖, see :func:`rdlib.functional.with_noise`; it has no rate."""

    relative: float
    seed: int = 0
    method = "noise"
    bits = float("nan")

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return with_noise(W, self.relative, self.seed), {}


@dataclass(frozen=True, eq=False)
class Stored:
    """Ŵ of a quantized checkpoint, in the coordinates of the model from which it was made.

    Args:
        method: name in tables and plots.
        bits: nominal rate.
        layers: of :func:`rdlib.checkpoints.aligned`, which reads each when it is asked for.
    """

    method: str
    bits: float
    layers: Mapping[str, EncodedLayer]

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        layer = self.layers[name]
        header = layer.code.rate - layer.rate  # ours, and none of the file's
        return layer.decoder.decode(layer.code), {
            "rate": layer.rate,
            "side_rate": layer.code.side_rate - header,
        }


@dataclass(frozen=True, eq=False)
class Given:
    """A tensor that is there already; it has no rate."""

    tensor: np.ndarray
    method = "given"
    bits = float("nan")

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return self.tensor, {}


@dataclass(frozen=True)
class Rounded:
    """Rounded to bfloat16."""

    method = "bfloat16"
    bits = 16

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return W.astype(BFLOAT16).astype(np.float32), {}


@dataclass(frozen=True, eq=False)
class Variant:
    """A model in which some tensors are made anew.

    Args:
        label: by which its results are found.
        sources: name of a tensor → how it is made.
        sequential: whether H of a layer is that of the variant's own inputs, which come from the layers before as it
            makes them, instead of the model's.

    References:
        Sequential calibration: Frantar et al. 2022 (GPTQ), arXiv:2210.17323, section 4; all matrices of a layer see the
        inputs that they have while the layer is still the model's, as in the authors' code.
    """

    label: Hashable
    sources: Mapping[str, Source]
    sequential: bool = False

    @classmethod
    def by(
        cls,
        label: Hashable,
        names: Iterable[str],
        source: Source | Quantizer,
        sequential: bool = False,
    ) -> "Variant":
        """Some tensors by one source or quantizer."""
        source = Quantized(source) if isinstance(source, Quantizer) else source
        return cls(label, dict.fromkeys(names, source), sequential)

    def changes(self, names: Iterable[str]) -> frozenset[Change]:
        """Which of some tensors are made anew, and how."""
        return frozenset((name, self.sources[name]) for name in names if name in self.sources)

    def around(self, modules: Iterable[nn.Module]) -> AbstractContextManager:
        """What is to happen while some modules of the network run; here nothing."""
        return nullcontext()


class InBfloat16(Variant):
    """The model as if it ran in bfloat16: weights, and what enters and leaves every module, are rounded.

    Sums within a module stay in float32, as in the matrix units of accelerators.  What this does to the output is the
    noise that a model in use has anyway: a quantizer that does less harm is as good as none.

    Args:
        label: by which its results are found.
        checkpoint: of the model.
    """

    def __init__(self, label: Hashable, checkpoint: Checkpoint):
        super().__init__(label, dict.fromkeys(checkpoint.parameters, Rounded()))

    @contextmanager
    def around(self, modules: Iterable[nn.Module]) -> Iterator[None]:
        with ExitStack() as stack:
            for module in modules:
                stack.callback(module.register_forward_hook(lambda m, x, y: _bfloat16(y)).remove)
                if isinstance(module, nn.Linear):
                    stack.callback(module.register_forward_pre_hook(lambda m, x: _bfloat16(x)).remove)
            yield


def _bfloat16(value: object) -> object:
    """Rounding of a tensor, or of the floating tensors of a tuple."""
    if isinstance(value, tuple):
        return tuple(map(_bfloat16, value))
    floating = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.to(torch.bfloat16).to(value.dtype) if floating else value
