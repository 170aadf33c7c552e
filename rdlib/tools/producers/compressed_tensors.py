"""Checkpoints by compressed-tensors 0.20.0, which llm-compressor saves with: round to nearest, range by range.

Between them they have all formats that the package writes, with one group of settings or with one for each matrix.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor, ModelCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationConfig, apply_quantization_config
from compressed_tensors.quantization.utils import calculate_qparams, generate_gparam
from safetensors.torch import load_file
from transformers import AutoConfig, LlamaForCausalLM

from rdlib.tools.producers.calibration import MULTI_HEAD
from rdlib.tools.producers.record import layers, read_config, record

PACKAGES = ("compressed-tensors", "transformers", "torch")


def group(
    target: str, form: str, bits: int, kind: str, strategy: str, symmetric: bool = True, **more
) -> dict:
    """Settings of the matrices that a target names."""
    weights = dict(num_bits=bits, type=kind, strategy=strategy, symmetric=symmetric, **more)
    return dict(targets=[target], format=form, weights=weights)


PACKED = "pack-quantized"
E4M3 = dict(scale_dtype="torch.float8_e4m3fn")
E8M0 = dict(scale_dtype="torch.uint8")
GROUPS = {
    "multi-head-compressed-tensors": [group("Linear", PACKED, 4, "int", "group", group_size=32)],
    "multi-head-compressed-tensors-integers": [
        group("re:.*q_proj$", PACKED, 3, "int", "group", symmetric=False, group_size=32),
        group("model.layers.0.self_attn.k_proj", PACKED, 5, "int", "channel", symmetric=False),
        group("re:.*v_proj$", PACKED, 2, "int", "group", group_size=16),
        group("re:.*o_proj$", PACKED, 6, "int", "channel"),
        group("re:.*gate_proj$", "int-quantized", 8, "int", "channel"),
        group("re:.*up_proj$", "naive-quantized", 8, "int", "tensor", symmetric=False),
        group("Linear", PACKED, 7, "int", "group", symmetric=False, group_size=64),
    ],
    "multi-head-compressed-tensors-floats": [
        group("re:.*q_proj$", "float-quantized", 8, "float", "tensor"),
        group("re:.*k_proj$", "float-quantized", 8, "float", "channel"),
        group("re:.*v_proj$", "float-quantized", 8, "float", "block", block_structure=[24, 48]),
        group("re:.*o_proj$", "nvfp4-pack-quantized", 4, "float", "tensor_group", group_size=16, **E4M3),
        group("re:.*gate_proj$", "mxfp4-pack-quantized", 4, "float", "group", group_size=32, **E8M0),
        group("re:.*up_proj$", "mxfp8-quantized", 8, "float", "group", group_size=32, **E8M0),
        group("re:.*down_proj$", "mxfp6-pack-quantized", 6, "float", "group", group_size=32, **E8M0),
    ],
}
CHECKPOINTS = {
    name: (
        MULTI_HEAD,
        dict(config_groups={f"group_{i}": g for i, g in enumerate(groups)}, ignore=["lm_head"]),
    )
    for name, groups in GROUPS.items()
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does."""
    dtype = torch.float16 if "integers" in folder.name else torch.bfloat16
    llama = LlamaForCausalLM.from_pretrained(model, dtype=dtype)
    apply_quantization_config(llama, QuantizationConfig(**options))
    for module in llama.modules():
        if scheme := getattr(module, "quantization_scheme", None):
            _set_parameters(module, scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(llama)
    compressor.compress_model(llama)
    llama.save_pretrained(folder)
    compressor.update_config(folder)


def _set_parameters(module: torch.nn.Module, args: QuantizationArgs) -> None:
    """Scales and zero points from the smallest and the largest weight of each range."""
    W = module.weight.detach()
    if args.strategy == "block":
        height, width = args.block_structure
        blocks = [[block for block in rows.split(width, 1)] for rows in W.split(height)]
        low, high = (
            torch.stack([torch.stack([f(b) for b in row]) for row in blocks])
            for f in (torch.amin, torch.amax)
        )
    else:
        size = {"tensor": W.numel(), "channel": W.shape[1]}.get(args.strategy, args.group_size)
        ranges = W.reshape(-1, size)
        low, high = (f(ranges, 1).reshape(module.weight_scale.shape) for f in (torch.amin, torch.amax))
    scale_of_scales = None
    if args.strategy == "tensor_group":
        scale_of_scales = generate_gparam(low.min(), high.max())
        module.weight_global_scale.data = scale_of_scales
    scale, zero = calculate_qparams(low, high, args, global_scale=scale_of_scales)
    module.weight_scale.data = scale.to(module.weight_scale.dtype)
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data = zero.to(module.weight_zero_point.dtype)


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package decodes them."""
    with torch.device("meta"):
        llama = LlamaForCausalLM(AutoConfig.from_pretrained(folder))
    apply_quantization_config(llama, QuantizationConfig(**read_config(folder)))
    found = {}
    for name, parts in layers(load_file(folder / "model.safetensors"), "weight_scale").items():
        scheme = llama.get_submodule(name.removesuffix(".weight")).quantization_scheme
        compressor = BaseCompressor.get_value_from_registry(scheme.format)
        found[name] = compressor.decompress(parts, scheme)["weight"].float().numpy()
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "compressed_tensors", PACKAGES, CHECKPOINTS, quantize, dequantize)
