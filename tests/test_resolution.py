"""One resolution: which file holds which tensor, asked by checkpoint, network and census alike; or one sentence."""

import doctest
import importlib
import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from networks import one_torch_thread  # noqa: F401
from safetensors.numpy import save_file
from tiny_llama import BFLOAT16, DOWN1, Q0, config, gptq, gptq_settings, llama, refusal, write, write_index

from rdlib.allocation.export import export
from rdlib.allocation.plan import uniform_plan
from rdlib.census import stored_tensors
from rdlib.census.rows import tensor_rows
from rdlib.checkpoints import open_quantized
from rdlib.models import GROUPS, open_checkpoint
from rdlib.models.checkpoint import Checkpoint
from rdlib.network import load_network, load_tokenizer, read_tokens
from rdlib.quantizers import Uniform

EMBED, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
IDS = torch.arange(2, 22)[None]


def assert_one_answer(folder: Path, expected: dict[str, np.ndarray]) -> None:
    """Checkpoint, network and census hold exactly these tensors."""
    checkpoint = open_checkpoint(folder)
    network = dict(load_network(checkpoint, "cpu").named_parameters())
    census = {w.name: w.matrix() for w in stored_tensors(folder)}
    assert sorted(census) == checkpoint.names == sorted(expected)
    assert sorted(network) == sorted(name for name in expected if name != HEAD or not checkpoint.tied)
    for name, W in expected.items():
        assert np.array_equal(checkpoint.tensor(name), W)
        assert np.array_equal(census[name].reshape(W.shape), W)
        if name in network:
            assert np.array_equal(network[name].numpy(), W.astype(np.float32))


# Which file


@pytest.mark.parametrize(
    "file", ["model.safetensors", "llama-merged.safetensors", "model-00001-of-00001.safetensors"]
)
def test_a_file_may_have_any_name(tmp_path, file):
    assert_one_answer(write(tmp_path / "m", llama(), file=file), llama())


def test_files_without_an_index_are_one_checkpoint(tmp_path):
    names = sorted(tensors := llama())
    for k in range(3):
        write(tmp_path, {n: tensors[n] for n in names[k::3]}, file=f"part-{k}.safetensors")
    assert_one_answer(tmp_path, tensors)


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "llama.safetensors.index.json"])
def test_the_index_decides_and_nothing_else_is_read(tmp_path, index):
    """A shard holds a superseded copy and a tensor that no index names; another file is not named at all."""
    new, old = llama(0), llama(1)
    write(tmp_path, {k: v for k, v in new.items() if k != NORM}, file="a.safetensors")
    write(tmp_path, {Q0: old[Q0], NORM: new[NORM], "stray.weight": old[DOWN1]}, file="z.safetensors")
    write(tmp_path, old, file="older.safetensors")
    write_index(tmp_path, {k: f"{'z' if k == NORM else 'a'}.safetensors" for k in new}, index)
    assert_one_answer(tmp_path, new)


@pytest.mark.parametrize("name", [Q0.replace("weight", "bias"), Q0.replace("weight", "weight_scale")])
def test_an_index_that_names_half_of_a_module_is_refused(tmp_path, name):
    tensors = llama() | {name: np.ones(64, BFLOAT16)}
    write(tmp_path / "m", tensors, file="a.safetensors")
    write_index(tmp_path / "m", dict.fromkeys(llama(), "a.safetensors"))
    refusal(
        lambda: open_checkpoint(tmp_path / "m"), f"a.safetensors of m holds {name}", Q0, "add it to the index"
    )


def test_what_macos_leaves_beside_a_file_is_no_file(tmp_path):
    write(tmp_path / "m", llama())
    (tmp_path / "m" / "._model.safetensors").write_bytes(b"\0\5\x16\7" * 8)
    assert_one_answer(tmp_path / "m", llama())


@pytest.mark.parametrize("other", [{}, {"prefix": ""}, {"prefix": "model.language_model."}], ids=str)
def test_two_files_that_hold_a_name_are_both_named(tmp_path, other):
    write(tmp_path / "m", llama())
    write(tmp_path / "m", llama(1, **other), file="model_old.safetensors")
    refusal(
        lambda: open_checkpoint(tmp_path / "m"),
        "m holds",
        "model.safetensors",
        "model_old.safetensors",
        "index",
    )


def test_two_indices_are_both_named(tmp_path):
    write(tmp_path, llama(), file="a.safetensors")
    for name in ("one.safetensors.index.json", "two.safetensors.index.json"):
        write_index(tmp_path, dict.fromkeys(llama(), "a.safetensors"), name)
    refusal(lambda: open_checkpoint(tmp_path), "one.safetensors.index.json", "two.safetensors.index.json")


def test_a_name_that_one_file_holds_twice_is_refused(tmp_path):
    entry = '"a": {"dtype": "F32", "shape": [1], "data_offsets": [%d, %d]}'
    head = f"{{{entry % (0, 4)}, {entry % (4, 8)}}}".encode()
    (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    refusal(lambda: Checkpoint(tmp_path), "model.safetensors", "'a' twice")


def test_an_entry_of_the_index_without_a_tensor_stops_only_who_asks_for_it(tmp_path):
    """The census has a row that says so; the rest is analysed and run."""
    tensors = llama()
    write(tmp_path / "m", tensors, file="a.safetensors")
    write_index(tmp_path / "m", dict.fromkeys([*tensors, "mtp.fc.weight"], "a.safetensors"))
    checkpoint = open_checkpoint(tmp_path / "m")
    assert len(checkpoint.weights) == 16 and load_network(checkpoint, "cpu")
    words = ("a.safetensors of m lacks the tensor 'mtp.fc.weight' of its index",)
    refusal(lambda: checkpoint.tensor("mtp.fc.weight"), *words)
    rows = {w.name: tensor_rows(w, grouped=False) for w in stored_tensors(tmp_path / "m")}
    assert words[0] in rows.pop("mtp.fc.weight")[0]["error"]
    assert not any(row["error"] for name in (Q0, NORM) for row in rows[name])


def test_a_pointer_of_git_lfs_is_called_one(tmp_path):
    (tmp_path / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )
    refusal(lambda: Checkpoint(tmp_path), "model.safetensors", "git lfs pull")


@pytest.mark.parametrize("model", [2024, 1.5, None, ["a"]])
def test_what_is_no_name_is_refused(model):
    refusal(lambda: open_checkpoint(model), "owner/name", repr(model))


# Names


@pytest.mark.parametrize("prefix", ["", "model.language_model.", "language_model.model."])
def test_names_of_other_prefixes_are_those_of_a_llama(tmp_path, prefix):
    assert_one_answer(write(tmp_path, llama(prefix=prefix)), llama())


def fused() -> dict[str, np.ndarray]:
    """Names as Phi-3 has them."""
    tensors = llama()
    for layer in range(2):
        stem = f"model.layers.{layer}."
        q, k, v = (tensors.pop(f"{stem}self_attn.{n}_proj.weight") for n in "qkv")
        gate, up = (tensors.pop(f"{stem}mlp.{n}_proj.weight") for n in ("gate", "up"))
        tensors[f"{stem}self_attn.qkv_proj.weight"] = np.concatenate([q, k, v])
        tensors[f"{stem}mlp.gate_up_proj.weight"] = np.concatenate([gate, up])
    return tensors


def meta() -> dict[str, np.ndarray]:
    """Names as Meta has them."""
    return {
        n.removeprefix("model.").replace("self_attn.q_proj", "attention.wq").replace("self_attn", "attention")
        .replace("mlp", "feed_forward").replace("_proj", ""): W
        for n, W in llama().items()
    }  # fmt: skip


STRANGE = {
    "Phi-3": (fused(), ["qkv_proj", "gate_up_proj"]),
    "Meta": (meta(), ["layers.0.attention"]),
    "GPT-2": ({"h.0.attn.c_attn.weight": np.ones((8, 24), np.float32)}, ["h.0.attn.c_attn.weight"]),
    "no layers": ({EMBED: llama()[EMBED]}, [EMBED]),
    "adapter": (
        {f"base_model.model.{Q0[:-7]}.lora_A.weight": np.ones((2, 64), np.float32)},
        ["lora_A", "q_proj"],
    ),
}


@pytest.mark.parametrize("tensors", STRANGE.values(), ids=STRANGE)
def test_names_that_are_not_understood_are_shown(tmp_path, tensors):
    tensors, words = tensors
    checkpoint = open_checkpoint(write(tmp_path / "strange", tensors))
    for act in (
        lambda: checkpoint.layer(1),
        lambda: checkpoint.weights,
        lambda: uniform_plan(Uniform(3), checkpoint),
    ):
        assert "-1" not in refusal(act, "strange", *words)
    assert refusal(lambda: load_network(checkpoint, "cpu"), "strange")


@pytest.mark.parametrize("which", [lambda n: "_proj" in n, lambda n: "layers.1" in n and "_proj" in n])
def test_a_quantized_folder_opened_as_a_model_says_how_to_open_it(tmp_path, which):
    stored, _ = gptq(llama(), which=which)
    folder = write(tmp_path / "q", stored, config(quantization_config=gptq_settings()))
    checkpoint = open_checkpoint(folder)
    for act in (lambda: checkpoint.layer(1), lambda: checkpoint.weights, lambda: checkpoint.table):
        refusal(act, "q is quantized by gptq", "qweight", "open_quantized")
    refusal(lambda: load_network(checkpoint, "cpu"), "q is quantized")


# What is stored and what is used


def test_stored_biases_without_a_place_are_refused(tmp_path):
    tensors = llama(biases=("q", "k", "v", "o"))
    folder = write(tmp_path / "m", tensors)
    refusal(
        lambda: load_network(open_checkpoint(folder), "cpu"), "m stores 8 tensors", ".bias", "attention_bias"
    )
    assert_one_answer(write(tmp_path / "right", tensors, config(attention_bias=True)), tensors)


LEFT_OVER = {
    "biases of the MLP": llama(biases=("gate", "up", "down")),
    "more layers": llama(layers=3),
    "an adapter": llama() | {f"{Q0[:-7]}.lora_A.weight": np.ones((2, 64), np.float32)},
    "norms of q": llama() | {"model.layers.0.self_attn.q_norm.weight": np.ones(16, np.float32)},
    "a head's bias": llama() | {"lm_head.bias": np.ones(80, np.float32)},
}


@pytest.mark.parametrize("tensors", LEFT_OVER.values(), ids=LEFT_OVER)
def test_nothing_stored_is_dropped(tmp_path, tensors):
    checkpoint = open_checkpoint(write(tmp_path / "m", tensors))
    (first, *_) = [name for name in tensors if name not in llama()]
    sentence = refusal(lambda: load_network(checkpoint, "cpu"), "m stores", "config.json has no place for")
    assert any(name in sentence for name in tensors if name not in llama()), first


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 3}, {"attention_bias": True}, {"mlp_bias": True}], ids=str
)
def test_nothing_is_invented(tmp_path, change):
    checkpoint = open_checkpoint(write(tmp_path / "m", llama(), config(**change)))
    refusal(lambda: load_network(checkpoint, "cpu"), "m lacks", "config.json asks for")


@pytest.mark.parametrize(
    "change", [{"vocab_size": 81}, {"intermediate_size": 97}, {"num_key_value_heads": 4}], ids=str
)
def test_other_shapes_are_refused(tmp_path, change):
    checkpoint = open_checkpoint(write(tmp_path / "m", llama(), config(**change)))
    refusal(lambda: load_network(checkpoint, "cpu"), "m has in another shape", "model.", "config.json")


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16], ids=lambda d: np.dtype(d).name)
def test_frequencies_of_another_base_are_refused(tmp_path, dtype):
    """What config.json forgot to say, old files still hold."""
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    tensors = {theta: llama() | {name: (theta ** (-np.arange(8) / 8)).astype(dtype)} for theta in (1e4, 1e6)}
    load_network(open_checkpoint(write(tmp_path / "right", tensors[1e4])), "cpu")
    other = open_checkpoint(write(tmp_path / "m", tensors[1e6]))
    refusal(lambda: load_network(other, "cpu"), f"{name} of m", "config.json says 10000: correct it")


def test_frequencies_of_rotary_embeddings_are_harmless(tmp_path):
    tensors = llama()
    plain = load_network(open_checkpoint(write(tmp_path / "plain", tensors)), "cpu")
    tensors |= {f"model.layers.{k}.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32) for k in range(2)}
    network = load_network(open_checkpoint(write(tmp_path / "old", tensors)), "cpu")
    with torch.inference_mode():
        assert torch.equal(network(IDS).logits, plain(IDS).logits)


@pytest.mark.parametrize("kind", ["mistral", "qwen2", "qwen3", "smollm3"])
def test_decoders_of_the_llama_shape_run(tmp_path, kind):
    tensors, settings = llama(), config(model_type=kind, pad_token_id=None)
    if kind == "qwen2":
        tensors = llama(biases=("q", "k", "v"))
    if kind == "qwen3":
        settings["head_dim"] = 16
        for layer in range(2):
            for n in "qk":
                tensors[f"model.layers.{layer}.self_attn.{n}_norm.weight"] = np.full(16, 1.5, BFLOAT16)
    assert_one_answer(write(tmp_path, tensors, settings), tensors)


# Tied is what is tied


@pytest.mark.parametrize("declared", [True, False, None])
@pytest.mark.parametrize("head", ["own", "equal", "equal in float32", "absent"])
def test_the_tensors_say_whether_the_head_is_tied(tmp_path, declared, head):
    tensors, own = llama(), head == "own"
    if not own:
        del tensors[HEAD]
    if head.startswith("equal"):
        tensors[HEAD] = tensors[EMBED].astype(np.float32 if "float32" in head else BFLOAT16)
    checkpoint = open_checkpoint(write(tmp_path / "m", tensors, config(tie_word_embeddings=declared)))
    assert checkpoint.tied is not own
    assert [w.name for w in checkpoint.weights if w.layer < 0] == [EMBED, *([HEAD] if own else [])]
    if head == "absent" and declared is False:
        refusal(lambda: load_network(checkpoint, "cpu"), "m lacks", HEAD)
        return
    network = load_network(checkpoint, "cpu")
    assert np.array_equal(
        network.lm_head.weight.numpy(), tensors.get(HEAD, tensors[EMBED]).astype(np.float32)
    )
    export(checkpoint, uniform_plan(Uniform(3), checkpoint), tmp_path / "out")
    written = open_checkpoint(tmp_path / "out")
    assert written.tied is not own and load_network(written, "cpu")


@pytest.mark.parametrize(("head", "rest"), [("own", 2), ("equal", 1), ("absent", 1)])
def test_a_tied_head_costs_nothing_and_another_one_its_width(tmp_path, head, rest):
    tensors = llama()
    tensors[HEAD] = tensors[HEAD if head == "own" else EMBED]
    if head == "absent":
        del tensors[HEAD]
    stored, _ = gptq(tensors)
    settings = config(tie_word_embeddings=True, quantization_config=gptq_settings())
    rates = open_quantized(write(tmp_path, stored, settings)).rates
    linear = sum(W.size for name, W in tensors.items() if "_proj" in name)
    others = sum(W.size for name, W in tensors.items() if "norm" in name) + rest * tensors[EMBED].size
    assert rates.weights.tolist() == [linear, linear + others]
    by_hand = linear * (4 + 20 / 32) + 16 * others
    assert rates.loc["whole model"].rate == pytest.approx(by_hand / (linear + others))


# null


NULLS = [
    "quantization_config",
    "head_dim",
    "num_key_value_heads",
    "rope_scaling",
    "attention_bias",
    "mlp_bias",
]


@pytest.mark.parametrize("key", NULLS)
def test_null_in_config_is_absent(tmp_path, key):
    """As if the key were not there, at the top and inside of a setting."""
    absent = {k: v for k, v in config().items() if k != key}
    tensors = llama()
    if key == "num_key_value_heads":  # as many as heads
        for name in [n for n in tensors if n.endswith(("k_proj.weight", "v_proj.weight"))]:
            tensors[name] = tensors[name.replace("k_proj", "q_proj").replace("v_proj", "q_proj")]
    outputs = []
    for k, settings in enumerate((absent, absent | {key: None})):
        network = load_network(open_checkpoint(write(tmp_path / str(k), tensors, settings)), "cpu")
        with torch.inference_mode():
            outputs.append(network(IDS).logits)
    assert torch.equal(*outputs)


def test_no_sliding_window_is_a_value(tmp_path):
    """Mistral's configuration would put 4,096 in the place of a null."""
    checkpoint = open_checkpoint(write(tmp_path, llama(), config(model_type="mistral", sliding_window=None)))
    assert load_network(checkpoint, "cpu").config.sliding_window is None


@pytest.mark.parametrize("settings", [None, {}, {"quant_method": None}], ids=str)
def test_settings_of_nothing_are_none(tmp_path, settings):
    folder = write(tmp_path / "m", llama(), config(quantization_config=settings))
    checkpoint = open_checkpoint(folder)
    assert not checkpoint.settings and load_network(checkpoint, "cpu")
    export(checkpoint, uniform_plan(Uniform(3), checkpoint), tmp_path / "out")
    refusal(lambda: open_quantized(folder), "is not a quantized checkpoint")
    (folder / "quantize_config.json").write_text(json.dumps({"bits": 4, "group_size": 32}))
    stored, hats = gptq(llama())
    write(folder, stored, config(quantization_config=settings))
    quantized = open_quantized(folder)
    assert all(np.array_equal(quantized.tensor(name), hat) for name, hat in hats.items())


# The version


def test_the_snapshot_of_a_hub_model_names_its_revision(tmp_path):
    commit = "0123456789abcdef0123456789abcdef01234567"
    snapshot = tmp_path / "models--owner--name" / "snapshots" / commit
    assert open_checkpoint(write(snapshot, llama())).revision == commit
    assert open_checkpoint(write(tmp_path / "local", llama())).revision is None


def test_a_hub_id_may_name_a_revision(tmp_path, monkeypatch):
    asked = []

    def snapshot_download(model, allow_patterns, revision=None):
        asked.append((model, revision))
        return str(write(tmp_path / "m", llama()))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    for name in ("owner/name", "owner/name@main", "owner/name@refs/pr/3"):
        assert len(open_checkpoint(name).weights) == 16
    assert asked == [("owner/name", None), ("owner/name", "main"), ("owner/name", "refs/pr/3")]


# The tokenizer


def test_an_empty_tokenizer_is_refused(tmp_path):
    """transformers makes one of tokenizer_config.json alone."""
    folder = write(tmp_path / "m", llama())
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true}'
    )
    refusal(lambda: load_tokenizer(folder), "tokenizer of m has 3 entries", "the model 80", "tokenizer.json")


def test_a_text_that_a_tokenizer_does_not_know_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"<unk>": 0, "known": 1, "word": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    for text, known in (("known word known", True), ("known other text here", False), ("nothing", False)):
        (tmp_path / "text.txt").write_text(text)
        if known:
            assert read_tokens(tmp_path / "text.txt", tokenizer).tolist() == [1, 2, 1]
        else:
            refusal(lambda: read_tokens(tmp_path / "text.txt", tokenizer), "text.txt", "unknown")


def test_types_are_widened_exactly(tmp_path):
    """float64 is run, and refused by analysis; a model of mixed types is one model."""
    tensors = llama() | {Q0: llama()[Q0].astype(np.float64), DOWN1: llama()[DOWN1].astype(np.float16)}
    checkpoint = open_checkpoint(write(tmp_path, tensors))
    network = load_network(checkpoint, "cpu")
    for name in (Q0, DOWN1):
        assert np.array_equal(network.get_parameter(name).numpy(), tensors[name].astype(np.float32))
    refusal(lambda: checkpoint.tensor(Q0), Q0, "F64", "float32")
    assert {w.group for w in checkpoint.weights} == set(GROUPS)


def test_save_file_writes_what_is_read(tmp_path):
    """Every type that safetensors has for NumPy, as it is stored."""
    types = [
        "bool",
        *(f"{kind}{8 * n}" for kind in ("int", "uint") for n in (1, 2, 4, 8)),
        "float16",
        "float64",
    ]
    arrays = {name: np.arange(6).reshape(2, 3).astype(name) for name in types}
    arrays |= {"e4m3": np.ones((2, 3), ml_dtypes.float8_e4m3fn), "empty": np.zeros((0, 3), np.float32)}
    save_file(arrays, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    for name, array in arrays.items():
        assert checkpoint.stored(name).dtype == array.dtype
        assert np.array_equal(checkpoint.stored(name), array)


@pytest.mark.parametrize("module", ["checkpoint", "json_file", "names", "weight"])
def test_examples_in_docstrings_are_right(module):
    found = doctest.testmod(importlib.import_module(f"rdlib.models.{module}"))
    assert found.attempted and not found.failed
