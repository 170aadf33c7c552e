"""Sensitivity: what a few changed tensors do to the output, without computing again what comes before them.

A :class:`Replay` keeps the inputs of every layer.  A run with changed tensors begins at the first layer that
contains one of them; if only one changed, the part of that layer before it is kept, too.  The output is that of
the whole network to the last bit: the same operations on the same numbers.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn
from transformers import LlamaForCausalLM

from rdlib.functional.divergence import IN_MEMORY, Functional, Reference, allocate, compare_logits, forward
from rdlib.network.network import input_device, replaced
from rdlib.network.windows import Windows

LAYER = re.compile(r"model\.layers\.(\d+)\.")
LATE = re.compile(r"model\.layers\.\d+\.(?:self_attn\.(o)|mlp\.(gate|up|down))_proj\.weight")


class Replay:
    """Runs of a network with changed tensors, each computed from the first change on.

    Keeps (layers + 1) · hidden floats a token, and of one layer at a time about 12 · hidden more.

    Args:
        network: as it was when the reference was made.
        reference: its logits, and the text.
        in_memory: bytes; inputs of layers that take more go to a temporary file.
    """

    def __init__(self, network: LlamaForCausalLM, reference: Reference, in_memory: int = IN_MEMORY):
        self.network, self.reference = network, reference
        self._inputs = _inputs_of_layers(network, reference.windows, in_memory)
        self._kept: tuple[int, list[dict[str, torch.Tensor]]] = (-1, [])  # of one layer, batch by batch

    def compare(self, tensors: Mapping[str, np.ndarray]) -> Functional:
        """How far the network strays from the reference with these tensors in place of its own.

        Args:
            tensors: name → Ŵ, see :func:`rdlib.network.network.replaced`.

        Raises:
            ValueError: as there.
        """
        start, late = _first_change(tensors, len(self.network.model.layers))
        kept = self._keep(start) if late else None  # before anything is replaced
        with replaced(self.network, tensors):
            return compare_logits(self._forward(start, late, kept), self.reference)

    @torch.inference_mode()
    def _forward(self, start: int, late: str | None, kept: list[dict] | None) -> Iterator[torch.Tensor]:
        """Logits as :func:`rdlib.functional.divergence.forward` gives them, from the layer ``start`` on."""
        network, windows = self.network, self.reference.windows
        if start < 0:
            yield from forward(network, windows)
            return
        for k, batch in enumerate(windows.batches):
            if late:
                hidden = _resume(network.model.layers[start], late, kept[k])
            else:
                hidden = self._inputs[start, batch].to(input_device(network))
            with _layers(network, slice(start + bool(late), None)):
                out = network(inputs_embeds=hidden, use_cache=False, logits_to_keep=windows.stride)
            yield out.logits

    @torch.inference_mode()
    def _keep(self, number: int) -> list[dict[str, torch.Tensor]]:
        """What :func:`_resume` needs of a layer, batch by batch; that of the last layer asked for is kept."""
        if self._kept[0] != number:
            network, kept = self.network, []
            for batch in self.reference.windows.batches:
                hidden = self._inputs[number, batch].to(input_device(network))
                with _recorded(network.model.layers[number]) as record:
                    with _layers(network, slice(number, number + 1)):
                        network.model(inputs_embeds=hidden, use_cache=False)
                kept.append(record)
            self._kept = (number, kept)
        return self._kept[1]


def _first_change(names: Collection[str], layers: int) -> tuple[int, str | None]:
    """The first layer to recompute, and the group of a tensor that changed alone, so that the layer is reused up to it.

    Layer −1 is the embedding; the number of layers is the norm and the head after them.
    """
    after = ("model.norm.weight", "lm_head.weight")
    places = [int(m[1]) if (m := LAYER.match(n)) else layers if n in after else -1 for n in names]
    start = min(places, default=layers)
    match = LATE.fullmatch(next(iter(names))) if len(names) == 1 and start < layers else None
    return start, (match[1] or match[2]) if match else None


def _resume(layer: nn.Module, group: str, kept: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Output of a layer in which only the matrix of a group has changed, from what was kept before that matrix.

    x + o(a) = h; h + down(act(gate(n)) · up(n)) = y, with a the heads' output and n the normalised h.
    """
    mlp = layer.mlp
    if group == "o":
        h = kept["x"] + layer.self_attn.o_proj(kept["a"])
        return h + mlp(layer.post_attention_layernorm(h))
    if group == "gate":
        product = mlp.act_fn(mlp.gate_proj(kept["n"])) * kept["up"]
    elif group == "up":
        product = mlp.act_fn(kept["gate"]) * mlp.up_proj(kept["n"])
    else:
        product = kept["product"]
    return kept["h"] + mlp.down_proj(product)


@contextmanager
def _recorded(layer: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """What :func:`_resume` needs, filled in when the layer runs."""
    record: dict[str, torch.Tensor] = {}
    attention, mlp = layer.self_attn, layer.mlp
    inputs = {"x": layer.input_layernorm, "a": attention.o_proj, "h": layer.post_attention_layernorm}
    inputs |= {"n": mlp.gate_proj, "product": mlp.down_proj}
    outputs = {"gate": mlp.gate_proj, "up": mlp.up_proj}
    with ExitStack() as stack:
        for name, module in inputs.items():
            hook = module.register_forward_pre_hook(lambda _, x, name=name: record.update({name: x[0]}))
            stack.callback(hook.remove)
        for name, module in outputs.items():
            hook = module.register_forward_hook(lambda _, x, y, name=name: record.update({name: y}))
            stack.callback(hook.remove)
        yield record


@torch.inference_mode()
def _inputs_of_layers(network: LlamaForCausalLM, windows: Windows, in_memory: int) -> torch.Tensor:
    """(layers + 1, windows, length, hidden): what enters each layer, and what leaves the last."""
    modules = [*network.model.layers, network.model.norm]
    inputs = allocate((len(modules), len(windows), windows.length, network.config.hidden_size), in_memory)
    for batch in windows.batches:
        with ExitStack() as stack:
            for row, module in zip(inputs, modules, strict=True):
                stack.callback(module.register_forward_pre_hook(_copy_input_to(row[batch])).remove)
            network.model(
                torch.from_numpy(windows.ids[batch, :-1]).to(input_device(network)), use_cache=False
            )
    return inputs


def _copy_input_to(room: torch.Tensor) -> Callable[[nn.Module, tuple], None]:
    """A hook that writes the first input of a module into ``room``."""

    def hook(_: nn.Module, inputs: tuple) -> None:
        room.copy_(inputs[0])

    return hook


class _Skipped(nn.Module):
    """In the place of a layer that does not run: each of the others keeps its number, by which its mask is chosen."""

    def forward(self, hidden: torch.Tensor, **_: object) -> torch.Tensor:
        return hidden


@contextmanager
def _layers(network: LlamaForCausalLM, part: slice) -> Iterator[None]:
    """The network with only some of its layers."""
    layers = network.model.layers
    run = range(len(layers))[part]
    try:
        network.model.layers = nn.ModuleList(
            layer if number in run else _Skipped() for number, layer in enumerate(layers)
        )
        yield
    finally:
        network.model.layers = layers
