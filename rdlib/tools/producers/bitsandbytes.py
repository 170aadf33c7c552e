"""Checkpoints by bitsandbytes 0.50.2 through transformers, as ``save_pretrained`` writes them.

No forward pass: on some processors the first one repacks 4-bit weights in place, and what is saved after it is
no longer the format that it says it is.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant
from safetensors.torch import load_file
from transformers import BitsAndBytesConfig, LlamaForCausalLM

from rdlib.tools.producers.calibration import MULTI_HEAD
from rdlib.tools.producers.record import layers, read_config, record

PACKAGES = ("bitsandbytes", "transformers", "torch")
CHECKPOINTS = {
    "multi-head-bitsandbytes-nf4": (
        MULTI_HEAD,
        dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
    ),
    "multi-head-bitsandbytes-fp4": (MULTI_HEAD, dict(load_in_4bit=True, bnb_4bit_quant_type="fp4")),
    "multi-head-bitsandbytes-int8": (MULTI_HEAD, dict(load_in_8bit=True)),
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does."""
    llama = LlamaForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16, quantization_config=BitsAndBytesConfig(**options), device_map="cpu"
    )
    llama.save_pretrained(folder)


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package decodes them."""
    tensors = load_file(folder / "model.safetensors")
    if read_config(folder)["load_in_8bit"]:
        found = {
            name: int8_vectorwise_dequant(parts["weight"], parts["SCB"])
            for name, parts in layers(tensors, "SCB").items()
        }
    else:
        found = {}
        for name, parts in layers(tensors, "weight.absmax").items():
            state = {key.removeprefix("weight."): t for key, t in parts.items() if key != "weight"}
            found[name] = dequantize_4bit(parts["weight"], QuantState.from_dict(state, torch.device("cpu")))
    return {name: W.float().numpy() for name, W in found.items()}


if __name__ == "__main__":
    record(Path(sys.argv[1]), "bitsandbytes", PACKAGES, CHECKPOINTS, quantize, dequantize)
