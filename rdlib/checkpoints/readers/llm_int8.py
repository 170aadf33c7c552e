"""bitsandbytes checkpoints of 8 bits: LLM.int8.

A layer is stored as weight (int8) and SCB (a float32 a row), the codes of :class:`rdlib.quantizers.LLMInt8`, and
decoded in float32.

References:
    Dettmers et al. 2022, arXiv:2208.07339; bitsandbytes 0.50.2, ``int8_vectorwise_dequant``.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.checkpoints.rounded import Rounded
from rdlib.code.code import Code, Stream
from rdlib.models.checkpoint import Checkpoint
from rdlib.quantizers.blocks.llm_int8 import LLMInt8


class BitsAndBytes8(Reader):
    """Layers of 8 bits, one scale a row."""

    quant_methods: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    marks: ClassVar[tuple[str, ...]] = ("SCB", "weight_format")
    streams: ClassVar[Mapping[str, str]] = {"weight": "index", "SCB": "scale", "weight_format": "state"}
    method = "bitsandbytes int8"
    bits = 8

    def __init__(self, checkpoint: Checkpoint):
        """There is one way to store them."""

    @classmethod
    def reads(cls, checkpoint: Checkpoint) -> bool:
        return super().reads(checkpoint) and bool(checkpoint.settings.get("load_in_8bit"))

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        return parts.shape("weight", 2)

    def read(self, parts: LayerTensors) -> EncodedLayer:
        weight = parts.integers("weight", "int8", dimensions=2)
        scale = parts.floats("SCB", dimensions=1)
        parts.expect("SCB", scale, (len(weight),), "one scale a row of weight")
        if "weight_format" in parts and (form := int(parts.integers("weight_format", "uint8", dimensions=0))):
            raise ValueError(
                f"{parts.name('weight_format')} is {form}; rdlib reads 0, rows one after the other."
            )
        index = (weight.view(np.uint8) + np.uint8(128)).astype(np.uint8)
        streams = {"index": Stream.fixed(index, 256), "scale": Stream.floats(scale, "float32")}
        return EncodedLayer(Code(weight.shape, streams), Rounded(LLMInt8(), "float32"))
