"""Checkpoints by mlx-lm 0.32.2 with mlx 0.32.4 on the CPU."""

import json
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.convert import convert

from rdlib.tools.producers.calibration import MULTI_HEAD
from rdlib.tools.producers.record import record

PACKAGES = ("mlx-lm", "mlx", "transformers")
EVERY_WIDTH = {  # by the end of a module's name
    "q_proj": dict(bits=2, group_size=32),
    "k_proj": dict(bits=3, group_size=32),
    "v_proj": dict(bits=5, group_size=64),
    "o_proj": dict(bits=6, group_size=64),
    "gate_proj": dict(bits=8, group_size=64),
    "down_proj": dict(bits=4, group_size=128),
    "embed_tokens": dict(bits=6, group_size=32),
}
EVERY_MODE = {
    "q_proj": dict(mode="mxfp8", bits=8, group_size=32),
    "k_proj": dict(mode="nvfp4", bits=4, group_size=16),
    "down_proj": dict(mode="nvfp4", bits=4, group_size=16),
    "v_proj": False,
    "embed_tokens": dict(mode="affine", bits=8, group_size=64),
}
CHECKPOINTS = {
    "multi-head-mlx": (MULTI_HEAD, dict(q_bits=4, q_group_size=64, dtype="float16")),
    "multi-head-mlx-mixed": (MULTI_HEAD, dict(q_bits=4, q_group_size=32, modules=EVERY_WIDTH)),
    "multi-head-mlx-float": (MULTI_HEAD, dict(q_mode="mxfp4", modules=EVERY_MODE)),
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does."""
    options = dict(options)
    modules = options.pop("modules", {})
    folder.rmdir()  # the package makes it
    convert(
        str(model),
        str(folder),
        quantize=True,
        quant_predicate=lambda path, module: modules.get(path.rpartition(".")[2], True),
        **options,
    )
    for extra in folder.iterdir():
        if extra.name not in ("config.json", "model.safetensors"):
            extra.unlink()


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package decodes them."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization"]
    tensors = mx.load(str(folder / "model.safetensors"))
    found = {}
    for stem in (name.removesuffix(".scales") for name in tensors if name.endswith(".scales")):
        options = {key: value for key, value in config.items() if key in ("bits", "group_size", "mode")}
        W = mx.dequantize(
            tensors[f"{stem}.weight"],
            tensors[f"{stem}.scales"],
            tensors.get(f"{stem}.biases"),
            **config.get(stem, options),
        )
        found[f"{stem}.weight"] = np.array(W.astype(mx.float32))
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "mlx_lm", PACKAGES, CHECKPOINTS, quantize, dequantize)
