"""A quantized model as an ordinary folder: dequantized weights that any tool loads, and beside them what they cost."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rdlib.allocation.plan import Plan
from rdlib.files import whole
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.moments import Moments
from rdlib.quantizers import Quantizer

COPIED = ("generation_config.json", "token*", "special*")
QUANTIZED = "quantization.json"


def uniform_plan(quantizer: Quantizer, checkpoint: Checkpoint) -> Plan:
    """The plan that writes every linear layer with the same quantizer; embedding and output head stay as they are."""
    return Plan({weight.name: quantizer for weight in checkpoint.weights if weight.layer >= 0})


def export(
    checkpoint: Checkpoint, plan: Plan, folder: str | Path, moments: Moments | None = None
) -> dict[str, float]:
    """Write a model in which Ŵ stands for W, exactly: float32 for all tensors, so that nothing is rounded again.

    The folder has model.safetensors, config.json with the type changed, the tokenizer where the original has one, and
    ``quantization.json``: the plan, and the rate of every tensor.  It is there whole or not at all.

    Args:
        checkpoint: the original.
        plan: see :class:`rdlib.allocation.plan.Plan`; :func:`uniform_plan` makes one of a single quantizer.
        folder: must not exist.
        moments: H of the inputs, for quantizers with error feedback.

    Returns:
        Name of each quantized tensor → bits per weight.

    Raises:
        ValueError: the folder exists, the checkpoint is itself quantized, or a tensor cannot be quantized.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder.name} exists already: name a folder that does not, or remove it.")
    if checkpoint.quantized:
        raise ValueError(f"{checkpoint.folder.name} is itself quantized: export a plan of its reference.")
    applied = plan.applied(checkpoint, moments)
    with whole(folder) as unfinished:
        unfinished.mkdir()
        tensors = {name: _wide(w.values()) for name, w in checkpoint.parameters.items()} | dict(
            applied.tensors
        )
        save_file(tensors, unfinished / "model.safetensors", {"format": "pt"})
        _write(unfinished / "config.json", _config(checkpoint))
        spent = {"rate": applied.rate, "rates": applied.rates, "plan": plan.spec}
        _write(unfinished / QUANTIZED, spent)
        for pattern in COPIED:
            for file in checkpoint.folder.glob(pattern):
                shutil.copy(file, unfinished)
    return applied.rates


def _wide(tensor: np.ndarray) -> np.ndarray:
    """Floats of 16 bits as float32, exactly; anything else as it is."""
    return tensor.astype(np.float32) if tensor.dtype.itemsize == 2 else tensor


def _config(checkpoint: Checkpoint) -> dict:
    """config.json of what is written: float32, and tied where the tensors are."""
    kept = {k: v for k, v in checkpoint.config.items() if k not in ("torch_dtype", "quantization_config")}
    return kept | {"dtype": "float32", "tie_word_embeddings": checkpoint.tied}


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
