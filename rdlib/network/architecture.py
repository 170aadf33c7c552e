"""Which network a checkpoint is of: its configuration, the tensors it asks for, and whether they are what is stored.

Missing tensors, tensors of another shape and tensors that the network has no place for are refused before any is read:
transformers would fill a gap with random numbers, and drop what is too much.
"""

from collections.abc import Iterable

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from rdlib.models.checkpoint import Checkpoint, examples
from rdlib.models.names import HEAD
from rdlib.models.weight import Weight

LLAMA_SHAPED = ("llama", "mistral", "qwen2", "qwen3", "smollm3")  # the same modules by the same names
_NOT_OF_THE_NETWORK = ("auto_map", "dtype", "quantization_config", "torch_dtype")


def architecture(checkpoint: Checkpoint) -> PreTrainedConfig:
    """The configuration of the network, in which the head is tied where the tensors say so.

    Raises:
        ValueError: it is no decoder of the Llama shape, its weights are codes, or transformers cannot build it.
    """
    config, name = checkpoint.config, checkpoint.folder.name
    kind = config.get("model_type")
    if kind not in LLAMA_SHAPED:
        raise ValueError(
            f"{name} is of type {kind!r}; only a 'llama' or a decoder of its shape ({', '.join(LLAMA_SHAPED[1:])}) "
            f"can be run, and it has {examples(checkpoint.names)}."
        )
    if checkpoint.quantized:
        raise ValueError(f"{name} is quantized: run its reference, and put the decoded tensors in its place.")
    kept = {key: value for key, value in config.items() if key not in (*_NOT_OF_THE_NETWORK, "model_type")}
    stored = HEAD in checkpoint
    kept["tie_word_embeddings"] = checkpoint.tied and (stored or config.get("tie_word_embeddings", True))
    try:
        return AutoConfig.for_model(kind, **kept)
    except Exception as error:  # of transformers, whichever it is: its validation raises many
        raise ValueError(f"config.json of {name} is none of a {kind!r}: {_line(error)}.") from None


def empty_network(config: PreTrainedConfig, name: str) -> PreTrainedModel:
    """The network without numbers: all its parameters on the device "meta".

    Raises:
        ValueError: transformers cannot build it.
    """
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except Exception as error:  # as above
        raise ValueError(
            f"config.json of {name} describes no network that can be built: {_line(error)}."
        ) from None


def tensors_of(network: PreTrainedModel, checkpoint: Checkpoint) -> dict[str, Weight]:
    """The stored tensor of every parameter of the network.

    Raises:
        ValueError: the checkpoint lacks a parameter, has it in another shape or in FP8 without a scale, or stores
            more than the network has, or frequencies of rotary embedding that are not those of its configuration.
    """
    asked = {key: tuple(parameter.shape) for key, parameter in network.named_parameters()}
    stored = checkpoint.parameters
    found = {key: stored[key] for key in asked if key in stored}
    name = checkpoint.folder.name
    _refuse(f"{name} lacks", asked.keys() - stored.keys(), "which its config.json asks for.")
    wrong = {f"{key} {w.shape}" for key, w in found.items() if w.shape != asked[key]}
    _refuse(f"{name} has in another shape", wrong, "than its config.json asks for.")
    remedy = "which its config.json has no place for: correct it (attention_bias, num_hidden_layers, …)."
    _refuse(f"{name} stores", stored.keys() - asked.keys(), remedy)
    for weight in found.values():
        weight.refuse_unscaled()
    _refuse_other_frequencies(network.config, checkpoint)
    return found


def _refuse_other_frequencies(config: PreTrainedConfig, checkpoint: Checkpoint) -> None:
    """Raise where old files hold the frequencies of rotary embedding, and they are not those of config.json.

    θ^(−2i/d) from 1 on, falling: anything else that is stored under the name was not computed so, and is not used.
    """
    rope = config.rope_parameters
    for weight in checkpoint.tensors.values():
        if not weight.name.endswith("rotary_emb.inv_freq") or rope.get("rope_type") != "default":
            continue
        stored = weight.stored().astype(np.float64)
        expected = float(rope["rope_theta"]) ** (-np.arange(len(stored)) / len(stored))
        falling = stored[0] == 1 and (np.diff(stored) < 0).all()
        if falling and not np.allclose(stored, expected, rtol=0.02):
            theta = stored[-1] ** (-len(stored) / (len(stored) - 1))
            raise ValueError(
                f"{weight.name} of {checkpoint.folder.name} is of rope_theta = {theta:.4g}, and its config.json says "
                f"{rope['rope_theta']:g}: correct it."
            )


def _refuse(begin: str, names: Iterable[str], end: str) -> None:
    """Raise with a number of names, if there are any."""
    if names:
        count = f"{len(names)} tensors, such as " if len(names) > 3 else ""
        raise ValueError(f"{begin} {count}{examples(names)}, {end}")


def _line(error: Exception) -> str:
    """What an exception says, in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200].rstrip('.')}"
