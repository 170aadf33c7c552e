"""Tiny Llama checkpoints as tools in the wild write them: plain, sharded, FP8 with scales, GPTQ packed by hand."""

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
Tensors = dict[str, np.ndarray]
Q0, DOWN1 = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"


def config(**changes: object) -> dict:
    """config.json of two layers of 64, with changes."""
    base = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 96,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 80,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1,
    }  # fmt: skip
    return base | changes


def llama(seed: int = 0, prefix: str = "model.", layers: int = 2, biases: tuple[str, ...] = ()) -> Tensors:
    """Its tensors in bfloat16, rows of very different power; biases of the projections named."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        spread = np.exp(0.7 * random.standard_normal((shape[0], *(1,) * (len(shape) - 1))))
        return (0.1 * spread * random.standard_normal(shape)).astype(BFLOAT16)

    shapes = {
        "self_attn.q": (64, 64),
        "self_attn.k": (32, 64),
        "self_attn.v": (32, 64),
        "self_attn.o": (64, 64),
    }
    shapes |= {"mlp.gate": (96, 64), "mlp.up": (96, 64), "mlp.down": (64, 96)}
    found = {f"{prefix}embed_tokens.weight": normal(80, 64), f"{prefix}norm.weight": normal(64)}
    for layer in range(layers):
        for name, shape in shapes.items():
            found[f"{prefix}layers.{layer}.{name}_proj.weight"] = normal(*shape)
            if name.rpartition(".")[2] in biases:
                found[f"{prefix}layers.{layer}.{name}_proj.bias"] = normal(shape[0])
        for norm in ("input_layernorm", "post_attention_layernorm"):
            found[f"{prefix}layers.{layer}.{norm}.weight"] = normal(64)
    return found | {"lm_head.weight": normal(80, 64)}


def write(
    folder: Path, tensors: Tensors, settings: dict | None = None, file: str = "model.safetensors"
) -> Path:
    """A folder with one file of tensors and config.json; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, folder / file, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config() if settings is None else settings))
    return folder


def write_index(folder: Path, file_of: dict[str, str], name: str = "model.safetensors.index.json") -> None:
    """The index of a sharded checkpoint."""
    (folder / name).write_text(json.dumps({"metadata": {}, "weight_map": file_of}))


def is_linear(name: str) -> bool:
    """Whether a name is that of a matrix of a layer."""
    return name.endswith("_proj.weight")


def refusal(act: Callable[[], object], *words: str) -> str:
    """The one sentence that an action is refused with; it has the words."""
    with pytest.raises(ValueError) as error:
        act()
    sentence = str(error.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence, sentence
    return sentence


# FP8


def fp8(W: np.ndarray, scale: np.ndarray, dtype: type = ml_dtypes.float8_e4m3fn) -> np.ndarray:
    """Codes of W for a scale that broadcasts."""
    return (W.astype(np.float32) / scale.astype(np.float32)).astype(dtype)


def spread(scale: np.ndarray, shape: tuple[int, int], block: tuple[int, int]) -> np.ndarray:
    """A scale for each weight of one for each block, written out slowly."""
    return np.array([[scale[i // block[0], j // block[1]] for j in range(shape[1])] for i in range(shape[0])])


# GPTQ


def words(fields: np.ndarray, bits: int) -> np.ndarray:
    """Fields (n, columns) as 32-bit words down the columns: one long number a column."""
    columns = []
    for column in fields.T:
        number = sum(int(q) << (bits * i) for i, q in enumerate(column))
        count = -(-len(column) * bits // 32)
        columns.append([number >> (32 * k) & 0xFFFFFFFF for k in range(count)])
    return np.array(columns, np.uint32).T.view(np.int32)


def gptq_layer(
    W: np.ndarray, symmetric: bool, version: int, bits: int = 4, size: int = 32
) -> tuple[Tensors, np.ndarray]:
    """What a layer is stored as, by the ends of the names; and Ŵ."""
    columns = W.astype(np.float32).T
    groups = columns.reshape(-1, size, columns.shape[1])
    top = (1 << bits) - 1
    if symmetric:
        s = (2 * np.abs(groups).max(1) / top).astype(np.float16)
        z = np.full(s.shape, 1 << bits - 1)
    else:
        low, high = np.minimum(groups.min(1), 0), np.maximum(groups.max(1), 0)
        s = ((high - low) / top).astype(np.float16)
        z = np.clip(np.rint(-low / s.astype(np.float32)), 0, top).astype(int)
    of = np.arange(len(columns)) // size
    q = np.clip(np.rint(columns / s[of].astype(np.float32)) + z[of], 0, top).astype(int)
    stored = (z - (version == 1)) & top
    parts = {
        "qweight": words(q, bits),
        "qzeros": np.ascontiguousarray(words(stored.T, bits).T),
        "scales": s,
        "g_idx": of.astype(np.int32),
    }
    hat = (s[of].astype(np.float32) * (q - z[of])).astype(np.float16).astype(np.float32)
    return parts, hat.T


def gptq(
    tensors: Tensors,
    symmetric: bool = True,
    version: int = 1,
    which: Callable[[str], bool] = is_linear,
    bits: int = 4,
) -> tuple[Tensors, Tensors]:
    """A model in which some matrices are quantized, the rest in float16; and Ŵ of those."""
    stored, hats = {}, {}
    for name, W in tensors.items():
        if which(name):
            parts, hats[name] = gptq_layer(W, symmetric, version, bits)
            stored |= {f"{name.removesuffix('weight')}{end}": part for end, part in parts.items()}
        else:
            stored[name] = W.astype(np.float16)
    return stored, hats


def gptq_settings(**changes: object) -> dict:
    """quantization_config of the same."""
    base = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
    return base | {"checkpoint_format": "gptq"} | changes
