"""The quadratic law of a model: what an error of each matrix costs in KL, and the least bits for a KL by it."""

from tqdm import tqdm

from rdlib.engine.curvature import curvature
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.windows import Windows
from rdlib.theory import ModelLimit, Share

ENOUGH = 20  # tokens for each input of the widest matrix: with fewer, directions of no weight are not known


def law(
    checkpoint: Checkpoint, text: Windows, device: str | None = None
) -> tuple[dict[str, float], ModelLimit | None]:
    """α of every matrix of the layers by name, and the limit of the model, by one pass back through it.

    Args:
        checkpoint: of the model.
        text: for H, G and α; the limit is None where it has fewer than ``ENOUGH`` tokens an input.
        device: see :class:`rdlib.engine.layers.Layers`.

    Raises:
        ValueError: the model cannot be run.
    """
    alpha, shares, enough = {}, {}, text.tokens >= ENOUGH * widest(checkpoint)
    layers = 1 + max(weight.layer for weight in checkpoint.weights)
    for layer in tqdm(curvature(checkpoint, text, device=device), "α", layers, leave=False, delay=5):
        for name, found in layer.items():
            alpha[name] = found.alpha(checkpoint.tensor(name))
            if enough:
                shares[name] = Share(alpha[name], found.inputs, found.outputs)
    return alpha, ModelLimit(shares) if enough else None


def widest(checkpoint: Checkpoint) -> int:
    """Inputs of the widest matrix of the layers."""
    return max(weight.shape[1] for weight in checkpoint.weights if weight.layer >= 0)
