"""GGUF: every type bit for bit, every field priced, a Llama under its own names, files that contradict themselves."""

import copy
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, quants
from gguf_files import (
    CONFIG,
    in_file,
    llama_tensors,
    permuted,
    random_blocks,
    tokenizer_metadata,
    write_llama,
)
from safetensors.numpy import save_file
from sources import gaussian
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from rdlib.allocation.export import export_model
from rdlib.census import stored_tensors
from rdlib.checkpoints import aligned, open_quantized
from rdlib.checkpoints.llama_cpp import LlamaCpp
from rdlib.checkpoints.lossless import entropies
from rdlib.checkpoints.readers.gguf import GGUFDecoder
from rdlib.code.code import Code, Stream
from rdlib.engine import Stored, Variant, walk
from rdlib.models.checkpoint import Checkpoint, open_checkpoint
from rdlib.models.gguf import GGUF, TYPES, GGUFContainer, named_type
from rdlib.models.gguf.configuration import NEUTRAL, configuration, llama3_factors
from rdlib.models.gguf.fields import joined, strided, words
from rdlib.models.gguf.names import transformers_name, unpermuted
from rdlib.network.network import load_network
from rdlib.network.texts import load_tokenizer
from rdlib.network.windows import cut_windows

KINDS = pytest.mark.parametrize("kind", TYPES.values(), ids=lambda kind: kind.method)


def theirs(kind) -> GGMLQuantizationType:
    return GGMLQuantizationType[kind.method]


# --- types ----------------------------------------------------------------------------------------------------


def test_all_types_of_weights_are_read():
    decoded = {t.name for t in quants._type_traits} | {"F32", "F16"}
    assert {kind.method for kind in TYPES.values()} == decoded


@KINDS
def test_number_and_size_are_those_of_the_package(kind):
    assert TYPES[theirs(kind).value] is kind is named_type(kind.method)
    assert (kind.size, kind.bytes) == GGML_QUANT_SIZES[theirs(kind)]


@KINDS
@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_decoded_as_the_package_decodes_them(kind, seed):
    rows = np.random.default_rng(seed).integers(0, 256, (64, 5 * kind.bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = quants.dequantize(rows, theirs(kind))
    decoded, reused = kind.weights(rows), np.full((64, 5 * kind.size), 7, np.float32)
    assert kind.weights(rows, reused) is reused
    for ours in (decoded, reused):
        nan = np.isnan(expected)
        assert np.array_equal(np.isnan(ours), nan)
        assert np.array_equal(ours[~nan].view(np.uint32), expected[~nan].view(np.uint32))


@KINDS
def test_every_bit_of_a_block_belongs_to_one_field(kind):
    seen = np.zeros(8 * kind.bytes, int)
    for field in kind.fields.values():
        for positions, width in field.parts:
            for bit in range(width):
                np.add.at(seen, positions + bit, 1)
    assert (seen == 1).all()


@KINDS
def test_code_decodes_to_the_same_at_the_price_of_the_file(kind):
    columns = max(kind.size, 64) * 2
    rows = random_blocks(theirs(kind), 6, columns)
    if rows.dtype != np.uint8:
        rows = rows.view(np.uint8)
    decoder = GGUFDecoder(kind)
    code = decoder.encoded(rows)
    streams = code.bits - code.prices["header"]
    assert 0 <= streams - 8 * rows.size < 8 * len(code.streams), "but for whole bytes"
    assert 8 * rows.size == decoder.bits * code.weights and code.shape == (6, columns)
    again = Code.from_bytes(code.to_bytes())
    assert np.array_equal(decoder.decode(again), kind.weights(rows))
    for name, rate in entropies(code).items():
        assert 0 <= rate <= code.rates[name] + 1e-9


@KINDS
def test_types_are_rebuilt_from_their_names(kind):
    """So they travel to other processes, which copying a value does like sending it."""
    assert copy.deepcopy(kind) is kind
    assert copy.deepcopy(GGUFDecoder(kind)) == GGUFDecoder(kind)


def test_rows_that_are_no_whole_blocks_are_refused():
    with pytest.raises(ValueError, match="Rows of 100 weights are no whole blocks of Q4_K, of 256"):
        named_type("Q4_K").row_bytes(100)


def test_codes_of_another_type_are_refused():
    rows = random_blocks(GGMLQuantizationType.Q4_0, 4, 64)
    code = GGUFDecoder(named_type("Q4_0")).encoded(rows)
    for kind in ("Q4_1", "Q8_0", "Q4_K"):
        with pytest.raises(ValueError, match="not those of GGUF"):
            GGUFDecoder(named_type(kind)).decode(code)
    wide = Code(code.shape, dict(code.streams) | {"index": Stream.fixed(code["index"], 17)})
    with pytest.raises(ValueError, match="'index' is in the format"):
        GGUFDecoder(named_type("Q4_0")).decode(wide)


def test_fields_that_cross_bytes():
    blocks = np.random.default_rng(0).integers(0, 256, (5, 16), dtype=np.uint8)
    whole = [int.from_bytes(block.tobytes(), "little") for block in blocks]
    for bits in (1, 3, 7, 9, 13, 16, 23, 32):
        count = 128 // bits
        expected = [[w >> bits * i & (1 << bits) - 1 for i in range(count)] for w in whole]
        assert np.array_equal(words(0, count, bits).read(blocks), expected)
    both = joined(words(0, 8, 4), strided(8, 8, 2, 2)).read(blocks)
    low, high = words(0, 8, 4).read(blocks), strided(8, 8, 2, 2).read(blocks)
    assert np.array_equal(both, low | high << 4)


def test_entropy_of_a_field_is_that_of_its_symbols():
    index = np.repeat(np.arange(4, dtype=np.uint8), 8).reshape(4, 8)
    code = Code((4, 8), {"index": Stream.fixed(index, 16), "scale": Stream.floats(np.ones((4, 1)))})
    assert entropies(code) == {"index": 2.0, "scale": 0.0}


# --- a Llama --------------------------------------------------------------------------------------------------


def test_tensors_have_their_names_and_the_order_of_their_rows(tmp_path):
    tensors = llama_tensors()
    checkpoint = open_checkpoint(write_llama(tmp_path / "a.gguf", tensors))
    assert checkpoint.names == sorted(tensors)
    for name, tensor in tensors.items():
        assert np.array_equal(checkpoint.tensor(name), tensor), name
    assert [w.label for w in checkpoint.layer(1)] == ["1.q", "1.k", "1.v", "1.o", "1.gate", "1.up", "1.down"]
    assert checkpoint.tied and "lm_head.weight" not in checkpoint


def test_mixed_types_are_decoded_as_the_package_decodes_them(tmp_path):
    tensors = llama_tensors(tied=False)
    kinds = [kind.method for kind in TYPES.values()]
    names = [name.removesuffix(".weight") for name, t in in_file(tensors).items() if t.ndim == 2]
    types = dict(zip(names, 2 * kinds, strict=False))
    path = write_llama(tmp_path / "a.gguf", tensors, types)
    checkpoint, quantized = open_checkpoint(path), open_quantized(path)
    stored = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    floats = ("F32", "F16", "BF16")
    for tensor in GGUF(path).tensors.values():
        name = transformers_name(tensor.name)
        expected = quants.dequantize(stored[tensor.name].data, stored[tensor.name].tensor_type)
        decoded = checkpoint.tensor(name)
        assert decoded.dtype == (np.float32 if tensor.type.method not in floats else tensor.type.dtype)
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        assert np.array_equal(
            permuted(decoded, heads) if heads else decoded, expected.reshape(tensor.shape)
        ), name
        assert (name in quantized.layers) == (tensor.type.method not in floats)
        if name in quantized.layers:
            assert np.array_equal(quantized.tensor(name), decoded), name
            code = quantized.packed(name).code
            assert sum(quantized.stored_bits(name).values()) == 8 * tensor.bytes
            assert 0 <= code.bits - code.prices["header"] - 8 * tensor.bytes < 8 * len(code.streams)
    total = sum(tensor.bytes for tensor in GGUF(path).tensors.values())
    whole = quantized.rates.loc["whole model"]
    assert whole.stored * whole.weights == pytest.approx(8 * total)


def test_unpermuting_undoes_the_converter():
    W = np.random.default_rng(0).standard_normal((24, 5))
    assert np.array_equal(unpermuted(permuted(W, 3), 3), W)
    with pytest.raises(ValueError, match="24 rows are not 5 heads"):
        unpermuted(W, 5)


def test_keys_that_change_nothing_are_no_obstacle(tmp_path):
    neutral = {f"llama.{key}": value for key, value in NEUTRAL.items()} | {"llama.attention.scale": 64**-0.5}
    path = write_llama(tmp_path / "a.gguf", llama_tensors(), metadata=neutral)
    assert open_checkpoint(path).config == configuration(GGUF(path))


def test_configuration(tmp_path):
    config = GGUFContainer(write_llama(tmp_path / "a.gguf", llama_tensors())).config
    assert config["model_type"] == "llama" and config["tie_word_embeddings"] is True
    assert (config["hidden_size"], config["intermediate_size"], config["vocab_size"]) == (256, 512, 260)
    assert (config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]) == (4, 2, 64)
    assert config["rms_norm_eps"] == 1e-5 and config["rope_theta"] == 10000.0
    untied = GGUFContainer(write_llama(tmp_path / "b.gguf", llama_tensors(tied=False))).config
    assert untied["tie_word_embeddings"] is False


def test_the_network_is_transformers_own(tmp_path):
    path = write_llama(tmp_path / "a.gguf", llama_tensors(tied=False), "Q8_0", tokenizer_metadata())
    ours = load_network(open_checkpoint(path), device="cpu")
    theirs = LlamaForCausalLM.from_pretrained(tmp_path, gguf_file="a.gguf", dtype=torch.float32).eval()
    tokens = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(ours(tokens).logits, theirs(tokens).logits)


def model_folder(folder: Path, tensors: dict[str, np.ndarray]) -> Checkpoint:
    """The same Llama as an ordinary folder."""
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    path = write_llama(folder.with_suffix(".gguf"), tensors)
    (folder / "config.json").write_text(json.dumps(GGUFContainer(path).config))
    return open_checkpoint(folder)


def test_a_file_is_aligned_with_the_model_it_was_made_of(tmp_path):
    tensors = llama_tensors()
    reference = model_folder(tmp_path / "model", tensors)
    quantized = open_quantized(write_llama(tmp_path / "a.gguf", tensors, "Q8_0"))
    assert quantized.method == "GGUF Q8_0" and quantized.layers[0] == "model.embed_tokens.weight"
    errors = {}
    for name, packed in aligned(quantized, reference).items():
        errors[name] = ((packed.weight - tensors[name]) ** 2).mean() / (tensors[name] ** 2).mean()
        assert packed.code.rate == pytest.approx(8.5, abs=0.005)
    assert errors.keys() == {name for name, tensor in tensors.items() if tensor.ndim == 2}
    assert max(errors.values()) < 1e-4


@pytest.mark.parametrize("order", ["its rows as they lie in the file", "its rows put in order twice"])
def test_rows_in_another_order_are_noticed(tmp_path, order):
    tensors = llama_tensors()
    reference = model_folder(tmp_path / "model", tensors)
    wrong = dict(tensors)
    for name, heads in (("q_proj", 4), ("k_proj", 2)):
        for key in (key for key in tensors if name in key):
            turn = unpermuted if "lie" in order else permuted
            wrong[key] = turn(tensors[key], heads)
    quantized = open_quantized(write_llama(tmp_path / "a.gguf", wrong, "Q8_0"))
    with pytest.raises(ValueError, match=f"q_proj.weight of a.gguf fits the reference with {order}"):
        dict(aligned(quantized, reference))


def test_a_file_as_a_quantized_model(tmp_path):
    """As notebook 05 reads it: the nominal rate is that of most weights."""
    tensors = llama_tensors()
    reference = model_folder(tmp_path / "model", tensors)
    types = dict.fromkeys((name.removesuffix(".weight") for name in in_file(tensors)), "Q4_0")
    types |= {"blk.0.ffn_down": "Q8_0", "blk.1.attn_v": "F16"}
    quantized = open_quantized(write_llama(tmp_path / "a.gguf", tensors, types))
    windows = cut_windows(np.arange(120) % 250, 20).take(5)
    layers = dict(aligned(quantized, reference))
    variant = Variant.by("a", layers, Stored("a", quantized.bits, layers))
    found = walk(reference, [variant], windows, windows, device="cpu")
    rows = found.of(variant)
    assert set(rows.index) == {w.name for w in reference.weights} and (rows.bits == 4.5).all()
    rates = {"model.layers.0.mlp.down_proj.weight": 8.5, "model.layers.1.self_attn.v_proj.weight": 16}
    linear = [w.name for w in reference.weights if w.layer >= 0]
    assert all(rows.rate[name] == pytest.approx(rates.get(name, 4.5)) for name in linear)
    assert rows.output[linear].notna().all() and found.outputs["a"].kl.mean > 0


def test_a_file_of_another_model_is_refused(tmp_path):
    reference = model_folder(tmp_path / "model", llama_tensors(seed=1))
    quantized = open_quantized(write_llama(tmp_path / "a.gguf", llama_tensors(), "Q8_0"))
    with pytest.raises(ValueError, match=r"a\.gguf was not made of model: .*norm.weight at"):
        dict(aligned(quantized, reference))


def test_a_file_of_floats_is_not_quantized(tmp_path):
    with pytest.raises(ValueError, match=r"a\.gguf holds floats alone: it is not quantized"):
        open_quantized(write_llama(tmp_path / "a.gguf", llama_tensors(), "F16"))


def test_export_makes_an_ordinary_folder(tmp_path):
    tensors = llama_tensors()
    path = write_llama(tmp_path / "a.gguf", tensors, "Q4_0", tokenizer_metadata(pre="smollm"))
    checkpoint = open_checkpoint(path)
    export_model(checkpoint, tmp_path / "model")
    exported = open_checkpoint(tmp_path / "model")
    assert exported.names == checkpoint.names and exported.tied
    assert all(np.array_equal(exported.tensor(name), checkpoint.tensor(name)) for name in exported.names)
    network, tokens = AutoModelForCausalLM.from_pretrained(tmp_path / "model"), torch.arange(40)[None]
    with torch.inference_mode():
        assert torch.equal(network(tokens).logits, load_network(checkpoint, "cpu")(tokens).logits)
    text = "the 12 thé<|end|>"
    assert load_tokenizer(tmp_path / "model")(text)["input_ids"] == load_tokenizer(path)(text)["input_ids"]
    with pytest.raises(ValueError, match="model exists already"):
        export_model(checkpoint, tmp_path / "model")


def test_census_of_a_file(tmp_path):
    path = write_llama(tmp_path / "a.gguf", llama_tensors(), "Q4_0")
    tensors = {w.name: w for w in stored_tensors(open_checkpoint(path))}
    checkpoint = open_checkpoint(path)
    assert tensors.keys() == set(checkpoint.names)
    for name, weight in copy.deepcopy(tensors).items():
        assert np.array_equal(weight.matrix().ravel(), checkpoint.tensor(name).ravel())


def test_folders_of_gguf_files_name_one(tmp_path):
    write_llama(tmp_path / "a.gguf", llama_tensors())
    with pytest.raises(ValueError, match=r"name one of them, such as a\.gguf"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"general.architecture": "gpt2"}, "architecture 'gpt2'; those that are read: llama"),
        ({"llama.attention.head_count": [4, 4]}, r"says llama.attention.head_count = \[4, 4\]"),
        ({"llama.embedding_length": 0}, "says llama.embedding_length = 0"),
        ({"llama.rope.dimension_count": 32}, "llama.rope.dimension_count = 32, but heads are of 64"),
        ({"llama.expert_count": 8}, "llama.expert_count = 8, which is not read"),
        ({"llama.attention.scale": 0.5}, "llama.attention.scale = 0.5, which is not read"),
        ({"llama.logit_scale": 0.5}, "llama.logit_scale = 0.5, which is not read"),
        ({"llama.rope.scale_linear": 4.0}, "llama.rope.scale_linear = 4.0, which is not read"),
        ({"llama.rope.scaling.type": "longrope"}, "scales rotary embedding by 'longrope'"),
    ],
)
def test_what_is_no_plain_llama_is_refused(tmp_path, metadata, sentence):
    fixed = {"llama.attention.key_length": 64}
    model = GGUFContainer(write_llama(tmp_path / "a.gguf", llama_tensors(), metadata=fixed))
    model.gguf.metadata.update(metadata)
    with pytest.raises(ValueError, match=sentence):
        _ = model.config


def test_tensors_that_no_llama_has_are_refused(tmp_path):
    path = write_llama(tmp_path / "a.gguf", llama_tensors())
    path.write_bytes(path.read_bytes().replace(b"blk.1.ffn_up.", b"blk.1.ffn_ux."))
    with pytest.raises(
        ValueError, match=r"1 tensors that are not understood, such as blk\.1\.ffn_ux\.weight"
    ):
        GGUFContainer(path)


def test_scaling_of_llama_3_is_recognised_from_its_factors(tmp_path):
    factors = llama3_factors(5e5, 64, 8.0, 1.0, 4.0, 8192)
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(
        rope_theta=5e5, head_dim=64, hidden_size=256, num_attention_heads=4, rope_scaling=scaling
    )
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 5e5 ** (-np.arange(0, 64, 2) / 64)
    assert np.allclose(plain / factors, frequencies.numpy(), rtol=1e-5)


# --- llama.cpp's quantizers: see also test_llama_cpp.py, where libgguf is installed --------------------------


def test_types_and_rates_that_there_are_not():
    with pytest.raises(ValueError, match="GGUF's type 'Q7_K' is not read"):
        LlamaCpp("Q7_K")
    with pytest.raises(ValueError, match="F16 is a float type"):
        LlamaCpp("F16")
    assert LlamaCpp("Q4_K").at(4.5) == LlamaCpp("Q4_K")
    with pytest.raises(ValueError, match=r"Q4_K has 4\.5 bits and no other rate"):
        LlamaCpp("Q4_K").at(4)


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "libgguf", None)
    with pytest.raises(ValueError, match=r"pip install 'rdlib\[gguf\]'"):
        LlamaCpp("Q4_K").encode(gaussian((2, 256)))


# --- the tokenizer --------------------------------------------------------------------------------------------


def tokens_of(tmp_path: Path, text: str, **more: object) -> list[str]:
    path = write_llama(tmp_path / "a.gguf", llama_tensors(), metadata=tokenizer_metadata(**more))
    tokenizer = load_tokenizer(path)
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    return tokenizer.convert_ids_to_tokens(ids)


def test_tokenizer_merges_bytes(tmp_path):
    assert tokens_of(tmp_path, "the 12") == ["the", "Ġ", "12"]
    assert tokens_of(tmp_path, "é") == ["Ã", "©"]


def test_digits_are_split_where_the_file_says_so(tmp_path):
    """Transformers 5.23 does not know this name, and merges digits without a word."""
    assert tokens_of(tmp_path, "the 12", pre="smollm") == ["the", "Ġ", "1", "2"]


def test_special_tokens_stay_whole_and_begin_a_text_where_the_file_says_so(tmp_path):
    assert tokens_of(tmp_path, "the", add_bos_token=True) == ["<|end|>", "the"]
    path = write_llama(tmp_path / "b.gguf", llama_tensors(), metadata=tokenizer_metadata())
    tokenizer = GGUFContainer(path).tokenizer
    assert tokenizer("the<|end|>")["input_ids"] == [257, 259]
    assert tokenizer.eos_token == "<|end|>" and len(tokenizer) == CONFIG["vocabulary"]


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({}, "no tokenizer that is read: its kind is None"),
        (tokenizer_metadata(pre="my-own"), "splits text as 'my-own' does"),
        (tokenizer_metadata(model="rwkv"), "its kind is 'rwkv'"),
        (tokenizer_metadata(bos_token_id=900), "cannot be rebuilt"),
        (tokenizer_metadata(merges=["t"]), "cannot be rebuilt"),
    ],
)
def test_tokenizers_that_are_not_understood_are_refused(tmp_path, metadata, sentence):
    model = GGUFContainer(write_llama(tmp_path / "a.gguf", llama_tensors(), metadata=metadata))
    with pytest.raises(ValueError, match=sentence):
        _ = model.tokenizer


# --- the container --------------------------------------------------------------------------------------------


def test_metadata_of_all_types(tmp_path):
    values = {"a": True, "b": 7, "c": 0.5, "d": "é", "e": [1, 2, 3], "f": ["x", ""], "g": [0.25]}
    gguf = GGUF(write_llama(tmp_path / "a.gguf", llama_tensors(), metadata=values))
    assert {key: gguf.metadata[key] for key in values} == values


def test_other_alignment(tmp_path):
    tensors = llama_tensors()
    path = write_llama(tmp_path / "a.gguf", tensors, metadata={"general.alignment": 256})
    checkpoint = open_checkpoint(path)
    assert all(w.offset % 256 == 0 for w in checkpoint.tensors.values())
    assert all(np.array_equal(checkpoint.tensor(name), tensors[name]) for name in checkpoint.names)


def test_split_files_are_one_model(tmp_path):
    tensors = llama_tensors()
    write_llama(tmp_path / "a.gguf", tensors, split_max_tensors=8)
    files = sorted(tmp_path.glob("*.gguf"))
    assert [file.name for file in files] == [f"a-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    for file in files:
        model = open_checkpoint(file)
        assert model.names == sorted(tensors) and model.config["hidden_size"] == 256
        assert all(np.array_equal(model.tensor(name), tensors[name]) for name in model.names)
    files[0].rename(tmp_path / "b.gguf")
    with pytest.raises(ValueError, match=r"b\.gguf is one of 3 files, but is not called"):
        GGUF(tmp_path / "b.gguf")
    with pytest.raises(ValueError, match=r"but a-00001-of-00003\.gguf is missing"):
        GGUF(files[1])
    files[0].write_bytes(files[1].read_bytes())
    with pytest.raises(ValueError, match="is part 1 of 3, where part 0 of 3 should be"):
        GGUF(files[2])


def test_files_cut_short_are_refused(tmp_path):
    path = write_llama(tmp_path / "a.gguf", llama_tensors(), "Q8_0", tokenizer_metadata())
    whole, short = path.read_bytes(), tmp_path / "b.gguf"
    lengths = [*range(0, 200), *np.linspace(200, len(whole) - 1, 100).astype(int)]
    for length in lengths:
        short.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"b\.gguf (is cut short|claims|cannot be read|is no GGUF file)"):
            GGUF(short)


def header(tensors: int, pairs: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs) + rest


def pair(key: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value


def tensor(name: bytes, shape: list[int], kind: int, offset: int) -> bytes:
    return struct.pack(f"<Q{len(name)}sI{len(shape)}QIQ", len(name), name, len(shape), *shape, kind, offset)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"PK\x03\x04" + bytes(60), "does not begin with 'GGUF'"),
        (header(0, 0, version=1), "version 1: 2 and 3 are read"),
        (header(0, 0, version=3 << 24), "its bytes are in the other order"),
        (header(1 << 60, 0, bytes(99)), "claims 1152921504606846976 tensors"),
        (header(0, 1 << 60, bytes(99)), "claims 1152921504606846976 keys"),
        (
            header(0, 1, pair(b"a", 9, struct.pack("<IQ", 4, 1 << 62)) + bytes(99)),
            "numbers, which do not fit",
        ),
        (
            header(0, 1, pair(b"a", 9, struct.pack("<IQ", 8, 1 << 62)) + bytes(99)),
            "entries, which do not fit",
        ),
        (header(0, 1, pair(b"a", 8, struct.pack("<Q", 1 << 63)) + bytes(99)), "bytes of a string"),
        (header(0, 1, pair(b"a", 8, struct.pack("<Q", 2) + b"\xff\xff")), "not UTF-8"),
        (header(0, 1, pair(b"a", 77, bytes(9))), "a value of the type 77"),
        (header(0, 1, pair(b"a", 9, struct.pack("<IQ", 9, 1) * 9)), "a value of the type 9"),
        (header(0, 2, 2 * pair(b"a", 4, bytes(4))), "the key 'a' twice"),
        (header(0, 1, pair(b"general.alignment", 4, struct.pack("<I", 7))), "general.alignment = 7"),
        (header(1, 0, tensor(b"w", [], 0, 0) + bytes(99)), "w of a.gguf has 0 dimensions"),
        (header(1, 0, tensor(b"w", [1 << 40, 1 << 40], 0, 0)), "has the shape"),
        (header(1, 0, tensor(b"w", [0, 3], 0, 0)), "has the shape"),
        (
            header(1, 0, tensor(b"w", [100], 12, 0) + bytes(999)),
            "w of a.gguf: Rows of 100 weights are no whole",
        ),
        (header(1, 0, tensor(b"w", [4], 0, 8) + bytes(999)), "begins at 8, no multiple of 32"),
        (header(2, 0, tensor(b"w", [4], 0, 0) * 2 + bytes(999)), "the tensor 'w' twice"),
        (
            header(2, 0, tensor(b"w", [64], 0, 0) + tensor(b"v", [4], 0, 32) + bytes(999)),
            "v of a.gguf begins within w",
        ),
        (header(1, 0, tensor(b"w", [1 << 30], 0, 0) + bytes(99)), "is cut short: w ends at byte"),
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path, data, sentence):
    path = tmp_path / "a.gguf"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=sentence):
        GGUF(path)


def test_tensors_of_types_that_are_not_read_are_named(tmp_path):
    path = tmp_path / "a.gguf"
    path.write_bytes(header(1, 0, tensor(b"w", [4], 26, 0) + bytes(999)))
    with pytest.raises(ValueError, match=r"w of a\.gguf: GGUF's type 26 is not read"):
        GGUF(path).rows("w")
    with pytest.raises(ValueError, match="has no tensor 'x'"):
        GGUF(path).rows("x")
