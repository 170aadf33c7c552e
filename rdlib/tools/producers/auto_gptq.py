"""Checkpoints by auto-gptq 0.7.1, in the environment called legacy.

The package was retired before transformers 5 and asks for CUDA; here its device is the CPU.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from auto_gptq import BaseQuantizeConfig
from auto_gptq.modeling import LlamaGPTQForCausalLM, _base, _utils
from auto_gptq.nn_modules.qlinear import qlinear_cuda, qlinear_cuda_old
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from rdlib.tools.producers.calibration import MODEL, MULTI_HEAD, byte_windows, token_windows
from rdlib.tools.producers.record import layers, read_config, record

PACKAGES = ("auto-gptq", "transformers", "torch")
CHECKPOINTS = {
    "auto-gptq": (MODEL, dict(bits=4, group_size=128, sym=False, desc_act=False)),
    "auto-gptq-act-order": (MODEL, dict(bits=4, group_size=128, sym=False, desc_act=True)),
    "multi-head-auto-gptq-2bit": (MULTI_HEAD, dict(bits=2, group_size=32, sym=True, desc_act=False)),
    "multi-head-auto-gptq-3bit": (MULTI_HEAD, dict(bits=3, group_size=32, sym=False, desc_act=True)),
    "multi-head-auto-gptq-8bit": (MULTI_HEAD, dict(bits=8, group_size=-1, sym=True, desc_act=False)),
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does."""
    _base.CUDA_0 = _utils.CUDA_0 = torch.device("cpu")
    torch.cuda.synchronize = lambda: None
    llama = LlamaForCausalLM.from_pretrained(model, torch_dtype=torch.float16)
    windows = torch.from_numpy(token_windows() if model == MODEL else byte_windows())
    quantized = LlamaGPTQForCausalLM(llama, False, BaseQuantizeConfig(**options))
    quantized.quantize([{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in windows])
    quantized.save_quantized(str(folder))


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package's own layer multiplies with them."""
    config = read_config(folder)
    kernel = qlinear_cuda if config["desc_act"] and config["group_size"] != -1 else qlinear_cuda_old
    found = {}
    for name, parts in layers(load_file(next(folder.glob("*.safetensors")))).items():
        rows, columns = parts["qweight"].shape[0] * 32 // config["bits"], parts["qweight"].shape[1]
        layer = kernel.QuantLinear(config["bits"], config["group_size"], rows, columns, "bias" in parts)
        layer.load_state_dict(parts)
        found[name] = layer(torch.eye(rows, dtype=torch.float16)).T.float().numpy()
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "auto_gptq", PACKAGES, CHECKPOINTS, quantize, dequantize)
