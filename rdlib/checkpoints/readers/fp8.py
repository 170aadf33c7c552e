"""FP8 with scales that multiply: as DeepSeek and transformers store it (fine-grained), and FBGEMM.

A matrix has weight (e4m3) and weight_scale_inv, which multiplies in spite of its name: a float32 for each block of
128 × 128 (``weight_block_size``; those at the edges are smaller), or for the matrix.  FBGEMM's is weight_scale, one for
each row.  Scales may be powers of two (ue8m0); then groups of 32 inputs have one each, and products become bfloat16.
The same checkpoint is a model, decoded by :mod:`rdlib.models.weight`; here it is a code with its rate.

References:
    DeepSeek-AI 2024, arXiv:2412.19437, section 3.3; transformers 5.23, ``integrations/finegrained_fp8.py``.
"""

from collections.abc import Mapping
from typing import ClassVar

from rdlib.checkpoints.narrow_floats import read_fp8
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.models.checkpoint import Checkpoint

SCALES = ("weight_scale_inv", "weight_scale")


class Fp8(Reader):
    """Layers of floats of 8 bits."""

    quant_methods: ClassVar[tuple[str, ...]] = ("fp8", "fbgemm_fp8")
    marks: ClassVar[tuple[str, ...]] = SCALES
    streams: ClassVar[Mapping[str, str]] = {"weight": "index"} | dict.fromkeys(SCALES, "scale")
    bits = 8

    def __init__(self, checkpoint: Checkpoint):
        settings = checkpoint.settings
        block = settings.get("weight_block_size")
        if block is not None and not (
            isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block)
        ):
            where = f"{settings.file_of('weight_block_size')} of {settings.folder}"
            raise ValueError(f"{where} says weight_block_size = {block!r}, which are not two sizes.")
        self.block = tuple(block) if block else None
        self.method = f"FP8 {' × '.join(map(str, block))}" if block else "FP8"

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        return parts.shape("weight", 2)

    def read(self, parts: LayerTensors) -> EncodedLayer:
        scale, *others = [name for name in SCALES if name in parts]
        if others:
            raise ValueError(f"{parts.stem} has both {' and '.join(SCALES)}: keep the one that multiplies.")
        return read_fp8(parts, self.method, scale, self.block)
