"""A Llama in a GGUF file: its tensors under the names and in the shapes and order of transformers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdlib.models.container import Container
from rdlib.models.gguf.blocks import TensorType
from rdlib.models.gguf.configuration import configuration
from rdlib.models.gguf.file import GGUF, TensorInfo
from rdlib.models.gguf.floats import FloatType
from rdlib.models.gguf.names import ROPE, permuted_heads, transformers_name, unpermuted
from rdlib.models.gguf.tokenizer import tokenizer
from rdlib.models.gguf.types import named_type
from rdlib.models.weight import Kind, Weight

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class GGUFTensor(Weight):
    """A tensor of a GGUF file, in the shape and in the order of rows that transformers has.

    Args:
        heads: how many heads have their rows in the order of llama.cpp; None where rows are in their own.
    """

    heads: int | None = field(default=None, kw_only=True)

    @property
    def type(self) -> TensorType:
        """How it is stored."""
        return named_type(self.dtype)

    @property
    def quantized(self) -> bool:
        """Whether it is stored in blocks, and not as floats."""
        return not isinstance(self.type, FloatType)

    def stored(self) -> np.ndarray:
        """The bytes, uint8 (out, bytes of a row); a vector is one row."""
        raw = np.asarray(np.memmap(self.file, np.uint8, "r", self.offset, (self.nbytes,)))
        if self.heads is None:
            return raw.reshape(self.matrix_shape[0], -1)
        rows = unpermuted(raw.reshape(self.shape[0], -1), self.heads)
        return rows.reshape(self.matrix_shape[0], -1)

    def values(self) -> np.ndarray:
        """W: of a type of blocks decoded, float32; of a float type as it is stored."""
        rows, kind = self.stored(), self.type
        W = rows.view(kind.dtype) if isinstance(kind, FloatType) else kind.weights(rows)
        return W.reshape(self.shape)


class GGUFContainer(Container):
    """A Llama in a GGUF file, or in the files of a split.

    Args:
        path: of the file, or of any file of a split.

    Raises:
        ValueError: the file is not read, or holds a tensor that is not understood; the message names it.
    """

    classified = False

    def __init__(self, path: str | Path):
        self.gguf = GGUF(path)
        self.path = self.gguf.path
        unknown = [name for name in self.gguf.tensors if not (transformers_name(name) or name == ROPE)]
        if unknown:
            raise ValueError(
                f"{self.path.name} has {len(unknown)} tensors that are not understood, such as {unknown[0]}: it is "
                f"not of Llama's shape ({self.gguf.metadata.get('general.architecture')!r})."
            )

    @cached_property
    def tensors(self) -> Mapping[str, Weight]:
        found = [_tensor(info, self.config) for info in self.gguf.tensors.values()]
        return {tensor.name: tensor for tensor in found}

    @cached_property
    def config(self) -> dict:
        return configuration(self.gguf)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """See :func:`rdlib.models.gguf.tokenizer.tokenizer`."""
        return tokenizer(self.gguf)

    def write_tokenizer(self, folder: Path) -> None:
        if "tokenizer.ggml.model" in self.gguf.metadata:
            self.tokenizer.save_pretrained(folder)


def _tensor(info: TensorInfo, config: Mapping) -> GGUFTensor:
    name = transformers_name(info.name)
    heads = permuted_heads(name, config) if name else None
    if heads and info.shape[0] % (2 * heads):
        raise ValueError(f"{info.name} of {info.path.name} has {info.shape[0]} rows for {heads} heads.")
    kind, where = info.type, (info.path, info.offset, info.bytes)
    return GGUFTensor.named(name or info.name, info.shape, kind.method, *where, kind=_kind(name), heads=heads)


def _kind(name: str | None) -> Kind:
    """What a tensor is, by its name in transformers."""
    if name is None:
        return Kind.BUFFER
    if name.endswith(".bias"):
        return Kind.BIAS
    return Kind.NORM if name.endswith("norm.weight") else Kind.WEIGHT
