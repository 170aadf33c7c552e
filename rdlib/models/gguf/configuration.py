"""The metadata of a file as the config.json of transformers."""

from collections.abc import Callable, Mapping

import numpy as np

from rdlib.models.gguf.file import GGUF
from rdlib.models.gguf.names import ROPE

MODEL_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
NEUTRAL = {  # what changes the computation and is not read → the value that changes nothing
    "attention.causal": True,
    "attention.clamp_kqv": 0.0,
    "attention.sliding_window": 0,
    "attn_logit_softcapping": 0.0,
    "embedding_scale": 1.0,
    "expert_count": 0,
    "final_logit_softcapping": 0.0,
    "logit_scale": 1.0,
    "residual_scale": 1.0,
    "rope.scale_linear": 1.0,
    "rope.scaling.attn_factor": 1.0,
    "use_parallel_residual": False,
}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def configuration(gguf: GGUF) -> dict[str, object]:
    """config.json of a model.

    Sizes are those of the metadata, except where a tensor knows better: the vocabulary has as many words as the
    embedding has rows, and the head is tied where there is no ``output.weight``.

    Raises:
        ValueError: the architecture is none of Llama's shape, a key is missing, of another type or changes the
            computation in a way that is not read, or rotary embedding is scaled in a way that is not understood; the
            message names the file and the key.
    """
    architecture = gguf.metadata.get("general.architecture")
    if architecture not in MODEL_CLASSES:
        known = ", ".join(MODEL_CLASSES)
        raise ValueError(
            f"{gguf.name} is of the architecture {architecture!r}; those that are read: {known}."
        )
    for key, neutral in NEUTRAL.items():
        if (value := gguf.metadata.get(f"{architecture}.{key}", neutral)) != neutral:
            raise ValueError(f"{gguf.name} says {architecture}.{key} = {value!r}, which is not read.")
    get = _getter(gguf, architecture)
    hidden, heads = get("embedding_length", int), get("attention.head_count", int)
    if "token_embd.weight" not in gguf.tensors:
        raise ValueError(f"{gguf.name} has no tensor token_embd.weight.")
    head_dim = get("attention.key_length", int, get("rope.dimension_count", int, hidden // max(heads, 1)))
    scale = get("attention.scale", float, head_dim**-0.5)
    if not np.isclose(scale, head_dim**-0.5, rtol=1e-3):
        raise ValueError(f"{gguf.name} says {architecture}.attention.scale = {scale!r}, which is not read.")
    for key in ("attention.value_length", "rope.dimension_count"):
        if get(key, int, head_dim) != head_dim:
            raise ValueError(
                f"{gguf.name} says {architecture}.{key} = {get(key, int)}, but heads are of {head_dim}."
            )
    config = {
        "architectures": [MODEL_CLASSES[architecture]],
        "model_type": architecture,
        "hidden_size": hidden,
        "intermediate_size": get("feed_forward_length", int),
        "num_hidden_layers": get("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": get("attention.head_count_kv", int, heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": get("context_length", int),
        "rms_norm_eps": _shortest(get("attention.layer_norm_rms_epsilon", float)),
        "rope_theta": _shortest(get("rope.freq_base", float, 10000.0)),
        "vocab_size": gguf.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in gguf.tensors,
        "dtype": "float32",
    }
    if architecture == "llama":
        config["attention_bias"] = "blk.0.attn_q.bias" in gguf.tensors
        config["mlp_bias"] = "blk.0.ffn_up.bias" in gguf.tensors
    if scaling := _rope_scaling(gguf, get, config):
        config["rope_scaling"] = scaling
    tokens = {ours: gguf.metadata.get(f"tokenizer.ggml.{theirs}") for ours, theirs in TOKENS.items()}
    return config | {name: token for name, token in tokens.items() if type(token) is int}


def _getter(gguf: GGUF, architecture: str) -> Callable:
    """Reads a key of the architecture; without a default it has to be there."""

    def get(key: str, kind: type, default: object = None) -> object:
        name = f"{architecture}.{key}"
        value = gguf.metadata.get(name, default)
        if value is None:
            raise ValueError(f"{gguf.name} lacks the key {name}.")
        if type(value) is not kind or (kind is not str and not 0 < value < 1 << 40):
            raise ValueError(f"{gguf.name} says {name} = {value!r}, which is not understood.")
        return value

    return get


def _shortest(value: float) -> float:
    """The shortest decimal number that float32 rounds to a value: 1e-05 for 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _rope_scaling(gguf: GGUF, get: Callable, config: Mapping) -> dict[str, object] | None:
    """How rotary embedding is stretched beyond the context of training."""
    if ROPE in gguf.tensors:
        return _llama3_scaling(gguf, config)
    kind = gguf.metadata.get(f"{config['model_type']}.rope.scaling.type", "none")
    match kind:
        case "none":
            return None
        case "linear":
            return {"rope_type": "linear", "factor": _shortest(get("rope.scaling.factor", float))}
        case "yarn":
            return {
                "rope_type": "yarn",
                "factor": _shortest(get("rope.scaling.factor", float)),
                "original_max_position_embeddings": get("rope.scaling.original_context_length", int),
            }
    raise ValueError(f"{gguf.name} scales rotary embedding by {kind!r}; none, linear and yarn are read.")


def _llama3_scaling(gguf: GGUF, config: Mapping) -> dict[str, object]:
    """Llama 3's scaling, of which the file holds not the settings but the factors that follow from them."""
    info = gguf.tensors[ROPE]
    factors = info.type.weights(gguf.rows(ROPE)).ravel()
    settings = LLAMA3 | {"factor": float(factors.max())}
    if not np.allclose(
        factors, llama3_factors(config["rope_theta"], config["head_dim"], **settings), rtol=1e-4
    ):
        raise ValueError(f"{gguf.name} divides frequencies by {ROPE}, and not as Llama 3 does.")
    return {"rope_type": "llama3"} | settings


def llama3_factors(
    theta: float,
    head_dim: int,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: int,
) -> np.ndarray:
    """What Llama 3 divides the frequencies of rotary embedding by, (head_dim / 2,).

    Waves longer than ``original / low`` are stretched by the factor, those shorter than ``original / high`` not at
    all, and between them the frequency goes over linearly in original / length.
    """
    waves = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = (original_max_position_embeddings / waves - low_freq_factor) / (
        high_freq_factor - low_freq_factor
    )
    smooth = np.clip(smooth, 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)
