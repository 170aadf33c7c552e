"""Open a Llama checkpoint lazily: which weight matrices it has, and one of them at a time."""

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from rdlib.models.hub import find_model
from rdlib.models.names import GROUPS, layer_and_group
from rdlib.weights import refuse_non_finite


@dataclass(frozen=True)
class Weight:
    """Where a weight matrix stands in a model.

    Args:
        name: of the tensor in the checkpoint.
        layer: 0 …, or −1 for what belongs to no layer.
        group: one of q, k, v, o, gate, up, down, embed, lm_head.
        shape: (out, in).
        dtype: as stored.
    """

    name: str
    layer: int
    group: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def label(self) -> str:
        """Short name for tables: the layer and the group."""
        return self.group if self.layer < 0 else f"{self.layer}.{self.group}"


class Checkpoint:
    """A folder of safetensors, read one tensor at a time.

    Args:
        folder: with config.json and one or more .safetensors files.

    Raises:
        ValueError: the folder holds no safetensors, or a file cannot be read.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder).absolute()  # "." has no name
        self.file_of = _files_by_tensor(self.folder)

    @cached_property
    def config(self) -> dict:
        """config.json.

        Raises:
            ValueError: there is none, or it is no JSON object.
        """
        try:
            return dict(json.loads((self.folder / "config.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ValueError(f"{self.folder.name} has no config.json: is it the folder of a model?") from None
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"config.json of {self.folder.name} is not a JSON object: {error}.") from None

    def __contains__(self, name: str) -> bool:
        return name in self.file_of

    @property
    def names(self) -> list[str]:
        """All tensors of the checkpoint."""
        return sorted(self.file_of)

    @cached_property
    def weights(self) -> list[Weight]:
        """The weight matrices by layer, then group; a tied lm_head is the embedding and not listed again."""
        tied = self.config.get("tie_word_embeddings")
        found = []
        for name in self.names:
            layer, group = layer_and_group(name)
            if group and not (group == "lm_head" and tied):
                view = self._open(name)[1]
                found.append(Weight(name, layer, group, tuple(view.get_shape()), view.get_dtype()))
        return sorted(found, key=lambda w: (w.layer, GROUPS.index(w.group)))

    def layer(self, number: int) -> list[Weight]:
        """The weight matrices of one layer.

        Raises:
            ValueError: the model has no such layer.
        """
        found = [w for w in self.weights if w.layer == number]
        if not found or number < 0:
            last = max((w.layer for w in self.weights), default=-1)
            raise ValueError(f"{self.folder.name} has no layer {number}; its layers are 0 … {last}.")
        return found

    def tensor(self, name: str | Weight) -> np.ndarray:
        """One tensor in the type in which it is stored: bfloat16 as ``ml_dtypes.bfloat16``, nothing cast.

        Raises:
            ValueError: there is no such tensor, it is not of a float type that quantizers take, or it holds
                NaN or Inf; the message names it.
        """
        name = name.name if isinstance(name, Weight) else name
        self._refuse_unknown(name)
        handle, view = self._open(name)
        if view.get_dtype() not in ("F16", "BF16", "F32"):
            raise ValueError(f"{name} is {view.get_dtype()}; float16, bfloat16 and float32 can be analysed.")
        tensor = handle.get_tensor(name)
        refuse_non_finite(tensor, name)
        return tensor

    def stored(self, name: str) -> np.ndarray:
        """One tensor as it is stored, of any type and unchecked: what a quantized checkpoint is made of.

        Raises:
            ValueError: there is no such tensor.
        """
        self._refuse_unknown(name)
        return self._open(name)[0].get_tensor(name)

    def size(self, name: str) -> int:
        """How many numbers a tensor holds."""
        return math.prod(self._open(name)[1].get_shape())

    def bits(self, name: str) -> int:
        """What a tensor takes in its file."""
        width = re.search(r"\d+", self._open(name)[1].get_dtype())
        return self.size(name) * (int(width[0]) if width else 8)  # BOOL is a byte

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a weight matrix: layer, group, name, rows (out), columns (in), weights, dtype."""
        rows = [(w.layer, w.group, w.name, *w.shape, int(np.prod(w.shape)), w.dtype) for w in self.weights]
        return pd.DataFrame(rows, columns=["layer", "group", "name", "rows", "columns", "weights", "dtype"])

    @cached_property
    def sha256(self) -> str:
        """Hash of all safetensors files in the order of their names."""
        digest = hashlib.sha256()
        for file in sorted(set(self.file_of.values())):
            with open(self.folder / file, "rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def _refuse_unknown(self, name: str) -> None:
        if name not in self.file_of:
            raise ValueError(f"{self.folder.name} has no tensor {name!r}.")

    def _open(self, name: str) -> tuple:
        """The open file of a tensor, and the tensor as safetensors describes it before it is read."""
        file = self.file_of[name]
        handle = _open_safetensors(self.folder / file)
        try:
            return handle, handle.get_slice(name)
        except SafetensorError:
            raise ValueError(
                f"{file} of {self.folder.name} lacks the tensor {name!r} of its index."
            ) from None


def open_checkpoint(model: str | Path) -> Checkpoint:
    """The checkpoint of ``"embedded"`` (the model in this package), of a local folder or of a hub id.

    Only safetensors, configuration and tokenizer of a hub model are fetched.

    Raises:
        ValueError: there is no such folder or hub model, it is gated, or it holds no safetensors.
    """
    return Checkpoint(find_model(model))


def _files_by_tensor(folder: Path) -> dict[str, str]:
    """Which file of the folder holds which tensor, from the index of a sharded checkpoint or from the files."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            outside = [file for file in weight_map.values() if Path(file).name != file]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{index.name} of {folder.name} cannot be read: {error!r}.") from None
        if outside:
            raise ValueError(
                f"{index.name} of {folder.name} names {outside[0]!r}, which is outside of the folder."
            )
        missing = sorted({file for file in weight_map.values() if not (folder / file).is_file()})
        if missing:
            raise ValueError(f"{folder.name} lacks the shard {missing[0]} that its index names.")
        return weight_map
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = sorted(file.name for file in folder.glob("*.bin"))
        reason = f"only pickled weights ({pickled[0]}), which are refused" if pickled else "no safetensors"
        raise ValueError(f"{folder.name} holds {reason}: convert the model with save_pretrained first.")
    return {name: file.name for file in files for name in _open_safetensors(file).keys()}  # noqa: SIM118


def _open_safetensors(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="np")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} is truncated or no safetensors file: {error}.") from None
