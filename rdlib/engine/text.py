"""The hidden states of a model on a text, and the second moments of what enters its matrices, layer by layer."""

import numpy as np
import torch

from rdlib.engine.layers import STAGES, Layer, Layers, Output
from rdlib.functional.divergence import IN_MEMORY, allocate
from rdlib.network.moments import Moments
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
                sums[name] = sums.get(name, 0) + _squares(record[name])
            for name, x in record.items() if recorded else ():
                if name not in kept:
                    kept[name] = allocate((len(self.windows), *x.shape[1:]), self.in_memory)
                kept[name][batch] = x
            self.hidden[batch] = y
        return self._moments({layer.prefix + name: S for name, S in sums.items()}), kept

    def output(self, output: Output) -> Moments:
        """H of the inputs of the head, after the last layer."""
        return self._moments({"lm_head": sum(_squares(output.norm(self.hidden[b])) for b in self.windows.batches)})

    def _moments(self, sums: dict[str, np.ndarray]) -> Moments:
        tokens = len(self.windows) * self.windows.length
        return Moments({name: (S + S.T) / (2 * tokens) for name, S in sums.items()}, tokens)


def _squares(x: torch.Tensor) -> np.ndarray:
    """Xᵀ X of inputs (windows, length, in), float64 (in, in)."""
    X = x.flatten(0, -2)
    return (X.T @ X).cpu().numpy().astype(np.float64)
