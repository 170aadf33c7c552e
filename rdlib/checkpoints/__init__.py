"""Quantized checkpoints: what GPTQ, AWQ and bitsandbytes wrote, read without them."""

from rdlib.checkpoints.available import open_available
from rdlib.checkpoints.folded import UnfoldedWeight, aligned, unfold_awq
from rdlib.checkpoints.identity import refuse_other_model
from rdlib.checkpoints.quantized import IN_THE_BOX, QuantizedCheckpoint, open_quantized

__all__ = [
    "IN_THE_BOX",
    "QuantizedCheckpoint",
    "UnfoldedWeight",
    "aligned",
    "open_available",
    "open_quantized",
    "refuse_other_model",
    "unfold_awq",
]
