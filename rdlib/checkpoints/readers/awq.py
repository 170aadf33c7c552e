"""AWQ checkpoints in the GEMM format: autoawq, gptqmodel, transformers and AutoRound write them.

A layer is stored as qweight (int32, in × out/8), qzeros (int32, groups × out/8) and scales (groups × out).  The
eight fields of a word hold the columns 0, 2, 4, 6, 1, 3, 5, 7, in that order from the lowest bit.  Weights are those
of scaled inputs: see :mod:`rdlib.checkpoints.folded`.

References:
    Lin et al. 2023, arXiv:2306.00978; autoawq 0.2.9, ``WQLinear_GEMM`` and ``dequantize_gemm``.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.affine import Affine, group_label
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader, unpacked
from rdlib.checkpoints.words import unpack, words_for
from rdlib.checkpoints.zero_points import packing
from rdlib.code.code import Code, Stream
from rdlib.models.checkpoint import Checkpoint

FIELD_OF_COLUMN = np.array([0, 4, 1, 5, 2, 6, 3, 7])


class Awq(Reader):
    """Layers of 4 bits."""

    quant_methods: ClassVar[tuple[str, ...]] = ("awq",)
    marks: ClassVar[tuple[str, ...]] = ("qweight", "qzeros", "scales")
    streams: ClassVar[Mapping[str, str]] = {"qweight": "index", "scales": "scale", "qzeros": "zero"}
    scaled_norms: ClassVar[tuple[str, ...]] = ("input_layernorm.weight", "post_attention_layernorm.weight")

    @classmethod
    def reads(cls, checkpoint: Checkpoint) -> bool:
        return "awq" in packing(checkpoint.settings) or super().reads(checkpoint)

    def __init__(self, checkpoint: Checkpoint):
        settings = checkpoint.settings
        self.bits = settings.one_of("bits", 4)
        self.group_size = settings.group_size()
        self.method = f"AWQ {group_label(self.group_size)}"
        settings.one_of("version", None, "gemm")
        settings.one_of("format", None, "gemm")

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        return parts.shape("scales", 2)[1], parts.shape("qweight", 2)[0]

    def read(self, parts: LayerTensors) -> EncodedLayer:
        qweight = parts.integers("qweight", "int32", dimensions=2)
        scales = parts.floats("scales", dimensions=2)
        qzeros = parts.integers("qzeros", "int32", dimensions=2)
        inputs, outputs = len(qweight), scales.shape[1]
        parts.expect("qweight", qweight, (inputs, words_for(outputs, self.bits)), f"bits = {self.bits}")
        width = self.group_size if self.group_size > 0 else inputs
        groups = -(-inputs // width)
        parts.expect("scales", scales, (groups, outputs), f"group_size = {self.group_size}")
        parts.expect("qzeros", qzeros, (groups, qweight.shape[1]), f"group_size = {self.group_size}")
        streams = {
            "index": unpacked(self._columns(qweight, outputs), self.bits),
            "scale": Stream.floats(np.ascontiguousarray(scales.T), scales.dtype.name),
            "zero": Stream.fixed(self._columns(qzeros, outputs), 1 << self.bits),
        }
        decoder = Affine(self.bits, self.method, f"int{self.bits}", (1, width))
        return EncodedLayer(Code((outputs, inputs), streams), decoder)

    def other_readings(self, name: str, code: Code) -> Mapping[str, Code]:
        """Zero points stored less one, as GPTQ's are, and columns in their own order: mistakes of converters."""
        index, zero, size = code["index"], code["zero"], 1 << self.bits
        shifted = Stream.fixed((zero + np.uint8(1)) % size, size)
        found = {"its zero points one higher": Code(code.shape, dict(code.streams) | {"zero": shifted})}
        if code.shape[0] % 8 == 0:
            order = np.arange(code.shape[0]).reshape(-1, 8)[:, np.argsort(FIELD_OF_COLUMN)].ravel()
            turned = {"index": Stream.fixed(index[order], size), "zero": Stream.fixed(zero[order], size)}
            found["its columns in the order of the fields"] = Code(code.shape, dict(code.streams) | turned)
        return found

    def _columns(self, words: np.ndarray, outputs: int) -> np.ndarray:
        """Fields in the order of the columns, uint8 (out, rows of ``words``)."""
        fields = unpack(words, self.bits, 8 * words.shape[1]).reshape(len(words), -1, 8)
        return np.ascontiguousarray(fields[..., FIELD_OF_COLUMN].reshape(len(words), -1)[:, :outputs].T)
