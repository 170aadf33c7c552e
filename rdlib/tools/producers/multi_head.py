"""Train the smallest Llama with multi-head attention: AWQ scales its o_proj, as it cannot under grouped queries.

    python -m rdlib.tools.producers.multi_head rdlib/assets/checkpoints/multi-head

It reads bytes, and has seen nothing but the calibration text: enough for weights and inputs with a shape.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rdlib.tools.producers.calibration import byte_windows

CONFIG = LlamaConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=1,
    num_attention_heads=4,
    max_position_embeddings=256,
    tie_word_embeddings=True,
    bos_token_id=0,
    eos_token_id=0,
)
STEPS, BATCH, RATE = 600, 8, 1e-2


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Token i is byte i (the alphabet of byte-level BPE lists the printable bytes first)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE({names[byte]: byte for byte in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def main(folder: Path) -> None:
    """Train and save, in bfloat16."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    llama = LlamaForCausalLM(CONFIG)
    optimizer = torch.optim.AdamW(llama.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    windows, draw = torch.from_numpy(byte_windows(128)), np.random.default_rng(0)
    for _ in range(STEPS):
        batch = windows[draw.integers(len(windows), size=BATCH)]
        optimizer.zero_grad()
        llama(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()
    llama.bfloat16().save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
