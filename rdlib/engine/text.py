"""Hidden states on a text, and the second moments of what enters the matrices of a layer."""

from collections.abc import Callable, Collection

import numpy as np
import torch

from rdlib.engine.layers import STAGES, Layer, Layers, Output
from rdlib.engine.moments import Moments
from rdlib.engine.room import IN_MEMORY, Room
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.windows import Windows
from rdlib.weights import tiles

Record = dict[str, torch.Tensor]  # what Layer.resume needs, for all windows


class Text:
    """The hidden states on a text, before the next layer.

    Args:
        windows: of the text.
        room: for the states.
        hidden: the states, (windows, length, hidden).
    """

    def __init__(self, windows: Windows, room: Room, hidden: torch.Tensor):
        self.windows, self.room, self.hidden = windows, room, hidden

    @classmethod
    def embedded(
        cls, network: Layers, windows: Windows, room: Room, tensors: dict[str, np.ndarray] | None = None
    ) -> "Text":
        """What enters the first layer, with some tensors in place of the network's own."""
        hidden = room((len(windows), windows.length, network.config.hidden_size))
        network.embed(windows, hidden, tensors)
        return cls(windows, room, hidden)

    def advance(self, layer: Layer, recorded: bool = False) -> tuple[Moments, Record]:
        """Run the next layer.

        Args:
            layer: the next.
            recorded: whether to keep what :meth:`rdlib.engine.layers.Layer.resume` needs.

        Returns:
            H of the inputs of its matrices; and what was kept.
        """
        kept: Record = {}

        def take(batch: slice, y: torch.Tensor, record: Record) -> None:
            for name, x in record.items() if recorded else ():
                if name not in kept:
                    kept[name] = self.room((len(self.windows), *x.shape[1:]))
                kept[name][batch] = x
            self.hidden[batch] = y

        return self._observed(layer, take), kept

    def moments(self, layer: Layer) -> Moments:
        """H of the inputs of the matrices of the next layer, which is not passed."""
        return self._observed(layer, lambda *_: None)

    def _observed(self, layer: Layer, take: Callable[[slice, torch.Tensor, Record], None]) -> Moments:
        """Run a layer for its moments; ``take`` is given what leaves it, and what entered its stages.

        Xᵀ X of a batch of some 2,048 tokens is a float32 product, right to a few 10⁻⁷ of the norm of H; the batches
        are added up in float64.
        """
        sums: dict[str, np.ndarray] = {}
        for batch in self.windows.batches:
            y, record = layer.record(self.hidden[batch])
            for name in STAGES:
                sums[name] = _added(sums.get(name), record[name])
            take(batch, y, record)
        return self._moments({layer.prefix + name: S for name, S in sums.items()})

    def passed(self, run: Callable[[slice], torch.Tensor], in_place: bool = False) -> "Text":
        """The text after a layer.

        Args:
            run: batch of windows → what leaves the layer.
            in_place: whether the states before it are not needed any more.
        """
        hidden = self.hidden if in_place else self.room(tuple(self.hidden.shape))
        for batch in self.windows.batches:
            hidden[batch] = run(batch)
        return Text(self.windows, self.room, hidden)

    def output(self, output: Output) -> Moments:
        """H of the inputs of the head, after the last layer."""
        S = None
        for batch in self.windows.batches:
            S = _added(S, output.norm(self.hidden[batch].to(output.head.weight.device)))
        return self._moments({"lm_head": S})

    def _moments(self, sums: dict[str, np.ndarray]) -> Moments:
        tokens = self.windows.tokens
        for S in sums.values():  # in place: at 8 billion weights one of these takes 1.6 GB
            for tile, mirror in tiles(len(S)):
                S[tile] = (S[tile] + S[mirror].T) / (2 * tokens)
                S[mirror] = S[tile].T
        return Moments(sums, tokens)


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
    text, inputs = Text.embedded(network, windows, Room(IN_MEMORY)), {}
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
    return Moments(inputs, windows.tokens)


def squares(x: torch.Tensor) -> np.ndarray:
    """Xᵀ X of vectors (…, in), float64 (in, in)."""
    return _added(None, x)


def _added(S: np.ndarray | None, x: torch.Tensor) -> np.ndarray:
    """S + Xᵀ X in float64, in the place of S."""
    X = x.flatten(0, -2)
    product = (X.T @ X).cpu().numpy()
    if S is None:
        return product.astype(np.float64)
    S += product
    return S
