"""The network of a checkpoint: run it, put other weights in it for a while, round it as bfloat16 would."""

import shutil
import tempfile
import weakref
from collections import ChainMap
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from rdlib.models.checkpoint import Checkpoint
from rdlib.models.weight import Weight
from rdlib.network.architecture import architecture, empty_network, tensors_of
from rdlib.weights import DTYPES, refuse_non_finite


def load_network(
    checkpoint: Checkpoint, device: str | None = None, device_map: str | dict | None = None
) -> PreTrainedModel:
    """The network of a checkpoint in float32, ready to be evaluated, with exactly the tensors that the checkpoint has.

    Every decoder of the Llama shape runs, see :data:`rdlib.network.architecture.LLAMA_SHAPED`.  FP8 is decoded with
    its scales.

    Args:
        checkpoint: see :func:`rdlib.models.checkpoint.open_checkpoint`.
        device: such as ``"cpu"`` or ``"cuda:0"``; the first CUDA device, or else the CPU, where None.
        device_map: instead of a device, how accelerate spreads a model that does not fit on one: ``"auto"``,
            or module → device, see its documentation.  What goes to ``"disk"`` is written there in float32.

    Raises:
        ValueError: the checkpoint is no Llama, is itself quantized, lacks a tensor, has one of another shape or one
            that the network has no place for, or holds NaN or Inf; or both a device and a device map are given.
    """
    if device is not None and device_map is not None:
        raise ValueError("Give a device or a device_map, not both.")
    if device is None and device_map is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    config = architecture(checkpoint)
    empty = empty_network(config, checkpoint.folder.name)
    state = {name: _Unread(weight) for name, weight in tensors_of(empty, checkpoint).items()}
    if device_map is not None:  # accelerate looks for a tied tensor by each of its names
        state |= {name: state[source] for name, source in empty.all_tied_weights_keys.items()}
    with ExitStack() as stack:
        offloaded = tempfile.mkdtemp(prefix="rdlib-") if device_map is not None else None
        stack.callback(shutil.rmtree, offloaded or "", ignore_errors=True)
        network = type(empty).from_pretrained(
            None,
            config=config,
            state_dict=state,
            dtype=torch.float32,
            device_map=device_map,
            offload_folder=offloaded,
        )
        weakref.finalize(network, stack.pop_all().close)  # the folder goes with the network
    for key, parameter in network.named_parameters():
        if not (parameter.is_meta or parameter.isfinite().all()):
            raise ValueError(
                f"{key} of {checkpoint.folder.name} holds NaN or Inf: the network cannot be run."
            )
    network.eval().requires_grad_(False)
    return network if device is None else network.to(device)


class _Unread:
    """A tensor that is read when transformers slices it: only a few are in memory twice."""

    def __init__(self, weight: Weight):
        self.weight = weight

    def __getitem__(self, _: object) -> torch.Tensor:
        with np.errstate(over="ignore"):  # of float64; Inf is refused once all is loaded
            return torch.tensor(self.weight.values().astype(np.float32))  # where torch aligns it


def input_device(network: PreTrainedModel) -> torch.device:
    """Where inputs go: the device of the embedding, or the CPU where accelerate fetches it when it is needed."""
    return torch.device("cpu") if network.device.type == "meta" else network.device


@contextmanager
def replaced(network: PreTrainedModel, tensors: Mapping[str, np.ndarray]) -> Iterator[PreTrainedModel]:
    """The network with other tensors in place of its own; afterwards, whatever happens, with its own again.

    Its own tensors are set aside where they are and not copied, so they come back to the last bit.  Where the
    output head is tied to the embedding the one tensor, ``model.embed_tokens.weight``, is replaced in both.

    Args:
        network: on any device, or spread over several by accelerate.
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
    if parameter.is_meta:
        with ExitStack() as stack:
            for key in [name, *(k for k, source in network.all_tied_weights_keys.items() if source == name)]:
                stack.enter_context(_swapped_offloaded(network, key, tensor))
            yield
        return
    original = parameter.data
    try:
        parameter.data = tensor.to(original.device, original.dtype)
        yield
    finally:
        parameter.data = original


@contextmanager
def _swapped_offloaded(network: PreTrainedModel, name: str, tensor: torch.Tensor) -> Iterator[None]:
    """The same for a module whose tensors accelerate fetches from memory or disk whenever it runs."""
    module, _, key = name.rpartition(".")
    hook = network.get_submodule(module)._hf_hook
    original = hook.weights_map
    try:
        hook.weights_map = ChainMap({key: tensor}, original)
        yield
    finally:
        hook.weights_map = original


@contextmanager
def bfloat16_rounding(network: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """The network as if it ran in bfloat16: weights, and what enters and leaves every module, are rounded.

    Sums within a module stay in float32, as in the matrix units of accelerators.  What this does to the output
    is the noise that a model in use has anyway: a quantizer that does less harm is as good as none.
    """
    rounded = {
        name: _bfloat16(parameter).cpu().numpy()
        for name, parameter in network.named_parameters()
        if not parameter.is_meta  # offloaded tensors stay as they are stored
    }
    inner = [module for module in network.modules() if module not in (network, network.model)]
    with replaced(network, rounded), ExitStack() as stack:
        for module in inner:
            stack.callback(module.register_forward_hook(lambda m, x, y: _bfloat16_tree(y)).remove)
            if isinstance(module, nn.Linear):
                stack.callback(module.register_forward_pre_hook(lambda m, x: _bfloat16_tree(x)).remove)
        yield network


def _bfloat16(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.bfloat16).to(x.dtype)


def _bfloat16_tree(value: object) -> object:
    """Rounding of a tensor, or of the floating tensors of a tuple."""
    if isinstance(value, tuple):
        return tuple(_bfloat16_tree(part) for part in value)
    return _bfloat16(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
