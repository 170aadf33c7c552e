"""A checkpoint by compressed-tensors 0.14.0, which packed loosely and stored the groups of act-order."""

import sys
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.compressors.quantized_compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file
from transformers import AutoConfig, LlamaForCausalLM

from rdlib.tools.producers.calibration import MULTI_HEAD
from rdlib.tools.producers.record import layers, read_config, record

PACKAGES = ("compressed-tensors", "transformers", "torch")
SCHEMES = {
    "re:.*q_proj$": dict(num_bits=3, group_size=32, symmetric=False),
    "re:.*k_proj$": dict(num_bits=5, group_size=32, actorder="group"),
    "re:.*(v|o)_proj$": dict(num_bits=6, group_size=64, symmetric=False),
    "re:.*(gate|up|down)_proj$": dict(num_bits=7, group_size=32, symmetric=False, actorder="group"),
}
GROUPS = {
    f"group_{i}": dict(targets=[target], weights=dict(type="int", strategy="group", **weights))
    for i, (target, weights) in enumerate(SCHEMES.items())
}
CHECKPOINTS = {
    "multi-head-compressed-tensors-legacy": (MULTI_HEAD, dict(config_groups=GROUPS, ignore=["lm_head"]))
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does; the order of inputs is a random one."""
    llama = LlamaForCausalLM.from_pretrained(model, torch_dtype=torch.bfloat16)
    apply_quantization_config(llama, QuantizationConfig(**options))
    for module in llama.modules():
        if scheme := getattr(module, "quantization_scheme", None):
            W, size = module.weight.detach(), scheme.weights.group_size
            if hasattr(module, "weight_g_idx"):
                module.weight_g_idx.data = (torch.randperm(W.shape[1]) // size).to(module.weight_g_idx.dtype)
                W = W[:, torch.argsort(module.weight_g_idx)]
            groups = W.reshape(len(W), -1, size)
            scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), scheme.weights)
            module.weight_scale.data = scale.to(module.weight_scale.dtype)
            if hasattr(module, "weight_zero_point"):
                module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)
    compressor = ModelCompressor.from_pretrained_model(llama, quantization_format="pack-quantized")
    compressor.compress_model(llama)
    llama.save_pretrained(folder)
    compressor.update_config(folder)


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package decodes them."""
    with torch.device("meta"):
        llama = LlamaForCausalLM(AutoConfig.from_pretrained(folder))
    config = QuantizationConfig(**read_config(folder))
    apply_quantization_config(llama, config)
    compressor, found = PackedQuantizationCompressor(config=config), {}
    for name, parts in layers(load_file(folder / "model.safetensors"), "weight_scale").items():
        scheme = llama.get_submodule(name.removesuffix(".weight")).quantization_scheme
        found[name] = compressor.decompress_weight(parts, scheme.weights).float().numpy()
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "compressed_tensors_legacy", PACKAGES, CHECKPOINTS, quantize, dequantize)
