"""A random bfloat16 checkpoint with the shapes of Llama-3.2-1B, written tensor by tensor.

    python tests/random_checkpoint.py FOLDER [layers] [vocabulary]

16 layers and 128,256 tokens are the model itself: 1.24 billion weights, 2.5 GB.
"""

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

PART = 1 << 22  # weights made at once, at most
HEAD = 64  # outputs of a head of attention


def shapes(
    vocabulary: int, layers: int, hidden: int, inner: int, key_value: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of a Llama with tied embeddings."""
    yield "model.embed_tokens.weight", (vocabulary, hidden)
    for i in range(layers):
        for name, rows in {"q": hidden, "k": key_value, "v": key_value, "o": hidden}.items():
            yield f"model.layers.{i}.self_attn.{name}_proj.weight", (rows, hidden)
        yield f"model.layers.{i}.mlp.gate_proj.weight", (inner, hidden)
        yield f"model.layers.{i}.mlp.up_proj.weight", (inner, hidden)
        yield f"model.layers.{i}.mlp.down_proj.weight", (hidden, inner)
        yield f"model.layers.{i}.input_layernorm.weight", (hidden,)
        yield f"model.layers.{i}.post_attention_layernorm.weight", (hidden,)
    yield "model.norm.weight", (hidden,)


def write_checkpoint(
    folder: Path,
    layers: int = 16,
    vocabulary: int = 128256,
    hidden: int = 2048,
    inner: int = 8192,
    key_value: int = 512,
) -> Path:
    """Student-t weights (ν = 5) of a different σ for each tensor; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_type": "llama",
        "tie_word_embeddings": True,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
    }
    config |= {"intermediate_size": inner, "num_hidden_layers": layers, "head_dim": HEAD}
    config |= {"num_attention_heads": hidden // HEAD, "num_key_value_heads": max(key_value // HEAD, 1)}
    (folder / "config.json").write_text(json.dumps(config))
    entries, end = {}, 0
    for name, shape in shapes(vocabulary, layers, hidden, inner, key_value):
        begin, end = end, end + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    random = np.random.default_rng(0)
    largest = max(int(np.prod(entry["shape"])) for entry in entries.values())
    pool = random.standard_t(5, min(largest, PART)).astype(np.float32)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for entry in entries.values():
            sigma, left = random.uniform(0.01, 0.04), int(np.prod(entry["shape"]))
            while left:
                part = np.roll(pool, random.integers(len(pool)))[:left] * np.float32(sigma)
                file.write(part.astype(ml_dtypes.bfloat16).tobytes())
                left -= len(part)
    return folder


if __name__ == "__main__":
    write_checkpoint(Path(sys.argv[1]), *map(int, sys.argv[2:]))
