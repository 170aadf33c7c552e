"""Quantized checkpoints: what GPTQ, AWQ and bitsandbytes wrote, read without them."""

from rdlib.checkpoints.folded import UnfoldedWeight, aligned, unfold_awq
from rdlib.checkpoints.identity import refuse_other_model
from rdlib.checkpoints.quantized import IN_THE_BOX, QuantizedCheckpoint, open_quantized
from rdlib.checkpoints.readable import readable

__all__ = [
    "IN_THE_BOX",
    "QuantizedCheckpoint",
    "UnfoldedWeight",
    "aligned",
    "open_quantized",
    "readable",
    "refuse_other_model",
    "unfold_awq",
]
