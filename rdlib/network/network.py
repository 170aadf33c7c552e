"""The network of a checkpoint as a whole, to write text with; and other weights in it for a while."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.utils import logging as messages

from rdlib.models.checkpoint import Checkpoint
from rdlib.models.weight import Weight
from rdlib.network.architecture import architecture, empty_network, tensors_of
from rdlib.weights import DTYPES, refuse_non_finite


def load_network(checkpoint: Checkpoint, device: str | None = None) -> PreTrainedModel:
    """The whole network of a checkpoint in float32, with exactly the tensors that it has, to write text with.

    A text is written token by token, and each takes all layers: so they are all in memory, four bytes a weight.  What
    measures a model runs it layer by layer instead, see :func:`rdlib.engine.walk`.

    Every decoder of the Llama shape runs, see :data:`rdlib.network.architecture.LLAMA_SHAPED`.  FP8 is decoded with
    its scales.

    Args:
        checkpoint: see :func:`rdlib.models.checkpoint.open_checkpoint`.
        device: such as ``"cpu"`` or ``"cuda:0"``; the first CUDA device, or else the CPU, where None.

    Raises:
        ValueError: the checkpoint is no Llama, is itself quantized, lacks a tensor, has one of another shape or one
            that the network has no place for, or holds NaN or Inf.
    """
    config = architecture(checkpoint)
    empty = empty_network(config, checkpoint.folder.name)
    state = {name: _Unread(weight) for name, weight in tensors_of(empty, checkpoint).items()}
    with _no_bar():
        network = type(empty).from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
    for key, parameter in network.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(
                f"{key} of {checkpoint.folder.name} holds NaN or Inf: the network cannot be run."
            )
    network.eval().requires_grad_(False)
    return network.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


@contextmanager
def _no_bar() -> Iterator[None]:
    """Transformers draws no bar while it loads."""
    shown = messages.is_progress_bar_enabled()
    messages.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            messages.enable_progress_bar()


class _Unread:
    """A tensor that is read when transformers slices it: only a few are in memory twice."""

    def __init__(self, weight: Weight):
        self.weight = weight

    def __getitem__(self, _: object) -> torch.Tensor:
        with np.errstate(over="ignore"):  # of float64; Inf is refused once all is loaded
            return torch.tensor(self.weight.values().astype(np.float32))  # where torch aligns it


@contextmanager
def replaced(network: PreTrainedModel, tensors: Mapping[str, np.ndarray]) -> Iterator[PreTrainedModel]:
    """The network with other tensors in place of its own; afterwards, whatever happens, with its own again.

    Its own tensors are set aside where they are and not copied, so they come back to the last bit.  Where the
    output head is tied to the embedding the one tensor, ``model.embed_tokens.weight``, is replaced in both.

    Args:
        network: on any device.
        tensors: name in the checkpoint → Ŵ, (out, in), on the CPU; it is copied to where its module computes.

    Raises:
        ValueError: the network has no such tensor, its shape is another, or Ŵ is not finite; the network is
            then as it was.
    """
    new = {name: _checked(network, name, values) for name, values in tensors.items()}
    with ExitStack() as stack:
        for name, tensor in new.items():
            stack.enter_context(_swapped(network, name, tensor))
        yield network


def _checked(network: PreTrainedModel, name: str, values: np.ndarray) -> torch.Tensor:
    """Ŵ as a float32 tensor of the right shape on the CPU."""
    tied = network.all_tied_weights_keys
    if name in tied:
        raise ValueError(f"{name} is tied to {tied[name]}: replace that one instead; it is used as both.")
    parameters = dict(network.named_parameters())
    if name not in parameters:
        raise ValueError(f"The network has no tensor {name!r}.")
    values, shape = np.asarray(values), tuple(parameters[name].shape)
    if values.shape != shape:
        raise ValueError(f"{name} has shape {shape}, and what should replace it {values.shape}.")
    if values.dtype not in DTYPES:
        raise ValueError(f"{name} cannot be replaced by {values.dtype}: cast it to float32 first.")
    refuse_non_finite(values, name)
    return torch.tensor(values.astype(np.float32))


@contextmanager
def _swapped(network: PreTrainedModel, name: str, tensor: torch.Tensor) -> Iterator[None]:
    parameter = network.get_parameter(name)
    original = parameter.data
    try:
        parameter.data = tensor.to(original.device, original.dtype)
        yield
    finally:
        parameter.data = original
