"""The model in the box is what its card says, and the texts are what they should be."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rdlib.files import ASSETS, END
from rdlib.models.checkpoint import open_checkpoint
from rdlib.models.hub import EMBEDDED
from rdlib.tools.train import Recipe, held_out_loss, learning_rate

RECORD = json.loads((ASSETS / "training.json").read_text())


@pytest.fixture(scope="module")
def llama():
    return AutoModelForCausalLM.from_pretrained(EMBEDDED, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EMBEDDED)


def test_it_has_the_traits_of_llama_3_2_1b(llama):
    config = llama.config
    assert config.model_type == "llama"
    assert config.num_key_value_heads < config.num_attention_heads, "grouped-query attention"
    assert config.hidden_act == "silu" and config.tie_word_embeddings and config.num_hidden_layers >= 4
    assert 3e6 <= sum(p.numel() for p in llama.parameters()) <= 4.2e6


def test_its_matrices_are_bfloat16_and_divide_into_groups_of_128():
    table = open_checkpoint("embedded").table
    assert set(table.dtype) == {"BF16"} and (table["columns"] % 128 == 0).all()


def test_what_was_committed_stays_small():
    sizes = {file: file.stat().st_size for file in ASSETS.rglob("*") if file.is_file()}
    quantized = sum(size for file, size in sizes.items() if ASSETS / "checkpoints" in file.parents)
    assert quantized <= 15e6 and sum(sizes.values()) - quantized < 10e6


def test_it_predicts_stories_that_it_never_saw(llama, tokenizer):
    text = (ASSETS / "text" / "evaluation.txt").read_text()
    stories = [s.strip() for s in text.split(END)]
    tokens = np.concatenate([tokenizer(s)["input_ids"] for s in stories])
    nats = held_out_loss(llama, tokens, llama.config.max_position_embeddings, 128)
    assert nats * len(tokens) / math.log(2) / sum(map(len, stories)) < 1.6, (
        "bits a character, in another hand"
    )


def test_the_texts_are_long_enough_and_have_no_story_in_common(tokenizer):
    parts = {
        name: [s.strip() for s in (ASSETS / "text" / f"{name}.txt").read_text().split(END)]
        for name in ("calibration", "evaluation", "sample")
    }
    tokens = {name: sum(len(tokenizer(s)["input_ids"]) for s in texts) for name, texts in parts.items()}
    assert tokens["calibration"] + tokens["evaluation"] >= 8_000 and tokens["sample"] >= 32_000
    assert not set(parts["calibration"]) & set(parts["evaluation"])


def test_every_text_begins_with_the_end_mark_and_survives_the_tokenizer(tokenizer):
    ids = tokenizer("Once upon a time, there was a café.")["input_ids"]
    assert ids[0] == tokenizer.bos_token_id == 0
    assert tokenizer.decode(ids[1:]) == "Once upon a time, there was a café."


def test_the_card_quotes_the_record():
    card = (ASSETS / "MODEL_CARD.md").read_text()
    for value in RECORD["test"]["bits_per_character"].values():
        assert f"{value:.3f}" in card
    for value in RECORD["test"]["perplexity"].values():
        assert f"{value:.2f}" in card
    assert f"{RECORD['tokens_seen']:,}" in card and all(h in card for h in RECORD["data_sha256"].values())


def test_no_warm_up_begins_at_the_peak():
    rates = [learning_rate(step, 10, 10, Recipe(warmup=0)) for step in range(10)]
    assert rates[0] == 1 and rates == sorted(rates, reverse=True)
