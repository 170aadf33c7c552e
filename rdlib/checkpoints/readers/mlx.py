"""MLX checkpoints: mlx-lm and LM Studio write them, for Macs.

A layer is stored as weight (uint32, row after row, each one stream of bits), scales (a column for each group of
inputs) and, in the mode affine, biases.  ``quantization`` in config.json gives mode, bits and group size of all layers,
and again those of single ones by their name, or ``false`` for one that is not quantized.  What an entry does not say is
mlx's default, not what is said of all.  Embedding and head are layers like the others.

* affine: ŵ = s·q + m.  Product and sum are each rounded to the type of s and m, as mlx computes in it.
* mxfp4, mxfp8, nvfp4: ŵ = s·t_q, t the floats E2M1 or E4M3, s a byte, 2^e (E8M0) or E4M3, rounded to bfloat16, in which
  mlx decodes if nothing else is asked for.

References:
    mlx 0.32.4, ``mlx.core.quantize`` and ``dequantize`` on the CPU; mlx-lm 0.32.2, ``quantize_model``.
"""

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple

import numpy as np

from rdlib.checkpoints.affine import Levels, Shifted
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader, stored
from rdlib.checkpoints.words import unpack, words_for
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.code.floats import FLOATS
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import canonical
from rdlib.models.weight import Kind
from rdlib.weights import refuse_non_finite


class Mode(NamedTuple):
    """What a mode allows, the first of each being mlx's default, and what its codes and scales stand for."""

    group_size: tuple[int, ...]
    bits: tuple[int, ...]
    element: str = ""  # a key of LEVELS
    scale: str = ""  # a float type that is stored as bytes


MODES = {
    "affine": Mode((64, 32, 128), (4, 2, 3, 5, 6, 8)),
    "mxfp4": Mode((32,), (4,), "e2m1", "float8_e8m0fnu"),
    "mxfp8": Mode((32,), (8,), "e4m3", "float8_e8m0fnu"),
    "nvfp4": Mode((16,), (4,), "e2m1", "float8_e4m3fn"),
}


class Layout(NamedTuple):
    """How a layer is coded."""

    mode: str
    bits: int
    group_size: int

    def __str__(self) -> str:
        return f"{self.mode} with bits = {self.bits} and group_size = {self.group_size}"

    @property
    def decoder(self) -> Decoder:
        method = f"MLX {self.mode} g{self.group_size}"
        if self.mode == "affine":
            return Shifted(self.bits, method, self.group_size)
        return Levels(self.bits, method, MODES[self.mode].element, (1, self.group_size), "bfloat16")


class Mlx(Reader):
    """Layers of the modes of mlx, each with bits of its own, as ``quantization`` of config.json says."""

    quant_methods: ClassVar[tuple[str, ...]] = ("mlx",)
    marks: ClassVar[tuple[str, ...]] = ("scales",)
    streams: ClassVar[Mapping[str, str]] = {"weight": "index", "scales": "scale", "biases": "minimum"}

    def __init__(self, checkpoint: Checkpoint):
        said = checkpoint.config["quantization"]
        self.folder = checkpoint.folder.name
        self._codes = {name for name, tensor in checkpoint.tensors.items() if tensor.kind is Kind.CODE}
        self._own = {canonical(f"{path}.weight"): options for path, options in said.items()}
        self._usual = self._layout("all layers", said)
        self.bits, self.method = self._usual.bits, self._usual.decoder.method

    def stems(self, names: Iterable[str]) -> list[str]:
        return sorted(name.removesuffix(".weight") for name in names if name in self._codes)

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        rows, words = parts.shape("weight", 2)
        return rows, words * 32 // self._layout_of(parts).bits

    def read(self, parts: LayerTensors) -> EncodedLayer:
        layout, (rows, columns) = self._layout_of(parts), self.shape(parts)
        mode, groups = MODES[layout.mode], -(-columns // layout.group_size)
        words = parts.integers("weight", "uint32", dimensions=2)
        parts.expect("weight", words, (rows, words_for(groups * layout.group_size, layout.bits)), str(layout))
        index = unpack(words, layout.bits, columns)
        if mode.element == "e4m3":
            refuse_non_finite(index.view(FLOATS["float8_e4m3fn"]), parts.name("weight"))
        numbers = self._numbers(parts, mode.scale)
        for suffix, array in numbers.items():
            parts.expect(suffix, array, (rows, groups), str(layout))
        if strange := sorted({*parts.suffixes} - {"weight", "bias", *numbers}):
            raise ValueError(f"{parts.name(strange[0])} is a tensor that mode {layout.mode} does not have.")
        streams = {"index": Stream.fixed(index, 1 << layout.bits)}
        streams |= {self.streams[suffix]: stored(array) for suffix, array in numbers.items()}
        return EncodedLayer(Code((rows, columns), streams), layout.decoder)

    def _numbers(self, parts: LayerTensors, dtype: str) -> dict[str, np.ndarray]:
        """Scales and minima of one float type; or scales alone, bytes that stand for floats of a type."""
        if dtype:
            scales = parts.integers("scales", "uint8", dimensions=2).view(FLOATS[dtype])
            refuse_non_finite(scales, parts.name("scales"))
            return {"scales": scales}
        scales, minima = (parts.floats(suffix, dimensions=2) for suffix in ("scales", "biases"))
        if minima.dtype != scales.dtype:
            raise ValueError(f"{parts.name('biases')} is {minima.dtype}, and scales are {scales.dtype}.")
        return {"scales": scales, "biases": minima}

    def _layout_of(self, parts: LayerTensors) -> Layout:
        """What is said of a layer, or else of all."""
        said = self._own.get(parts.name("weight"), True)
        if isinstance(said, Mapping):
            return self._layout(parts.stem, said)
        if said is not True:
            raise ValueError(
                f"{parts.stem} is quantized, but quantization in config.json of {self.folder} says {said!r} of it: "
                "correct the one that is wrong."
            )
        return self._usual

    def _layout(self, what: str, said: Mapping[str, object]) -> Layout:
        """The layout that settings name; what they leave out is mlx's default."""
        mode = self._one_of(what, said, "mode", tuple(MODES))
        bits = self._one_of(what, said, "bits", MODES[mode].bits)
        return Layout(mode, bits, self._one_of(what, said, "group_size", MODES[mode].group_size))

    def _one_of(self, what: str, said: Mapping[str, object], key: str, known: tuple) -> object:
        value = said.get(key, known[0])
        if type(value) is not type(known[0]) or value not in known:
            raise ValueError(
                f"quantization in config.json of {self.folder} says {key} = {value!r} of {what}; mlx has "
                f"{', '.join(map(str, known))}."
            )
        return value
