"""Checkpoints by NVIDIA's ModelOpt 0.47.0 on the CPU, as its export writes them."""

import sys
from copy import deepcopy
from pathlib import Path

import modelopt.torch.quantization as mtq
import numpy as np
import torch
from modelopt.torch.export import export_hf_checkpoint
from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from rdlib.tools.producers.calibration import MULTI_HEAD, byte_windows
from rdlib.tools.producers.record import layers, record

PACKAGES = ("nvidia-modelopt", "transformers", "torch")
CHECKPOINTS = {
    "multi-head-modelopt-nvfp4": (MULTI_HEAD, dict(config="NVFP4_DEFAULT_CFG")),
    "multi-head-modelopt-fp8": (MULTI_HEAD, dict(config="FP8_DEFAULT_CFG")),
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does."""
    llama = LlamaForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    windows = torch.from_numpy(byte_windows())
    mtq.quantize(llama, deepcopy(getattr(mtq, options["config"])), lambda llama: llama(windows[:4]))
    export_hf_checkpoint(llama, export_dir=folder)


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package decodes them."""
    found = {}
    for name, parts in layers(load_file(folder / "model.safetensors"), "weight_scale").items():
        weight, scale = parts["weight"], parts["weight_scale"]
        if "weight_scale_2" in parts:
            code = NVFP4QTensor((len(weight), 2 * weight.shape[1]), torch.bfloat16, weight)
            W = code.dequantize(scale=scale, double_scale=parts["weight_scale_2"], block_sizes={-1: 16})
        else:
            W = FP8QTensor(weight.shape, torch.bfloat16, weight).dequantize(scale=scale)
        found[name] = W.float().numpy()
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "modelopt", PACKAGES, CHECKPOINTS, quantize, dequantize)
