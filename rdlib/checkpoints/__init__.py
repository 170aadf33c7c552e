"""Quantized checkpoints: what GPTQ, AWQ and bitsandbytes wrote, read without them."""

from rdlib.checkpoints.available import open_available
from rdlib.checkpoints.folded import aligned
from rdlib.checkpoints.identity import refuse_other_model
from rdlib.checkpoints.quantized import IN_THE_BOX, QuantizedCheckpoint, open_quantized
