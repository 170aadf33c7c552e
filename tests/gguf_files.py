"""Small GGUF files, written by the package gguf as llama.cpp's converter writes them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, quants

CONFIG = {  # of a Llama whose rows are whole blocks of every type
    "embedding_length": 256,
    "feed_forward_length": 512,
    "block_count": 2,
    "head_count": 4,
    "head_count_kv": 2,
    "vocabulary": 260,
}
GROUPS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def llama_tensors(
    seed: int = 0, tied: bool = True, config: Mapping[str, int] = CONFIG
) -> dict[str, np.ndarray]:
    """The tensors of a small Llama under transformers' names, float32."""
    random = np.random.default_rng(seed)
    hidden, ffn, vocabulary = (config[k] for k in ("embedding_length", "feed_forward_length", "vocabulary"))
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (hidden // 2, hidden),
        "self_attn.v_proj": (hidden // 2, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (ffn, hidden),
        "mlp.up_proj": (ffn, hidden),
        "mlp.down_proj": (hidden, ffn),
        **dict.fromkeys(NORMS.values(), (hidden,)),
    }
    found = {"model.embed_tokens.weight": (vocabulary, hidden), "model.norm.weight": (hidden,)}
    if not tied:
        found["lm_head.weight"] = (vocabulary, hidden)
    for layer in range(config["block_count"]):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    scale = 0.05
    return {
        name: (scale * random.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in found.items()
    }


def in_file(tensors: Mapping[str, np.ndarray], config: Mapping[str, int] = CONFIG) -> dict[str, np.ndarray]:
    """The same tensors under GGUF's names, with the rows of q and k as llama.cpp has them."""
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for layer in range(config["block_count"]):
        names |= {
            f"model.layers.{layer}.{ours}": f"blk.{layer}.{theirs}"
            for theirs, ours in (GROUPS | NORMS).items()
        }
    found = {}
    for name, tensor in tensors.items():
        theirs = names[name.removesuffix(".weight")]
        heads = {"attn_q": config["head_count"], "attn_k": config["head_count_kv"]}.get(theirs.split(".")[-1])
        found[f"{theirs}.weight"] = permuted(tensor, heads) if heads else tensor
    return found


def permuted(W: np.ndarray, heads: int) -> np.ndarray:
    """Rows i and i + d/2 of every head beside each other."""
    out = np.empty_like(W)
    d = len(W) // heads
    for head in range(heads):
        for i in range(d // 2):
            for j in range(2):
                out[head * d + 2 * i + j] = W[head * d + i + j * d // 2]
    return out


def write_llama(
    path: Path,
    tensors: Mapping[str, np.ndarray],
    types: Mapping[str, str] | str = "F32",
    metadata: Mapping[str, object] | None = None,
    config: Mapping[str, int] = CONFIG,
    **split: int,
) -> Path:
    """A GGUF file of a Llama.

    Args:
        path: of the file; a split writes several beside it.
        tensors: as :func:`llama_tensors` makes them.
        types: of matrices, by the part of the name before ``.weight`` of GGUF; or one for all.
        metadata: strings, integers, floats, booleans or lists that are added or take the place of others.
        config: sizes, of the same keys as :data:`CONFIG`.
        split: of :class:`gguf.GGUFWriter`.
    """
    writer = GGUFWriter(path, "llama", **split)
    writer.add_context_length(128)
    for key in ("embedding_length", "feed_forward_length", "block_count", "head_count", "head_count_kv"):
        getattr(writer, f"add_{key}")(config[key])
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    metadata = dict(metadata or {})
    if alignment := metadata.pop("general.alignment", None):
        writer.add_custom_alignment(alignment)
    for key, value in metadata.items():
        kind = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}[type(value)]
        getattr(writer, f"add_{kind}")(key, value)
    for name, tensor in in_file(tensors, config).items():
        kind = types if isinstance(types, str) else types.get(name.removesuffix(".weight"), "F32")
        kind = GGMLQuantizationType["F32" if tensor.ndim == 1 else kind]
        writer.add_tensor(name, stored(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def stored(W: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """The bytes of a matrix: quantized where the package can, and else random blocks of finite weights."""
    try:
        return quants.quantize(W, kind)
    except NotImplementedError:
        return random_blocks(kind, *W.shape)


def random_blocks(kind: GGMLQuantizationType, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """Bytes that stand for finite weights, uint8 (rows, bytes of a row)."""
    random = np.random.default_rng(seed)
    width = quants.quant_shape_to_byte_shape((rows, columns), kind)[1]
    data = random.integers(0, 256, (rows, width), dtype=np.uint8)
    with np.errstate(all="ignore"):
        while not (finite := np.isfinite(quants.dequantize(data, kind)).all(axis=1)).all():
            data[~finite] = random.integers(0, 256, (int((~finite).sum()), width), dtype=np.uint8) & 0x7B
    return data


BYTES = [
    chr(i) for i in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]
]  # as GPT-2 writes them


def tokenizer_metadata(pre: str = "gpt-2", **more: object) -> dict[str, object]:
    """A byte-level tokenizer: 256 bytes, three merges and the end."""
    merges = ["t h", "th e", "1 2"]
    tokens = [*BYTES, "th", "the", "12", "<|end|>"]
    assert len(tokens) == CONFIG["vocabulary"] and len(set(tokens)) == len(tokens)
    stored = {
        "model": "gpt2",
        "pre": pre,
        "tokens": tokens,
        "token_type": [1] * 259 + [3],
        "merges": merges,
        "bos_token_id": 259,
        "eos_token_id": 259,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (stored | more).items()}
