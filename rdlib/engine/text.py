"""The hidden states of a model on a text, and the second moments of what enters its matrices, layer by layer."""

from collections.abc import Collection

import numpy as np
import torch

from rdlib.engine.layers import STAGES, Layer, Layers, Output
from rdlib.engine.moments import Moments
from rdlib.functional.divergence import IN_MEMORY, allocate
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.windows import Windows


class Text:
    """The hidden states of the model itself on a text, before the next layer.

    Args:
        network: of the model.
        windows: of the text.
        in_memory: bytes; states that take more go to a temporary file.
    """

    def __init__(self, network: Layers, windows: Windows, in_memory: int = IN_MEMORY):
        self.windows, self.in_memory = windows, in_memory
        self.hidden = allocate((len(windows), windows.length, network.config.hidden_size), in_memory)
        network.embed(windows, self.hidden)

    def advance(self, layer: Layer, recorded: bool = False) -> tuple[Moments, dict[str, torch.Tensor]]:
        """Run the next layer.

        Xᵀ X of a batch of some 2,048 tokens is a float32 product, right to a few 10⁻⁷ of the norm of H; the batches
        are added up in float64.

        Args:
            layer: the next.
            recorded: whether to keep what :meth:`rdlib.engine.layers.Layer.resume` needs.

        Returns:
            H of the inputs of its matrices; and what was kept, for all windows.
        """
        sums, kept = {}, {}
        for batch in self.windows.batches:
            y, record = layer.record(self.hidden[batch])
            for name in STAGES:
                sums[name] = sums.get(name, 0) + squares(record[name])
            for name, x in record.items() if recorded else ():
                if name not in kept:
                    kept[name] = allocate((len(self.windows), *x.shape[1:]), self.in_memory)
                kept[name][batch] = x
            self.hidden[batch] = y
        return self._moments({layer.prefix + name: S for name, S in sums.items()}), kept

    def output(self, output: Output) -> Moments:
        """H of the inputs of the head, after the last layer."""
        return self._moments(
            {"lm_head": sum(squares(output.norm(self.hidden[b])) for b in self.windows.batches)}
        )

    def _moments(self, sums: dict[str, np.ndarray]) -> Moments:
        tokens = len(self.windows) * self.windows.length
        return Moments({name: (S + S.T) / (2 * tokens) for name, S in sums.items()}, tokens)


def second_moments(
    checkpoint: Checkpoint, windows: Windows, layers: Collection[int] | None = None, device: str | None = None
) -> Moments:
    """H = E[x xᵀ] over all inputs of a text, of the matrices of some layers; the network runs no further.

    Args:
        checkpoint: of the model.
        windows: of the text; of whatever stride, every input counts.
        layers: numbers; every layer and the output head where None.
        device: see :class:`rdlib.engine.layers.Layers`.

    Raises:
        ValueError: the model has no such layer, or cannot be run.
    """
    network = Layers(checkpoint, device)
    text, inputs = Text(network, windows), {}
    wanted = range(len(network)) if layers is None else layers
    if outside := set(wanted) - set(range(len(network))):
        raise ValueError(
            f"{network.name} has the layers 0 … {len(network) - 1}, and no layer {min(outside)}."
        )
    for number in range(max(wanted, default=-1) + 1):
        with network.layer(number) as layer:
            moments, _ = text.advance(layer)
            inputs |= moments.inputs if number in wanted else {}
    if layers is None:
        inputs |= text.output(network.output()).inputs
    return Moments(inputs, len(windows) * windows.length)


def squares(x: torch.Tensor) -> np.ndarray:
    """Xᵀ X of vectors (…, in), float64 (in, in)."""
    X = x.flatten(0, -2)
    return (X.T @ X).cpu().numpy().astype(np.float64)
