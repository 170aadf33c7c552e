"""Checkpoints by hqq 0.2.8.post1 on the CPU: the state of its layers, as it and transformers save them."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
from safetensors.torch import load_file, save_file

from rdlib.tools.producers.calibration import MULTI_HEAD
from rdlib.tools.producers.record import layers, record

PACKAGES = ("hqq", "torch")
EVERY_WIDTH = {  # by the end of a module's name
    "q_proj": dict(nbits=1, group_size=32),
    "k_proj": dict(nbits=2, group_size=32),
    "v_proj": dict(nbits=3, group_size=64),
    "o_proj": dict(nbits=5, group_size=64),
    "gate_proj": dict(nbits=8, group_size=128),
    "up_proj": dict(nbits=3, group_size=64, axis=0),
    "down_proj": dict(nbits=4, group_size=64, view_as_float=True),
}
CHECKPOINTS = {
    "multi-head-hqq": (MULTI_HEAD, dict(nbits=4, group_size=64, dtype="float16")),
    "multi-head-hqq-mixed": (MULTI_HEAD, dict(dtype="bfloat16", modules=EVERY_WIDTH)),
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize the matrices of the layers; the rest is left as it is."""
    options = dict(options)
    dtype, modules = getattr(torch, options.pop("dtype")), options.pop("modules", {})
    tensors = load_file(model / "model.safetensors")
    for name in [name for name in tensors if "_proj" in name]:
        stem = name.removesuffix(".weight")
        config = BaseQuantizeConfig(**options | dict(axis=1) | modules.get(stem.rpartition(".")[2], {}))
        layer = HQQLinear.from_weights(tensors.pop(name), None, config, compute_dtype=dtype, device="cpu")
        for key, value in layer.state_dict().items():
            if value is not None:
                tensors[f"{stem}.{key}"] = value.detach().contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    settings["quantization_config"] = {
        "quant_config": BaseQuantizeConfig(**options, axis=1),
        "quant_method": "hqq",
        "skip_modules": ["lm_head"],
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package decodes them."""
    found = {}
    for name, parts in layers(load_file(folder / "model.safetensors"), "W_q").items():
        layer = HQQLinear(None, None, compute_dtype=parts["scale"].dtype, device="cpu")
        layer.load_state_dict(dict(parts))
        found[name] = layer.dequantize().float().numpy()
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "hqq", PACKAGES, CHECKPOINTS, quantize, dequantize)
