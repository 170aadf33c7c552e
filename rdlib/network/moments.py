"""Second moments H = E[x xᵀ] of what enters each linear layer: they say which errors of a matrix matter."""

import json
from collections.abc import Collection, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from tqdm import tqdm
from transformers import LlamaForCausalLM

from rdlib.files import sha256, whole
from rdlib.models.checkpoint import Checkpoint, Weight
from rdlib.network.network import input_device
from rdlib.network.windows import Windows
from rdlib.theory.output import sample_size_bias

INPUTS = (
    "self_attn.q_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.down_proj",
)  # of a layer, all that differ
SAME = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}  # reads the same input as


@dataclass(frozen=True, eq=False)
class Moments:
    """H = E[x xᵀ], (in, in) float64, of the inputs x of every linear layer and of the output head.

    ``moments[weight]`` is H for a weight matrix, by its name in the checkpoint.  q, k and v of a layer read the
    same input and have the same array, and so have gate and up.

    Args:
        inputs: module → H of its inputs; one module for each input, the arrays read-only.
        tokens: how many inputs the mean is over.
    """

    inputs: Mapping[str, np.ndarray]
    tokens: int

    def __post_init__(self) -> None:
        for H in self.inputs.values():
            H.setflags(write=False)

    def __getitem__(self, weight: str | Weight) -> np.ndarray:
        """H of the inputs of a weight matrix; that of a tied output head is ``lm_head.weight``.

        Raises:
            ValueError: it is the matrix of no linear layer.
        """
        name = weight.name if isinstance(weight, Weight) else weight
        block, dot, module = name.removesuffix(".weight").rpartition(".")
        key = f"{block}{dot}{SAME.get(module, module)}"
        if key not in self.inputs:
            raise ValueError(f"{name} is the matrix of no linear layer: its inputs have no second moments.")
        return self.inputs[key]

    @property
    def bias(self) -> str:
        """How far a limit from these H lies too low, as a sentence to print beside it.

        See :func:`rdlib.theory.sample_size_bias`; from 20 tokens an input on it is 0.02 bit and less.
        """
        n = max(map(len, self.inputs.values()))
        low = -sample_size_bias(n, self.tokens)
        return (
            f"H from {self.tokens:,} tokens, {self.tokens / n:.0f} for each of the {n:,} inputs of the widest "
            f"layer: a limit from it is too low by {low:.2f} bit, and by more since tokens depend on each other"
        )


class _Enough(Exception):
    """All inputs that are wanted were seen."""


def second_moments(
    network: LlamaForCausalLM, windows: Windows, layers: Collection[int] | None = None
) -> Moments:
    """The moments over all inputs of calibration windows, whatever their stride, in one pass.

    Xᵀ X of a batch of some 2,048 tokens is a float32 product, right to a few 10⁻⁷ of the norm of H; the
    batches are added up in float64.

    Args:
        network: it is not changed.
        windows: of the calibration text.
        layers: whose inputs are wanted, and the network runs no further than the last of them; None: those of all
            layers and of the head.
    """
    modules = {
        f"model.layers.{number}.{name}": layer.get_submodule(name)
        for number, layer in enumerate(network.model.layers)
        for name in INPUTS
        if layers is None or number in layers
    }
    last = list(modules)[-1] if layers is not None else "lm_head"
    sums = {name: np.zeros((module.in_features,) * 2) for name, module in modules.items()}
    if layers is None:
        sums["lm_head"] = np.zeros((network.lm_head.in_features,) * 2)

    def add(name: str, x: torch.Tensor) -> None:
        X = x.flatten(0, -2)
        sums[name] += (X.T @ X).cpu().numpy()
        if name == last:
            raise _Enough

    with ExitStack() as stack, torch.inference_mode():
        for name, module in modules.items():
            hook = module.register_forward_pre_hook(lambda _, inputs, name=name: add(name, inputs[0]))
            stack.callback(hook.remove)
        for batch in tqdm(list(windows.batches), desc="second moments", leave=False, delay=5):
            ids = torch.from_numpy(windows.ids[batch, :-1]).to(input_device(network))
            with suppress(_Enough):
                add("lm_head", network.model(ids, use_cache=False).last_hidden_state)
    tokens = len(windows) * windows.length
    return Moments({name: (S + S.T) / (2 * tokens) for name, S in sums.items()}, tokens)


def cached_moments(
    network: LlamaForCausalLM,
    checkpoint: Checkpoint,
    windows: Windows,
    folder: str | Path,
    layers: Collection[int] | None = None,
) -> Moments:
    """:func:`second_moments` from a file in ``folder``, where a run on the same model and text left them.

    Otherwise they are computed, and left there; where ``folder`` is empty nothing is read or written.

    Args:
        network: of the checkpoint, unchanged.
        checkpoint: its hash, that of its configuration and that of the windows name the file.
        windows: of the calibration text.
        folder: for results; made where it is missing.
        layers: whose inputs are wanted; None: all.

    Raises:
        ValueError: the file is truncated or of another kind.
    """
    if not folder:
        return second_moments(network, windows, layers)
    scope = "" if layers is None else "-" + "-".join(map(str, sorted(layers)))
    config = sha256(json.dumps(checkpoint.config, sort_keys=True).encode())
    known = f"{checkpoint.sha256[:16]}-{config[:16]}-{windows.sha256[:16]}{scope}"
    path = Path(folder) / f"moments-{known}.safetensors"
    if not path.exists():
        moments = second_moments(network, windows, layers)
        with whole(path) as unfinished:
            save_file(dict(moments.inputs), unfinished, {"tokens": str(moments.tokens)})
    return _load(path)


def _load(path: Path) -> Moments:
    try:
        with safe_open(path, framework="np") as file:
            inputs = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return Moments(inputs, int(file.metadata()["tokens"]))
    except (SafetensorError, TypeError, KeyError, ValueError) as error:
        raise ValueError(f"{path.name} cannot be read ({error}): delete it and run again.") from None
