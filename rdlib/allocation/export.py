"""A quantized model as an ordinary folder: dequantized weights that any tool loads, and beside them what they cost."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rdlib.allocation.plan import Plan
from rdlib.files import whole
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.moments import Moments

QUANTIZED = "quantization.json"


def export(
    checkpoint: Checkpoint, plan: Plan, folder: str | Path, moments: Moments | None = None
) -> dict[str, float]:
    """Write a model with Ŵ in the place of W, exactly: float32 for all tensors, so that nothing is rounded again.

    The folder has model.safetensors, config.json with the type changed, the tokenizer where the original has one, and
    ``quantization.json``: the plan, and the rate of every tensor.  It is there whole or not at all.

    Args:
        checkpoint: the original.
        plan: see :class:`rdlib.allocation.Plan`; :func:`rdlib.allocation.uniform_plan` makes one of one quantizer.
        folder: must not exist.
        moments: H of the inputs, for quantizers with error feedback.

    Returns:
        Name of each quantized tensor → bits per weight.

    Raises:
        ValueError: the folder exists, the checkpoint is itself quantized, or a tensor cannot be quantized.
    """
    folder = _new(folder, checkpoint)
    applied = plan.applied(checkpoint, moments)
    spent = {"rate": applied.rate, "rates": applied.rates, "plan": plan.spec}
    _write_model(checkpoint, applied.tensors, folder, spent)
    return applied.rates


def export_model(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write a model as it is into an ordinary folder that transformers loads: all tensors decoded, in float32.

    So a GGUF file, which transformers reads but cannot save, becomes a model.  The folder is there whole or not at all.

    Args:
        checkpoint: the model.
        folder: must not exist.

    Raises:
        ValueError: the folder exists, or weights are codes that are not decoded.
    """
    _write_model(checkpoint, {}, _new(folder, checkpoint), None)


def _new(folder: str | Path, checkpoint: Checkpoint) -> Path:
    """The folder, if it can be written and the checkpoint can be exported: asked before hours of work."""
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder.name} exists already: name a folder that does not, or remove it.")
    if checkpoint.quantized:
        raise ValueError(f"{checkpoint.folder.name} is itself quantized: export its reference.")
    return folder


def _write_model(
    checkpoint: Checkpoint, replaced: Mapping[str, np.ndarray], folder: Path, spent: dict | None
) -> None:
    """The folder of a model in which some tensors are replaced, and what was spent on them."""
    kept = {name: w for name, w in checkpoint.parameters.items() if name not in replaced}
    for weight in kept.values():
        weight.refuse_unscaled()
    tensors = {name: _wide(w.values()) for name, w in kept.items()} | dict(replaced)
    with whole(folder) as unfinished:
        unfinished.mkdir()
        save_file(tensors, unfinished / "model.safetensors", {"format": "pt"})
        _write(unfinished / "config.json", _config(checkpoint))
        if spent is not None:
            _write(unfinished / QUANTIZED, spent)
        checkpoint.container.write_tokenizer(unfinished)


def _wide(tensor: np.ndarray) -> np.ndarray:
    """Floats of 16 bits as float32, exactly; anything else as it is."""
    return tensor.astype(np.float32) if tensor.dtype.itemsize == 2 else tensor


def _config(checkpoint: Checkpoint) -> dict:
    """config.json of what is written: float32, and tied where the tensors are."""
    kept = {k: v for k, v in checkpoint.config.items() if k not in ("torch_dtype", "quantization_config")}
    return kept | {"dtype": "float32", "tie_word_embeddings": checkpoint.tied}


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
