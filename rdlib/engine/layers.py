"""A network of which one layer at a time is in memory: transformers' own modules, filled from the checkpoint in turn.

Of a layer, h = x + o(a) and y = h + down(p), where x enters the layer, a are the outputs of its heads, n is the
normalised h, and p = act(gate(n)) · up(n).  What enters its matrices is all that is needed for their second moments,
and for running the layer again from the first matrix that has changed.
"""

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn

from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import EMBEDDING, HEAD
from rdlib.network.architecture import architecture, empty_network, tensors_of
from rdlib.network.windows import Windows
from rdlib.weights import refuse_non_finite

NORM, LAYER = "model.norm.weight", "model.layers."
STAGES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj")  # a layer begins at each
LATER = {
    "self_attn.o_proj": 1,
    "post_attention_layernorm": 1,
    "mlp.gate_proj": 2,
    "mlp.up_proj": 2,
    "mlp.down_proj": 3,
}

Tensors = Mapping[str, np.ndarray]  # name in the checkpoint → what stands in the place of its tensor


class Layers:
    """The embedding, the layers and the head of a checkpoint, each read when it is asked for and then forgotten.

    Every decoder of the Llama shape runs, see :data:`rdlib.network.architecture.LLAMA_SHAPED`.  Rotary embeddings,
    masks and sliding windows are those of transformers, whose model runs with all layers but one skipped.

    Args:
        checkpoint: see :func:`rdlib.models.checkpoint.open_checkpoint`.
        device: such as ``"cpu"`` or ``"cuda:0"``; the first CUDA device, or else the CPU, where None.

    Raises:
        ValueError: the checkpoint is no Llama, is itself quantized, lacks a tensor, has one of another shape or one
            that the network has no place for.
    """

    def __init__(self, checkpoint: Checkpoint, device: str | None = None):
        self.name = checkpoint.folder.name
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.config = architecture(checkpoint)
        network = empty_network(self.config, self.name)
        self._weights = tensors_of(network, checkpoint)
        self._model = network.model.eval()
        self._layers, self._norm, self._head = list(self._model.layers), self._model.norm, network.lm_head
        self._model.layers = nn.ModuleList(_Skipped() for _ in self._layers)
        self._model.norm = nn.Identity()
        # The numbers of the rotary embedding are computed, not stored: it is made again, off the meta device.
        self._model.rotary_emb = type(self._model.rotary_emb)(self.config).to(self.device)

    def __len__(self) -> int:
        return len(self._layers)

    def __contains__(self, name: str) -> bool:
        return name in self._weights

    @property
    def head(self) -> str:
        """The name of the tensor of the output head: that of the embedding where they are tied."""
        return HEAD if HEAD in self._weights else EMBEDDING

    def names(self, number: int) -> list[str]:
        """Of the tensors of a layer."""
        return [f"{LAYER}{number}.{key}" for key, _ in self._layers[number].named_parameters()]

    def last_layer(self, names: Collection[str]) -> int:
        """The number of the last layer that has one of some tensors; −1 where none has."""
        return max((int(name.split(".")[2]) for name in names if name.startswith(LAYER)), default=-1)

    def tensor(self, name: str, tensors: Tensors) -> torch.Tensor:
        """A tensor of the checkpoint, or what stands in its place, in float32 on the device.

        Raises:
            ValueError: the network has no such tensor, it holds NaN or Inf, or its shape is another.
        """
        if name not in self._weights:
            raise ValueError(f"The network has no tensor {name!r}.")
        values, shape = tensors.get(name), self._weights[name].shape
        values = self._weights[name].values() if values is None else values
        if values.shape != shape:
            raise ValueError(f"{name} has shape {shape}, and what should replace it {values.shape}.")
        wide = torch.empty(shape)
        with np.errstate(over="ignore"):  # of float64
            wide.numpy()[:] = values  # in one step: at 8 billion weights the embedding takes 2.1 GB
        if (
            not wide.sum().isfinite() and not wide.isfinite().all()
        ):  # one pass; a second where the sum is too large
            refuse_non_finite(values, f"{name} of {self.name}")
            raise ValueError(f"{name} of {self.name} does not fit float32.")
        return wide.to(self.device)

    def embed(self, windows: Windows, room: torch.Tensor, tensors: Tensors | None = None) -> None:
        """What enters the first layer, into ``room``, (windows, length, hidden).

        Raises:
            ValueError: the text has tokens that the network does not know.
        """
        known, used = self.config.vocab_size, (windows.ids.min(), windows.ids.max())
        if not 0 <= used[0] <= used[1] < known:
            raise ValueError(
                f"The text has tokens {used[0]} … {used[1]}, and the network knows 0 … {known - 1}: "
                "the tokenizer is that of another model."
            )
        embedding = self.tensor(EMBEDDING, tensors or {})
        for batch in windows.batches:
            room[batch] = nn.functional.embedding(
                torch.from_numpy(windows.ids[batch, :-1]).to(self.device), embedding
            )

    @contextmanager
    def layer(self, number: int) -> Iterator["Layer"]:
        """A layer with its numbers, which it loses at the end.

        Raises:
            ValueError: a tensor holds NaN or Inf.
        """
        module, prefix = self._layers[number], f"{LAYER}{number}."
        with ExitStack() as stack:
            for key in [key for key, _ in module.named_parameters()]:
                stack.enter_context(_set(module, key, self.tensor(prefix + key, {})))
            self._model.layers[number] = module
            stack.callback(self._model.layers.__setitem__, number, _Skipped())
            yield Layer(self, module, prefix)

    def output(self, tensors: Tensors | None = None) -> "Output":
        """The last norm and the head, with some tensors in place of their own.

        Raises:
            ValueError: a tensor holds NaN or Inf, or is of another shape.
        """
        output = Output(copy.deepcopy(self._norm), copy.deepcopy(self._head))
        for module, name in ((output.norm, NORM), (output.head, self.head)):
            module.weight = nn.Parameter(self.tensor(name, tensors or {}), requires_grad=False)
        return output


class Layer:
    """One layer of a network, with its numbers or others in their place.

    Args:
        network: of which it is a layer.
        module: of transformers.
        prefix: of the names of its tensors.
    """

    def __init__(self, network: Layers, module: nn.Module, prefix: str):
        self.network, self.module, self.prefix = network, module, prefix

    @contextmanager
    def replaced(self, tensors: Tensors) -> Iterator[None]:
        """The layer with other tensors in place of its own, and with its own again afterwards.

        Raises:
            ValueError: the layer has no such tensor, its shape is another, or it holds NaN or Inf.
        """
        with ExitStack() as stack:
            for name in tensors:
                new = self.network.tensor(name, tensors)
                stack.enter_context(_set(self.module, name.removeprefix(self.prefix), new))
            yield

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What leaves the layer, (windows, length, hidden), where x enters it; x may take gradients."""
        return self.network._model(inputs_embeds=x.to(self.network.device), use_cache=False).last_hidden_state

    @torch.inference_mode()
    def run(self, x: torch.Tensor) -> torch.Tensor:
        """:meth:`forward` without gradients."""
        return self.forward(x)

    @torch.inference_mode()
    def record(self, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """:meth:`run`, and what enters each of :data:`STAGES` and the second norm (``h``)."""
        record: dict[str, torch.Tensor] = {"x": x}
        modules = {name: self.module.get_submodule(name) for name in STAGES}
        modules["h"] = self.module.post_attention_layernorm
        with ExitStack() as stack:
            for name, module in modules.items():
                hook = module.register_forward_pre_hook(lambda _, x, name=name: record.update({name: x[0]}))
                stack.callback(hook.remove)
            return self.run(x), record

    @torch.inference_mode()
    def resume(self, stage: int, record: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """:meth:`run` from one of :data:`STAGES` on; what comes before it is as it was recorded."""
        if stage == 0:
            return self.run(record["x"])
        attention, mlp = self.module.self_attn, self.module.mlp
        record = {name: x.to(self.network.device) for name, x in record.items()}
        if stage == 1:
            h = record["x"] + attention.o_proj(record["self_attn.o_proj"])
            return h + mlp(self.module.post_attention_layernorm(h))
        if stage == 2:
            return record["h"] + mlp(record["mlp.gate_proj"])
        return record["h"] + mlp.down_proj(record["mlp.down_proj"])

    @property
    def names(self) -> list[str]:
        """Of its tensors."""
        return [self.prefix + key for key, _ in self.module.named_parameters()]

    @property
    def modules(self) -> list[nn.Module]:
        """All that run, the rotary embedding among them."""
        return [*self.module.modules(), self.network._model.rotary_emb]

    def stage(self, names: Iterable[str]) -> int:
        """The first of :data:`STAGES` that some changed tensors of the layer have an effect on."""
        modules = (name.removeprefix(self.prefix).rpartition(".")[0] for name in names)
        return min(LATER.get(module, 0) for module in modules)


class Output(nn.Module):
    """The last norm and the output head: what leaves the last layer, (…, hidden) → logits, (…, vocabulary)."""

    def __init__(self, norm: nn.Module, head: nn.Linear):
        super().__init__()
        self.norm, self.head = norm, head

    @torch.inference_mode()
    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(hidden.to(self.head.weight.device)))


class _Skipped(nn.Module):
    """A layer that changes nothing."""

    def forward(self, hidden_states: torch.Tensor, **_: object) -> torch.Tensor:
        return hidden_states


@contextmanager
def _set(module: nn.Module, key: str, tensor: torch.Tensor) -> Iterator[None]:
    """A module with another tensor as its parameter ``key``."""
    path, _, leaf = key.rpartition(".")
    holder = module.get_submodule(path)
    before = holder._parameters[leaf]
    try:
        holder._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
        yield
    finally:
        holder._parameters[leaf] = before
