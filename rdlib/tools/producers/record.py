"""Write down how a checkpoint was made, and what its own package decodes it to."""

import hashlib
import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from rdlib.tools.producers.calibration import TEXT

PROVENANCE = "provenance.json"
SEED = 0


def record(
    out: Path,
    module: str,
    packages: tuple[str, ...],
    checkpoints: dict[str, tuple[Path, dict]],
    quantize: Callable[[Path, Path, dict], None],
    dequantize: Callable[[Path], dict[str, np.ndarray]],
) -> None:
    """Make every checkpoint of a package in a folder of its own below ``out``, with its provenance beside it."""
    for name, (model, options) in checkpoints.items():
        folder = out / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        torch.manual_seed(SEED)
        torch.set_num_threads(1)
        quantize(model, folder, options)
        provenance = {
            "command": "make checkpoints",
            "module": f"rdlib.tools.producers.{module}",
            "versions": {package: version(package).partition("+")[0] for package in packages},
            "model": model.name,
            "model_sha256": sha256((model / "model.safetensors").read_bytes()),
            "calibration": TEXT.name,
            "calibration_sha256": sha256(TEXT.read_bytes()),
            "seed": SEED,
            "options": options,
            "files": {file.name: sha256(file.read_bytes()) for file in sorted(folder.iterdir())},
            "dequantized": {layer: fingerprint(W) for layer, W in sorted(dequantize(folder).items())},
        }
        (folder / PROVENANCE).write_text(json.dumps(provenance, indent=1) + "\n", encoding="utf-8")


def fingerprint(W: np.ndarray) -> dict:
    """Shape, SHA-256 of the float32 values in C order, and the first four of them."""
    W = np.ascontiguousarray(W, "<f4") + np.float32(0)  # −0 is 0: bitsandbytes' kernels differ in its sign
    return {"shape": list(W.shape), "sha256": sha256(W.tobytes()), "first": W.ravel()[:4].tolist()}


def sha256(data: bytes) -> str:
    """Hexadecimal hash."""
    return hashlib.sha256(data).hexdigest()


def layers(tensors: dict[str, torch.Tensor], mark: str = "qweight") -> dict[str, dict[str, torch.Tensor]]:
    """The tensors of each quantized layer, by the name of the weight that they code."""
    stems = [name.removesuffix(f".{mark}") for name in tensors if name.endswith(f".{mark}")]
    return {
        f"{stem}.weight": {
            name.removeprefix(f"{stem}."): t for name, t in tensors.items() if name.startswith(f"{stem}.")
        }
        for stem in stems
    }


def read_config(folder: Path) -> dict:
    """The ``quantization_config`` of config.json."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
