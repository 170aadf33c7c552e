"""A Llama in a GGUF file: its tensors under the names and in the shapes and order of transformers."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rdlib.models.gguf.configuration import configuration
from rdlib.models.gguf.file import GGUF, TensorInfo
from rdlib.models.gguf.names import ROPE, permuted_heads, transformers_name, unpermuted
from rdlib.models.gguf.tokenizer import tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class GGUFModel:
    """What a GGUF file says about a Llama.

    Args:
        path: of the file, or of any file of a split.

    Raises:
        ValueError: the file is not read, or holds tensors that no Llama has; the message names the first.
    """

    def __init__(self, path: str | Path):
        self.gguf = GGUF(path)
        self._info: dict[str, TensorInfo] = {}
        unknown = []
        for info in self.gguf.tensors.values():
            name = transformers_name(info.name)
            if name:
                self._info[name] = info
            elif info.name != ROPE:
                unknown.append(info.name)
        if unknown:
            raise ValueError(
                f"{self.gguf.name} has {len(unknown)} tensors that are not understood, such as {unknown[0]}: "
                f"it is not of Llama's shape ({self.gguf.metadata.get('general.architecture')!r})."
            )

    @cached_property
    def config(self) -> dict[str, object]:
        """config.json: see :func:`rdlib.models.gguf.configuration.configuration`."""
        return configuration(self.gguf)

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerFast":
        """See :func:`rdlib.models.gguf.tokenizer.tokenizer`."""
        return tokenizer(self.gguf)

    @property
    def names(self) -> list[str]:
        """All tensors, as transformers calls them."""
        return sorted(self._info)

    def info(self, name: str) -> TensorInfo:
        """Where a tensor lies, and how it is stored.

        Raises:
            ValueError: there is no such tensor.
        """
        if name not in self._info:
            raise ValueError(f"{self.gguf.name} has no tensor {name!r}.")
        return self._info[name]

    def rows(self, name: str) -> np.ndarray:
        """The bytes of a tensor, uint8 (out, bytes of a row), in the order of rows that transformers has."""
        rows = self.gguf.rows(self.info(name).name)
        heads = permuted_heads(name, self.config)
        if heads is None:
            return rows
        if name.endswith(".bias"):
            return unpermuted(rows.reshape(self.info(name).shape[0], -1), heads).reshape(rows.shape)
        return unpermuted(rows, heads)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor decoded, float32.

        Raises:
            ValueError: there is no such tensor, or its type is not read.
        """
        info = self.info(name)
        return info.type.weights(self.rows(name)).reshape(info.shape)
