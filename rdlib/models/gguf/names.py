"""Names of tensors as transformers has them, and the rows of q and k put back in their order.

Llama files hold the rows of q and k of every head in another order: rotary embedding turns pairs of neighbours in
llama.cpp, and row i with row i + d/2 in transformers.  Row 2i + j of a head of d rows is row i + j·d/2 of the model,
j in {0, 1}.  Whoever forgets it compares each row with another one: an error of .05 becomes one of .25.

References:
    ggml-org/llama.cpp, ``convert_hf_to_gguf.py`` (``LlamaModel.permute``) and
    ``gguf-py/gguf/tensor_mapping.py``.
"""

import re

import numpy as np

WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE = "rope_freqs.weight"  # what divides the frequencies of rotary embedding: of the configuration, not of the network
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")


def transformers_name(name: str) -> str | None:
    """The name of a GGUF tensor in transformers' Llama; None where it has none."""
    match = _BLOCK.fullmatch(name)
    if match and match[2] in PARTS:
        return f"model.layers.{int(match[1])}.{PARTS[match[2]]}.{match[3]}"
    return WHOLE.get(name)


def gguf_name(name: str) -> str:
    """The name in GGUF of a tensor of transformers' Llama; a name of GGUF stays.

    Raises:
        ValueError: it has none.
    """
    if name == ROPE:
        return name
    theirs = {ours: gguf for gguf, ours in PARTS.items()}
    block = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if block and block[2] in theirs:
        return f"blk.{block[1]}.{theirs[block[2]]}.{block[3]}"
    for gguf, ours in WHOLE.items():
        if ours == name:
            return gguf
    raise ValueError(f"{name} has no name in GGUF.")


def permuted_heads(name: str, config: dict) -> int | None:
    """How many heads a tensor has whose rows are in llama.cpp's order; None where its rows are in their own."""
    if config["model_type"] != "llama":
        return None
    return {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }.get(name.split(".")[-2])


def unpermuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q or k in the order of transformers.

    Raises:
        ValueError: they are not so many heads of an even number of rows.
    """
    if len(rows) % (2 * heads):
        raise ValueError(f"{len(rows)} rows are not {heads} heads of an even number of rows.")
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows.shape)


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """The rows of q or k in the order of llama.cpp: what :func:`unpermuted` undoes."""
    halves = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)
