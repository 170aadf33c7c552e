"""A quantized model as an ordinary folder: dequantized weights that any tool loads, and beside them what they cost."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from rdlib.allocation.plan import Plan
from rdlib.files import whole
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.weight import Kind, Scaled, Weight
from rdlib.network.moments import Moments
from rdlib.quantizers import Quantizer
from rdlib.weights import DTYPES

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
    if folder.exists():  # before hours of work
        raise ValueError(f"{folder.name} exists already: name a folder that does not, or remove it.")
    if "quantization_config" in checkpoint.config:
        raise ValueError(f"{checkpoint.folder.name} is itself quantized: export a plan of its reference.")
    applied = plan.applied(checkpoint, moments)
    spent = {"rate": applied.rate, "rates": applied.rates, "plan": plan.spec}
    _write_model(checkpoint, applied.tensors, folder, spent)
    return applied.rates


def export_model(checkpoint: Checkpoint, folder: str | Path) -> None:
    """Write a model as an ordinary folder, which transformers loads: float32, in which every decoded weight fits.

    That is how a GGUF file becomes a model that can be changed and saved; of any other checkpoint it makes a copy.  The
    folder is there whole or not at all.

    Args:
        checkpoint: the model.
        folder: must not exist.

    Raises:
        ValueError: the folder exists, or weights are stored as codes that are not decoded.
    """
    if any(
        weight.kind is Kind.CODE and not isinstance(weight, Scaled) for weight in checkpoint.tensors.values()
    ):
        raise ValueError(f"{checkpoint.folder.name} is quantized: export the model that it was made of.")
    _write_model(checkpoint, {}, Path(folder), None)


def _write_model(
    checkpoint: Checkpoint, replaced: Mapping[str, np.ndarray], folder: Path, spent: dict | None
) -> None:
    """The folder of a model with some tensors replaced; buffers follow from the configuration and are left out."""
    if folder.exists():
        raise ValueError(f"{folder.name} exists already: name a folder that does not, or remove it.")
    kept = {name: weight for name, weight in checkpoint.tensors.items() if weight.kind is not Kind.BUFFER}
    tensors = {name: _plain(weight) for name, weight in kept.items() if name not in replaced} | dict(replaced)
    with whole(folder) as unfinished:
        unfinished.mkdir()
        save_file(tensors, unfinished / "model.safetensors", {"format": "pt"})
        _write(unfinished / "config.json", _without_dtype(checkpoint.config) | {"dtype": "float32"})
        if spent is not None:
            _write(unfinished / QUANTIZED, spent)
        checkpoint.container.write_tokenizer(unfinished)


def _plain(weight: Weight) -> np.ndarray:
    """Floats as float32, exactly; anything else as it is."""
    tensor = weight.stored() if weight.kind is Kind.UNKNOWN else weight.values()
    return np.ascontiguousarray(tensor.astype(np.float32) if tensor.dtype in DTYPES else tensor)


def _without_dtype(config: dict) -> dict:
    return {key: value for key, value in config.items() if key != "torch_dtype"}


def _write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
