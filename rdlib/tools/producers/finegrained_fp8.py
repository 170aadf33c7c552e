"""A checkpoint in fine-grained FP8, by the conversion of transformers 5.23."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from safetensors.torch import load_file, save_file
from transformers import FineGrainedFP8Config
from transformers.integrations.finegrained_fp8 import Fp8Dequantize, Fp8Quantize

from rdlib.tools.producers.calibration import MULTI_HEAD
from rdlib.tools.producers.record import layers, record

PACKAGES = ("transformers", "torch")
CHECKPOINTS = {"multi-head-finegrained-fp8": (MULTI_HEAD, dict(weight_block_size=[32, 64]))}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize the matrices of the layers; the rest is left as it is."""
    config = FineGrainedFP8Config(**options)
    convert = Fp8Quantize(SimpleNamespace(quantization_config=config)).convert
    tensors = load_file(model / "model.safetensors")
    for name in [name for name in tensors if "_proj" in name]:
        tensors |= convert({name: tensors[name]})
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    settings["quantization_config"] = config.to_dict()
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package decodes them."""
    tensors = load_file(folder / "model.safetensors")
    convert = Fp8Dequantize(None).convert
    return {
        name: convert(parts)["weight"].float().numpy()
        for name, parts in layers(tensors, "weight_scale_inv").items()
    }


if __name__ == "__main__":
    record(Path(sys.argv[1]), "finegrained_fp8", PACKAGES, CHECKPOINTS, quantize, dequantize)
