"""A GGUF file of a model folder, quantized by llama.cpp's own code (libgguf) and written by its package (gguf).

    python -m rdlib.tools.producers.llama_cpp rdlib/assets/model small.gguf Q4_K

Every matrix gets the type, the embedding Q8_0, norms stay in float32.  It is for Llamas with a byte-level tokenizer
that splits text as GPT-2 does.
"""

import json
import re
import sys
from pathlib import Path

import libgguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from safetensors.torch import load_file

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
SPLIT = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}  # of GPT-2


def write(model: Path, file: Path, kind: str) -> None:
    """Write the file of a model whose matrices are of a type, such as Q4_K."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    writer = GGUFWriter(file, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    _add_tokenizer(writer, json.loads((model / "tokenizer.json").read_text(encoding="utf-8")))
    for name, tensor in load_file(model / "model.safetensors").items():
        layer, stem = re.fullmatch(r"(?:model\.layers\.(\d+)\.)?(.+)\.weight", name).groups()
        W, stem = tensor.float().numpy(), NAMES[stem]
        if stem in heads:  # rows i and i + d/2 of a head beside each other
            W = W.reshape(heads[stem], 2, -1, W.shape[1]).swapaxes(1, 2).reshape(W.shape)
        number = GGMLQuantizationType["F32" if W.ndim == 1 else "Q8_0" if layer is None else kind]
        rows = W if W.ndim == 1 else libgguf.quantize_rows(np.ascontiguousarray(W), number.value)
        writer.add_tensor(
            f"{stem}.weight" if layer is None else f"blk.{layer}.{stem}.weight", rows, raw_dtype=number
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: GGUFWriter, tokenizer: dict) -> None:
    split = tokenizer["pre_tokenizer"] or {}
    if tokenizer["model"]["type"] != "BPE" or any(split.get(key) != value for key, value in SPLIT.items()):
        raise ValueError(f"The tokenizer splits text by {split}, which is not as GPT-2 does.")
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    )
    writer.add_add_bos_token(bool(tokenizer["post_processor"]))
    for token in tokenizer["added_tokens"][:1]:
        writer.add_bos_token_id(token["id"])
        writer.add_eos_token_id(token["id"])


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
