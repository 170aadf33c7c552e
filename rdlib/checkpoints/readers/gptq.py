"""GPTQ checkpoints: auto-gptq, gptqmodel, optimum, transformers and AutoRound write them.

A layer is stored as qweight (int32, inputs packed down the rows), qzeros (int32, outputs packed along the
columns, see :mod:`rdlib.checkpoints.zero_points`), scales and g_idx (the group of every input).  Matrices may have
settings of their own, see :mod:`rdlib.checkpoints.overrides`.

**Where a file contradicts itself.**  Files labelled v1 at times store z as v2 does, and the reverse: every weight is
then off by one scale.  A symmetric file shows it (its zero points are not 2^(b − 1)), and so does the model that the
file was made of (the other reading is closer to it): both are refused.  So are ``desc_act = false`` with groups that
are no neighbours, which some kernels would ignore.

References:
    Frantar, Ashkboos, Hoefler and Alistarh 2022, arXiv:2210.17323; auto-gptq 0.7.1 and gptqmodel 7.6.0,
    ``QuantLinear.pack`` and ``dequantize_weight``.
"""

from collections.abc import Mapping
from copy import copy
from typing import ClassVar, Self

import numpy as np

from rdlib.checkpoints.affine import ActOrdered, Affine, group_label
from rdlib.checkpoints.overrides import Overrides
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader, unpacked
from rdlib.checkpoints.words import unpack, words_for
from rdlib.checkpoints.zero_points import AUTO_ROUND, ZeroPoints, packing
from rdlib.code.code import Code, Stream
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.settings import Settings


class Gptq(Reader):
    """Layers of 2, 3, 4 or 8 bits, and some with settings of their own."""

    quant_methods: ClassVar[tuple[str, ...]] = ("gptq", *AUTO_ROUND)
    marks: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales", "g_idx")
    streams: ClassVar[Mapping[str, str]] = {
        **{"qweight": "index", "scales": "scale", "qzeros": "zero"},
        "g_idx": "g_idx",
    }

    def __init__(self, checkpoint: Checkpoint):
        self._settings, self._overrides = checkpoint.settings, Overrides(checkpoint.settings)
        self._set(self._settings)

    def _set(self, settings: Settings) -> None:
        """What some settings say of a matrix."""
        settings.refuse("is_marlin_format")
        self.bits = settings.one_of("bits", 2, 3, 4, 8)
        self.group_size = settings.group_size()
        self.reordered = settings.get("desc_act")
        self.symmetric = settings.get("sym")
        self._zeros = ZeroPoints.of(settings, self.bits)
        name = "AutoRound" if packing(settings) else "GPTQ act-order" if self.reordered else "GPTQ"
        self.method = f"{name} {group_label(self.group_size)}"

    @classmethod
    def reads(cls, checkpoint: Checkpoint) -> bool:
        return "awq" not in packing(checkpoint.settings) and super().reads(checkpoint)

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        rows, outputs = parts.shape("qweight", 2)
        return outputs, self._of(parts.stem)._inputs(parts, rows)

    def read(self, parts: LayerTensors) -> EncodedLayer:
        return self._of(parts.stem)._read(parts)

    def _of(self, module: str) -> Self:
        """The reader of a matrix: itself, or one with settings of its own."""
        if not (own := self._overrides.of(module)):
            return self
        other = copy(self)
        other._set(self._settings.overridden(own))
        return other

    def _read(self, parts: LayerTensors) -> EncodedLayer:
        qweight = parts.integers("qweight", "int32", dimensions=2)
        inputs, outputs = self._inputs(parts, len(qweight)), qweight.shape[1]
        parts.expect("qweight", qweight, (words_for(inputs, self.bits), outputs), f"bits = {self.bits}")
        width = self.group_size if self.group_size > 0 else inputs
        groups = -(-inputs // width)
        reason = f"bits = {self.bits} with group_size = {self.group_size}"
        scales = parts.floats("scales", dimensions=2)
        parts.expect("scales", scales, (groups, outputs), reason)
        qzeros = parts.integers("qzeros", "int32", dimensions=2)
        parts.expect("qzeros", qzeros, (groups, words_for(outputs, self.bits)), reason)
        index = unpack(qweight.T, self.bits, inputs)
        streams = {
            "index": unpacked(index, self.bits),
            "scale": Stream.floats(np.ascontiguousarray(scales.T), scales.dtype.name),
            "zero": Stream.fixed(self._symmetric(parts, self._zeros.unpack(qzeros, outputs)), 1 << self.bits),
        }
        group, how = self._groups(parts, inputs, groups), (self.bits, self.method, f"int{self.bits}")
        if np.array_equal(group, np.arange(inputs) // width):
            decoder = Affine(*how, (1, width))
        elif self.reordered is False:
            raise ValueError(
                f"{parts.name('g_idx')} puts inputs together that are no neighbours, but the settings say desc_act = "
                "false: correct the one that is wrong."
            )
        else:
            decoder = ActOrdered(*how, (1, width))
            streams["g_idx"] = Stream.fixed(group, groups)
        return EncodedLayer(Code((outputs, inputs), streams), decoder)

    def other_readings(self, name: str, code: Code) -> Mapping[str, Code]:
        """As the other version of the format has it."""
        return self._zeros.otherwise(code)

    def _inputs(self, parts: LayerTensors, rows: int) -> int:
        """How many inputs a layer has: as many as g_idx, which files of before 2023 lack."""
        if "g_idx" in parts:
            return parts.shape("g_idx", 1)[0]
        if self.reordered:
            raise ValueError(f"{parts.name('g_idx')} is missing, but desc_act = true needs it.")
        return rows * 32 // self.bits

    def _symmetric(self, parts: LayerTensors, zeros: np.ndarray) -> np.ndarray:
        """Zero points, which are 2^(b − 1) where the settings say that the grid is symmetric.

        Raises:
            ValueError: they are not.
        """
        centre = 1 << self.bits - 1
        if self.symmetric is True and (wrong := zeros[zeros != centre]).size:
            raise ValueError(
                f"{parts.name('qzeros')} holds the zero point {wrong[0]}, but sym = true makes it {centre}: the file "
                f"may be stored as checkpoint_format = {self._zeros.other!r} has it; correct the settings."
            )
        return zeros

    def _groups(self, parts: LayerTensors, inputs: int, groups: int) -> np.ndarray:
        """The group of every input, (in,)."""
        if "g_idx" not in parts:
            return np.arange(inputs) // (self.group_size if self.group_size > 0 else inputs)
        group = parts.integers("g_idx", "int32", "int64", dimensions=1)
        outside = (group < 0) | (group >= groups)
        if outside.any():
            raise ValueError(
                f"{parts.name('g_idx')} names the group {group[outside][0]}, but scales has {groups} groups."
            )
        return group
