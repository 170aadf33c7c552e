"""A quantized checkpoint: Ŵ and the true price of every layer."""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.checkpoints.readers import READERS
from rdlib.checkpoints.unquantized import left_alone
from rdlib.code.code import Code
from rdlib.files import ASSETS
from rdlib.models.checkpoint import Checkpoint, open_checkpoint
from rdlib.models.names import GROUPS, HEAD, layer_and_group
from rdlib.models.settings import FILES
from rdlib.models.weight import Kind

TOTALS = ["rate", "stored"]
IN_THE_BOX = {p.parent.name: p.parent for p in sorted((ASSETS / "checkpoints").glob("*/provenance.json"))}


class QuantizedCheckpoint:
    """What GPTQ, AWQ, bitsandbytes or llama.cpp wrote, read without them and one layer at a time.

    A layer has the name of the weight that it codes, as in the model that was quantized.  Layers that were left
    in 16 bits are no less part of the checkpoint: :attr:`left_alone` names them, and :meth:`packed` reads them.

    Args:
        checkpoint: with the settings of its quantization in config.json or quantize_config.json; or a GGUF file.

    Raises:
        ValueError: it is not quantized, or by a method that is not read.
    """

    def __init__(self, checkpoint: Checkpoint | Path):
        self.checkpoint = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
        self._reader = _reader(self.checkpoint)
        self._bits: dict[str, dict[str, int]] = {}  # of every layer that was read
        self._stem_of = {f"{stem}.weight": stem for stem in self._reader.stems(self.checkpoint.names)}
        if not self._stem_of:
            raise ValueError(
                f"{self.checkpoint.folder.name} says that it is {self.method}, but holds no tensor "
                f"*.{self._reader.marks[0]}."
            )
        for name in () if "weight" in self._reader.streams else self._stem_of:
            if name in self.checkpoint:
                raise ValueError(
                    f"{self.checkpoint.folder.name} holds {name} twice, as it is and quantized: remove the one that "
                    "is not the model's."
                )

    @property
    def method(self) -> str:
        """Name of the method in tables and plots."""
        return self._reader.method

    @property
    def bits(self) -> float:
        """Nominal rate; where layers have several, that of most weights."""
        return self._reader.bits

    @property
    def folds_scales(self) -> bool:
        """Whether Ŵ is of scaled inputs (AWQ): see :mod:`rdlib.checkpoints.folded`."""
        return bool(self._reader.scaled_norms)

    @property
    def scaled_norms(self) -> list[str]:
        """Names of the norms that scales of inputs were folded into."""
        return [name for name in self.unquantized if name.endswith(self._reader.scaled_norms)]

    @cached_property
    def layers(self) -> list[str]:
        """Names of the quantized weights, by layer, then group."""
        return sorted(self._stem_of, key=_place)

    @cached_property
    def left_alone(self) -> list[str]:
        """Names of the weights of layers that are stored as they are, by layer, then group."""
        plain = {w.name for w in self.checkpoint.tensors.values() if w.layer >= 0 and w.kind is Kind.WEIGHT}
        return sorted(plain - self._stem_of.keys(), key=_place)

    @property
    def linear(self) -> list[str]:
        """Names of the weights of all layers, quantized or left alone, by layer, then group."""
        return sorted([*self.layers, *self.left_alone], key=_place)

    @property
    def has_own_head(self) -> bool:
        """Whether the output head is stored, as a code or as other numbers than the embedding's."""
        return HEAD in self._stem_of or HEAD in self.checkpoint and not self.checkpoint.tied

    @cached_property
    def unquantized(self) -> list[str]:
        """Names of the tensors that were left alone."""
        packed = {name for layer in self.layers for name in self._stored(layer)}
        return [name for name in self.checkpoint.names if name not in packed]

    @cached_property
    def needed(self) -> set[str]:
        """Names of the tensors that were left alone and that a decoder has to read, see :attr:`rates`."""
        return {name for name in self.unquantized if not self._is_known(name)}

    def packed(self, name: str) -> EncodedLayer:
        """The code of a layer, and its decoder; of one that was left alone, its weights as they are stored.

        Raises:
            ValueError: there is no such layer, or its tensors are not what the settings say.
        """
        if name in self.left_alone:
            layer = left_alone(self.checkpoint.tensor(name), self.bits, self.method)
        else:
            parts = self._parts(name)
            layer = self._reader.read(parts)
            self._reader.refuse_unknown(parts)
        self._bits[name] = layer.bits
        return layer

    def other_readings(self, name: str, code: Code) -> Mapping[str, Code]:
        """What the code of a layer is if the file is not what it says, by what it would have to say instead."""
        return {} if name in self.left_alone else self._reader.other_readings(name, code)

    def shape(self, name: str) -> tuple[int, int]:
        """(out, in) of a layer, from the headers of its tensors: nothing is unpacked.

        Raises:
            ValueError: as :meth:`packed`.
        """
        if name in self.left_alone:
            return self.checkpoint.tensors[name].shape
        return self._reader.shape(self._parts(name))

    def tensor(self, name: str) -> np.ndarray:
        """Ŵ of a layer, float32 (out, in), as the package that wrote it multiplies with it.

        Raises:
            ValueError: as :meth:`packed`.
        """
        return self.packed(name).weight

    def needed_bits(self, name: str) -> dict[str, int]:
        """What a decoder needs of a layer, in bits by stream; public tables, and groups of neighbours, cost nothing.

        A layer that was read before is not read again.

        Raises:
            ValueError: as :meth:`packed`.
        """
        return self._bits[name] if name in self._bits else self.packed(name).bits

    def stored_bits(self, name: str) -> dict[str, int]:
        """What the file spends on a layer, in bits by stream.

        Raises:
            ValueError: there is no such layer.
        """
        parts, found = self._parts(name), {}
        for tensor in self._stored(name):
            stream = self._reader.streams.get(tensor.removeprefix(f"{parts.stem}."), "table")
            found[stream] = found.get(stream, 0) + self.checkpoint.bits(tensor)
        return found

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a layer: layer, group, name, weights, bits per weight by stream, in total and as stored."""
        rows = []
        for name in self.layers:
            weights, (layer, group) = math.prod(self.shape(name)), layer_and_group(name)
            rates = {stream: bits / weights for stream, bits in self.needed_bits(name).items()}
            stored = sum(self.stored_bits(name).values()) / weights
            labels = {"layer": layer, "group": group or "other", "name": name, "weights": weights}
            rows.append(labels | {"rate": sum(rates.values()), "stored": stored} | rates)
        frame = pd.DataFrame(rows).fillna(0.0)  # a layer without a stream pays nothing for it
        return frame[[c for c in frame if c not in TOTALS] + TOTALS]

    @cached_property
    def rates(self) -> pd.DataFrame:
        """Bits per weight by stream, in total and as stored: of the quantized layers, and of the whole model.

        The rest of the model counts at the width in which it is stored, in the column ``unquantized``.  What a
        decoder knows without reading it costs nothing: a head that is tied to the embedding, a bias of zeros,
        the frequencies of rotary embeddings.
        """
        streams = list(self.table.columns[4:-2])
        bits = self.table[streams + TOTALS].mul(self.table.weights, axis=0).sum()
        rest = sum(self.checkpoint.bits(name) for name in self.needed)
        whole = bits.copy()
        whole["unquantized"] = rest
        whole["rate"] += rest
        whole["stored"] += sum(self.checkpoint.bits(name) for name in self.unquantized)
        weights = int(self.table.weights.sum())
        everything = weights + sum(self.checkpoint.size(name) for name in self.needed)
        rows = {"quantized layers": bits / weights, "whole model": whole / everything}
        frame = pd.DataFrame(rows).T.fillna(0.0)[[*streams, "unquantized", *TOTALS]]
        frame.insert(0, "weights", [weights, everything])
        return frame

    def _is_known(self, name: str) -> bool:
        """Whether a decoder needs not read an unquantized tensor."""
        if name == HEAD:
            return self.checkpoint.tied
        if name.endswith(".bias"):
            return not self.checkpoint.stored(name).any()
        return self.checkpoint.tensors[name].kind in (Kind.BUFFER, Kind.SCALE)

    def _parts(self, name: str) -> LayerTensors:
        if name not in self._stem_of:
            raise ValueError(f"{self.checkpoint.folder.name} has no quantized layer {name!r}.")
        return LayerTensors.of(self.checkpoint, self._stem_of[name])

    def _stored(self, name: str) -> list[str]:
        """Names of the tensors of a layer."""
        parts = self._parts(name)
        return [parts.name(suffix) for suffix in parts.suffixes if suffix != "bias"]


def _place(name: str) -> tuple[int, int, str]:
    """Where a weight comes in tables: by layer, then group."""
    layer, group = layer_and_group(name)
    return layer, GROUPS.index(group) if group else len(GROUPS), name


def open_quantized(model: str | Path) -> QuantizedCheckpoint:
    """The quantized checkpoint of a name in :data:`IN_THE_BOX`, of a local folder, a GGUF file or a hub id.

    Raises:
        ValueError: there is no such model, it is not quantized, or by a method that is not read.
    """
    return QuantizedCheckpoint(open_checkpoint(IN_THE_BOX.get(str(model), model)))


def _reader(checkpoint: Checkpoint) -> Reader:
    """The reader of what a checkpoint says that it is."""
    for kind in READERS:
        if kind.reads(checkpoint):
            return kind(checkpoint)
    settings = checkpoint.settings
    if not settings:
        raise ValueError(
            f"{checkpoint.folder.name} has neither a quantization_config in config.json nor a {FILES[0]}: "
            "it is not a quantized checkpoint."
        )
    known = sorted({method for kind in READERS for method in kind.quant_methods})
    raise ValueError(
        f"{settings.folder} was quantized by {settings.quant_method!r}; "
        f"rdlib reads {', '.join(known)}, and GGUF files."
    )
