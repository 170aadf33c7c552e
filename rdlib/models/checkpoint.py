"""Open a Llama checkpoint lazily: which weight matrices it has, and one of them at a time."""

import math
import re
from collections.abc import Iterable
from functools import cached_property
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from rdlib.files import content_hash
from rdlib.models.classify import classify
from rdlib.models.container import Container
from rdlib.models.gguf import GGUFContainer
from rdlib.models.hub import find_model, revision
from rdlib.models.json_file import without_nulls
from rdlib.models.names import EMBEDDING, GROUPS, HEAD
from rdlib.models.safetensors import SafetensorsFolder
from rdlib.models.settings import Settings
from rdlib.models.weight import Absent, Kind, Scaled, Weight
from rdlib.weights import refuse_non_finite

BLOCK = 1 << 22  # numbers of embedding and head that are compared together


class Checkpoint:
    """The tensors of one model, read one at a time: what analysis, network and census all ask.

    Args:
        container: that stores them; a folder means the safetensors in it, and a file is GGUF.

    Raises:
        ValueError: the folder holds no safetensors, or a file cannot be read.
    """

    def __init__(self, container: Container | str | Path):
        self.container = container if isinstance(container, Container) else open_container(Path(container))
        self.folder = self.container.path

    @cached_property
    def config(self) -> dict:
        """config.json; a null in it is absent.

        Raises:
            ValueError: there is none, or it is no JSON object.
        """
        return without_nulls(self.container.config)

    @cached_property
    def settings(self) -> Settings:
        """What the checkpoint says about its quantization, in config.json and in files beside it.

        Raises:
            ValueError: two files contradict each other.
        """
        return Settings(self.folder, self._config_if_any)

    @cached_property
    def tensors(self) -> dict[str, Weight]:
        """Every tensor by its name, and what it is (see :mod:`rdlib.models.classify`).

        Raises:
            ValueError: the settings cannot be read.
        """
        if not self.container.classified:
            return dict(self.container.tensors)
        config = self._config_if_any
        text = config.get("text_config")  # of the decoder in a larger model
        config = text if isinstance(text, dict) else config
        keys = dict.fromkeys(("q", "k", "v", "gate", "up", "embed", "lm_head"), "hidden_size")
        keys["down"] = "intermediate_size"
        inputs_of = {group: n for group, key in keys.items() if type(n := config.get(key)) is int}
        return classify(self.container.tensors, self.settings, inputs_of)

    @property
    def _config_if_any(self) -> dict:
        """config.json, or nothing where there is none: single tensors can be read all the same."""
        try:
            return self.config
        except ValueError as error:
            if "has no config.json" in str(error):
                return {}
            raise

    @property
    def revision(self) -> str | None:
        """Which version of a hub model this is, see :func:`rdlib.models.hub.revision`; None of any other.

        A hub id may name other weights tomorrow; id and revision together do not.
        """
        return revision(self.folder)

    @property
    def contents(self) -> pd.DataFrame:
        """The tensors by kind, group, shape and stored type: how many, and their numbers in millions."""
        rows = [
            (w.kind.value, w.group, w.shape, w.dtype, math.prod(w.shape) / 1e6) for w in self.tensors.values()
        ]
        frame = pd.DataFrame(rows, columns=["kind", "group", "shape", "stored as", "millions"])
        groups = frame.groupby(["kind", "group", "shape", "stored as"], sort=False, as_index=False)
        return groups.agg(tensors=("millions", "size"), millions=("millions", "sum"))

    def __repr__(self) -> str:
        return f"{self._head}\n{self.contents.to_string(index=False, float_format='{:.3f}'.format)}"

    def _repr_html_(self) -> str:
        table = self.contents.to_html(index=False, border=0, float_format="{:.3f}".format)
        return f"<div>{escape(self._head)}</div>{table}"

    @property
    def _head(self) -> str:
        return f"Checkpoint {self.folder.name}: {len(self.names)} tensors"

    def __contains__(self, name: str) -> bool:
        return name in self.container.tensors

    @property
    def names(self) -> list[str]:
        """All tensors of the checkpoint."""
        return sorted(self.container.tensors)

    @cached_property
    def tied(self) -> bool:
        """Whether the output head is the embedding: it is not stored, or stored and equal to it.

        config.json is not asked: where it says tied, and another head is stored, that head is a weight of its own.
        """
        if HEAD not in self:
            return not any(name.startswith(HEAD.removesuffix("weight")) for name in self.names)
        if EMBEDDING not in self:
            return False
        head, embedding = self.tensors[HEAD], self.tensors[EMBEDDING]
        if head.shape != embedding.shape or head.fault or embedding.fault:
            return False
        return _equal(head.values(), embedding.values())

    @cached_property
    def parameters(self) -> dict[str, Weight]:
        """What the model computes with, by name: no scale, no buffer, no head that is tied, nothing absent."""
        left_out = (Kind.SCALE, Kind.BUFFER)
        found = {
            name: weight
            for name, weight in self.tensors.items()
            if weight.kind not in left_out and not isinstance(weight, Absent)
        }
        if HEAD in found and self.tied:
            del found[HEAD]
        return found

    @property
    def quantized(self) -> bool:
        """Whether weights are codes that only :func:`rdlib.checkpoints.open_quantized` reads.

        FP8 with its scales is decoded here and is none.  Settings of a quantization count even where no code is found:
        the two contradict each other.
        """
        kinds = {w.kind for w in self.tensors.values()}
        decoded = any(isinstance(w, Scaled) for w in self.tensors.values())
        return Kind.CODE in kinds or bool(self.settings) and not decoded

    @cached_property
    def weights(self) -> list[Weight]:
        """The weight matrices by layer, then group; a head that is tied to the embedding is not listed again.

        Raises:
            ValueError: there is no matrix of a layer among them, one of them is stored as a code, or layers have
                matrices that a Llama has not.
        """
        _ = self.config  # a folder without one is no model
        found = [w for w in self.tensors.values() if w.group != "other"]
        self._refuse_codes()
        self._refuse_unrecognized(found)
        for absent in (w for w in found if isinstance(w, Absent)):
            raise ValueError(absent.fault)
        if any(w.group == "lm_head" for w in found) and self.tied:
            found = [w for w in found if w.group != "lm_head"]
        return sorted(found, key=lambda w: (w.layer, GROUPS.index(w.group)))

    def _refuse_codes(self) -> None:
        """Raise where a matrix of the model is stored as a code that is not decoded here."""
        codes = [w for w in self.tensors.values() if w.kind is Kind.CODE]
        if codes:
            method = f" by {self.settings.quant_method}" if self.settings else ""
            raise ValueError(
                f"{self.folder.name} is quantized{method}: {examples(w.name for w in codes)} hold codes and no "
                "weights; open it with open_quantized, or take the model that it was made of."
            )

    def _refuse_unrecognized(self, found: list[Weight]) -> None:
        """Raise where no matrix of a layer was recognized, or layers have others besides."""
        others = [w for w in self.tensors.values() if w.kind is not Kind.SCALE and w.group == "other"]
        matrices = [w for w in others if len(w.shape) > 1]
        strange = [w.name for w in matrices if w.name.startswith("model.layers.")]
        if found and not strange and any(w.layer >= 0 for w in found):
            return
        names = strange or [w.name for w in matrices] or self.names
        raise ValueError(
            f"{self.folder.name} has no layers as a Llama has them: {examples(names)} are not understood; rdlib "
            "reads model.layers.N with q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj."
        )

    def layer(self, number: int) -> list[Weight]:
        """The weight matrices of one layer.

        Raises:
            ValueError: the model has no such layer, or as :attr:`weights`.
        """
        found = [w for w in self.weights if w.layer == number]
        if not found or number < 0:
            last = max(w.layer for w in self.weights)
            raise ValueError(f"{self.folder.name} has no layer {number}; its layers are 0 … {last}.")
        return found

    def tensor(self, name: str | Weight) -> np.ndarray:
        """One tensor: in the type in which it is stored, bfloat16 as ``ml_dtypes.bfloat16``; FP8 decoded, float32.

        A head that is tied and not stored is the embedding.

        Raises:
            ValueError: there is no such tensor, it is not of a float type that quantizers take, is a code that is
                not decoded here, or holds NaN or Inf; the message names it.
        """
        weight = self._known(EMBEDDING if name == HEAD and HEAD not in self and self.tied else name)
        W = weight.matrix().reshape(weight.shape)
        weight.refuse_unscaled()
        refuse_non_finite(W, weight.name)
        return W if W.flags.writeable else W.copy()

    def stored(self, name: str) -> np.ndarray:
        """One tensor as it is stored, of any type and unchecked: what a quantized checkpoint is made of.

        Raises:
            ValueError: there is no such tensor.
        """
        return self._known(name).stored().copy()

    def size(self, name: str) -> int:
        """How many numbers a tensor holds."""
        return self._known(name).size

    def bits(self, name: str) -> int:
        """What a tensor takes in its file."""
        return 8 * self._known(name).nbytes

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a weight matrix: layer, group, name, rows (out), columns (in), weights, dtype."""
        rows = [(w.layer, w.group, w.name, *w.shape, w.size, w.dtype) for w in self.weights]
        return pd.DataFrame(rows, columns=["layer", "group", "name", "rows", "columns", "weights", "dtype"])

    @cached_property
    def sha256(self) -> str:
        """Hash of all files that hold tensors, in the order of their names."""
        return content_hash(*self.container.holders)

    def _known(self, name: str | Weight) -> Weight:
        name = name.name if isinstance(name, Weight) else name
        if name not in self.tensors:
            raise ValueError(f"{self.folder.name} has no tensor {name!r}.")
        return self.tensors[name]


def open_checkpoint(model: str | Path) -> Checkpoint:
    """The checkpoint of a name in :data:`rdlib.models.hub.NAMES`, of a local folder, a GGUF file or a hub id.

    A hub id may name a revision and a GGUF file, see :func:`rdlib.models.hub.find_model`.  Of a hub model only
    safetensors, configuration and tokenizer are fetched, or the GGUF file.

    Raises:
        ValueError: there is no such folder or hub model, it is gated, or it holds no safetensors.
    """
    return Checkpoint(open_container(find_model(model)))


def open_container(path: Path) -> Container:
    """What holds the tensors at a path: see :class:`rdlib.models.container.Container` for how to add a kind."""
    return GGUFContainer(path) if path.is_file() else SafetensorsFolder(path)


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two matrices hold the same numbers, compared until they differ."""
    step = max(BLOCK // max(one.shape[-1], 1), 1)
    return all(
        np.array_equal(one[i : i + step].astype(np.float32), other[i : i + step].astype(np.float32))
        for i in range(0, len(one), step)
    )


def examples(names: Iterable[str]) -> str:
    """Three of some names for a sentence, of different kinds: numbers of layers make no difference.

    >>> examples(["a.0.q", "a.0.k", "a.1.k", "a.1.q"])
    'a.0.k, a.0.q'
    """
    kinds: dict[str, str] = {}
    for name in sorted(names):
        kinds.setdefault(re.sub(r"\d+", "", name), name)
    return ", ".join(list(kinds.values())[:3])
