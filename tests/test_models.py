"""A checkpoint is opened lazily, read as it is stored, and refused with one sentence where it is broken."""

import json
from pathlib import Path

import httpx2
import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from gguf_files import llama_tensors, write_llama
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors.numpy import load_file, save_file
from sources import gaussian

from rdlib.code.fixed import Fixed
from rdlib.measure import measure
from rdlib.models.checkpoint import Checkpoint, open_checkpoint
from rdlib.models.hub import EMBEDDED, find_model
from rdlib.models.names import GROUPS
from rdlib.quantizers import LloydMax, PerGroup, Uniform

pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).parents[1]
HIDDEN, INTERMEDIATE, KEYS, VOCABULARY = 16, 24, 8, 40
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
BLOCK = ("q", "k", "v", "o", "gate", "up", "down")


def llama(layers: int = 2, dtype: type = ml_dtypes.bfloat16, head: bool = False) -> dict[str, np.ndarray]:
    """The tensors of a small Llama, in no order."""
    tensors = {"model.norm.weight": np.ones(HIDDEN, dtype)}
    for layer in reversed(range(layers)):
        for seed, (name, shape) in enumerate(SHAPES.items()):
            tensors[f"model.layers.{layer}.{name}.weight"] = gaussian(shape, dtype, 100 * layer + seed)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{name}.weight"] = np.ones(HIDDEN, dtype)
    tensors["model.embed_tokens.weight"] = gaussian((VOCABULARY, HIDDEN), dtype, 77)
    if head:
        tensors["lm_head.weight"] = gaussian((VOCABULARY, HIDDEN), dtype, 78)
    return tensors


def save(folder: Path, tensors: dict[str, np.ndarray], tied: bool = True, shards: int = 1) -> Path:
    """Write a checkpoint as ``save_pretrained`` does."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "tie_word_embeddings": tied}))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[shard::shards]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def assert_says(error: pytest.ExceptionInfo, *words: str) -> None:
    """One sentence for a user: no traceback of another error behind it, no newline, and the words."""
    sentence = str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


# What is there


@pytest.mark.parametrize("shards", [1, 2, 5])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32], ids=lambda d: d.__name__)
def test_tensors_are_read_as_they_are_stored(tmp_path, shards, dtype):
    tensors = llama(dtype=dtype)
    checkpoint = open_checkpoint(save(tmp_path / "m", tensors, shards=shards))
    assert checkpoint.names == sorted(tensors)
    for name, tensor in tensors.items():
        read = checkpoint.tensor(name)
        assert read.dtype == tensor.dtype
        assert read.tobytes() == tensor.tobytes()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize(("tied", "head"), [(True, False), (True, True), (False, True)])
def test_a_model_has_its_groups_and_a_tied_head_once(tmp_path, shards, tied, head):
    """Tied is a head that is absent, whatever config.json says; one that differs from the embedding is listed."""
    checkpoint = open_checkpoint(save(tmp_path / "m", llama(head=head), tied, shards))
    ends = ["embed", "lm_head"] if head else ["embed"]
    assert [w.group for w in checkpoint.weights] == [*ends, *BLOCK, *BLOCK]
    assert [w.layer for w in checkpoint.weights] == [-1] * len(ends) + [0] * 7 + [1] * 7
    assert {w.group for w in checkpoint.weights} <= set(GROUPS)
    assert [w.label for w in checkpoint.weights][len(ends)] == "0.q"
    for weight in checkpoint.weights:
        assert checkpoint.tensor(weight).shape == weight.shape
        assert weight.dtype == "BF16"


def test_layers_are_sorted_as_numbers(tmp_path):
    checkpoint = open_checkpoint(save(tmp_path / "m", llama(layers=12)))
    assert [w.layer for w in checkpoint.weights if w.group == "q"] == list(range(12))


def test_a_layer_is_its_seven_matrices(tmp_path):
    checkpoint = open_checkpoint(save(tmp_path / "my-model", llama()))
    assert [w.group for w in checkpoint.layer(1)] == list(BLOCK)
    assert [w.shape for w in checkpoint.layer(1)] == list(SHAPES.values())
    for number in (2, -1, 99):
        with pytest.raises(ValueError) as error:
            checkpoint.layer(number)
        assert_says(error, "my-model has no layer", str(number), "0 … 1")


def test_the_table_lists_every_weight(tmp_path):
    checkpoint = open_checkpoint(save(tmp_path / "m", llama(head=True), tied=False))
    table = checkpoint.table
    assert list(table.columns) == ["layer", "group", "name", "rows", "columns", "weights", "dtype"]
    assert table.weights.sum() == sum(checkpoint.tensor(w).size for w in checkpoint.weights)
    assert (table["rows"] * table["columns"] == table["weights"]).all()


def test_the_hash_is_that_of_the_weights(tmp_path):
    one, same, other = (tmp_path / name for name in "abc")
    hashes = [open_checkpoint(save(one, llama())).sha256, open_checkpoint(save(same, llama())).sha256]
    changed = llama() | {"model.norm.weight": np.zeros(HIDDEN, ml_dtypes.bfloat16)}
    hashes.append(open_checkpoint(save(other, changed)).sha256)
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 64


def test_the_model_in_the_box_is_the_default():
    assert find_model("embedded") == EMBEDDED


def test_a_folder_may_be_named_in_any_way(tmp_path, monkeypatch):
    save(tmp_path / "here", llama())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("here", "./here", tmp_path / "here", "~/here", f"{tmp_path}/here/"):
        assert len(open_checkpoint(name).weights) == 15
    monkeypatch.chdir(tmp_path / "here")
    assert len(open_checkpoint(".").weights) == 15


MODELS = [
    p for p in (EMBEDDED, ROOT.parent / "shared" / "models" / "stories260K") if (p / "config.json").exists()
]


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_a_real_model_runs_through(folder):
    """Every group of a trained Llama is read as stored, and groups that do not divide a row are paid for."""
    checkpoint = open_checkpoint(folder)
    layers, stored = checkpoint.config["num_hidden_layers"], load_file(folder / "model.safetensors")
    tied = checkpoint.config["tie_word_embeddings"]
    assert [w.group for w in checkpoint.weights] == ["embed", *([] if tied else ["lm_head"]), *BLOCK * layers]
    for weight in checkpoint.layer(layers - 1):
        W = checkpoint.tensor(weight)
        assert W.tobytes() == stored[weight.name].tobytes()
        for size in (32, 128):
            code = Uniform(4, PerGroup(size=size)).encode(W)
            assert code.streams["scale"].bits == 16 * W.shape[0] * -(-W.shape[1] // size)
            assert isinstance(code.streams["index"].format, Fixed)
        assert measure(W, LloydMax(4)).mse <= measure(W, Uniform(4)).mse


# Laziness


def test_only_the_file_of_a_tensor_is_opened(tmp_path):
    """With the data of every other shard destroyed after opening, a tensor still comes."""
    folder = save(tmp_path / "m", llama(), shards=3)
    checkpoint = open_checkpoint(folder)
    name = "model.layers.1.mlp.up_proj.weight"
    kept = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name]
    for file in folder.glob("*.safetensors"):
        if file.name != kept:
            file.write_bytes(b"")
    assert checkpoint.tensor(name).shape == (INTERMEDIATE, HIDDEN)


def test_listing_weights_reads_none(tmp_path):
    """A NaN shows where it is read, not where the model is opened or listed."""
    tensors = llama()
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = np.nan
    checkpoint = open_checkpoint(save(tmp_path / "m", tensors))
    assert len(checkpoint.weights) == 15
    assert len(checkpoint.table) == 15
    checkpoint.tensor("model.layers.1.mlp.up_proj.weight")


# What is broken


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_tensor_that_is_not_finite_is_named_with_the_place(tmp_path, bad):
    tensors, name = llama(), "model.layers.0.mlp.up_proj.weight"
    tensors[name][3, 5] = bad
    with pytest.raises(ValueError) as error:
        open_checkpoint(save(tmp_path / "m", tensors)).tensor(name)
    assert_says(error, name, str(bad), "(3, 5)")


@pytest.mark.parametrize("name", ["", "no/such/folder", "/no/such", "nowhere", "../x", "a b/c", "~/nowhere"])
def test_no_folder_and_no_hub_id(name):
    with pytest.raises(ValueError) as error:
        open_checkpoint(name)
    assert_says(error, repr(name), "no folder", "owner/name")


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError) as error:
        open_checkpoint(tmp_path / "empty")
    assert_says(error, "empty holds no safetensors", "save_pretrained")


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="here holds no safetensors"):
        open_checkpoint(".")


def test_pickled_weights_are_refused_and_not_opened(tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    trap = b"cos\nsystem\n(S'touch " + str(tmp_path / "sprung").encode() + b"'\ntR."
    (folder / "pytorch_model.bin").write_bytes(trap)
    with pytest.raises(ValueError) as error:
        open_checkpoint(folder)
    assert_says(error, "old", "pickled", "pytorch_model.bin", "refused", "save_pretrained")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_named(tmp_path, shards, kept):
    folder = save(tmp_path / "m", llama(), shards=shards)
    file = sorted(folder.glob("*.safetensors"))[-1]
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError) as error:
        checkpoint = open_checkpoint(folder)
        for name in checkpoint.names:
            checkpoint.tensor(name)
    assert_says(error, file.name, "truncated")


def test_a_missing_shard_is_named(tmp_path):
    folder = save(tmp_path / "m", llama(), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ValueError) as error:
        open_checkpoint(folder)
    assert_says(error, "m lacks", "model-00002-of-00003.safetensors")


@pytest.mark.parametrize("file", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "a/../../x"])
def test_an_index_that_leaves_the_folder_is_refused(tmp_path, file):
    folder = save(tmp_path / "m", llama(), shards=2)
    save_file(llama(), tmp_path / "x.safetensors")
    index = {"weight_map": {"model.embed_tokens.weight": file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError) as error:
        open_checkpoint(folder)
    assert_says(error, repr(file), "outside")


@pytest.mark.parametrize(
    "index",
    ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": null}}'],
)
def test_an_index_that_is_none_is_named(tmp_path, index):
    folder = save(tmp_path / "m", llama(), shards=2)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ValueError) as error:
        open_checkpoint(folder)
    assert_says(error, "model.safetensors.index.json of m cannot be read")


@pytest.mark.parametrize("file", ["", ".", ".."])
def test_an_index_that_names_no_file_is_refused(tmp_path, file):
    folder = save(tmp_path / "m", llama(), shards=2)
    index = {"weight_map": {"model.embed_tokens.weight": file}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError):
        open_checkpoint(folder)


def test_an_index_that_lies_about_a_tensor_is_found_out(tmp_path):
    folder = save(tmp_path / "m", llama(), tied=False, shards=2)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["lm_head.weight"] = "model-00001-of-00002.safetensors"
    path.write_text(json.dumps(index))
    checkpoint = open_checkpoint(folder)
    for read in (lambda: checkpoint.weights, lambda: checkpoint.tensor("lm_head.weight")):
        with pytest.raises(ValueError) as error:
            read()
        assert_says(error, "model-00001-of-00002.safetensors", "lm_head.weight")


def test_a_folder_without_a_config_is_no_model(tmp_path):
    for head in (False, True):
        folder = save(tmp_path / f"m{head}", llama(head=head))
        (folder / "config.json").unlink()
        with pytest.raises(ValueError) as error:
            _ = open_checkpoint(folder).weights
        assert_says(error, folder.name, "has no config.json")


@pytest.mark.parametrize("config", ["", "{", "[1]", "3", "null"])
def test_a_config_that_is_none_is_named(tmp_path, config):
    folder = save(tmp_path / "m", llama())
    (folder / "config.json").write_text(config)
    with pytest.raises(ValueError) as error:
        _ = open_checkpoint(folder).weights
    assert_says(error, "config.json of m is not a JSON object")


def test_a_tensor_that_is_not_there_is_named(tmp_path):
    checkpoint = open_checkpoint(save(tmp_path / "m", llama()))
    with pytest.raises(ValueError, match="m has no tensor 'model.layers.9.mlp.up_proj.weight'"):
        checkpoint.tensor("model.layers.9.mlp.up_proj.weight")


@pytest.mark.parametrize(
    ("dtype", "called"),
    [(np.float64, "F64"), (np.int8, "I8"), (np.uint8, "U8"), (np.int64, "I64"), (bool, "BOOL")],
)
def test_a_type_that_holds_no_weights_is_named(tmp_path, dtype, called):
    tensors = llama() | {"model.embed_tokens.weight": np.ones((4, 4), dtype)}
    checkpoint = open_checkpoint(save(tmp_path / "m", tensors))
    assert len(checkpoint.weights) == 15
    with pytest.raises(ValueError) as error:
        checkpoint.tensor("model.embed_tokens.weight")
    assert_says(error, "model.embed_tokens.weight", called, "float16, bfloat16 and float32")


def test_eight_bit_floats_are_named_too(tmp_path):
    """NumPy has no such type: what safetensors raises there is no sentence for a user."""
    folder = save(tmp_path / "m", llama())
    header = {"model.embed_tokens.weight": {"dtype": "F8_E4M3", "shape": [2, 4], "data_offsets": [0, 8]}}
    head = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(8))
    with pytest.raises(ValueError) as error:
        open_checkpoint(folder).tensor("model.embed_tokens.weight")
    assert_says(error, "model.embed_tokens.weight", "F8_E4M3")


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    folder = save(tmp_path / "m", llama())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(ValueError) as error:
        Checkpoint(folder)
    assert_says(error, "model.safetensors")


# The hub


TOKEN = "hf_" + "a1B2c3D4" * 4


def response(status: int) -> httpx2.Response:
    """What the hub answered, with the token in the request as huggingface_hub sends it."""
    request = httpx2.Request(
        "GET", "https://huggingface.co/api/models/owner/name", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    return httpx2.Response(status, request=request)


def hub_raises(monkeypatch, error: Exception) -> None:
    def snapshot_download(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setenv("HF_TOKEN", TOKEN)


HUB = [
    (
        GatedRepoError(f"403 {TOKEN}", response=response(403)),
        ["gated", "licence", "hf auth login", "HF_TOKEN"],
    ),
    (RepositoryNotFoundError("401", response=response(401)), ["no hub model", "private", "hf auth login"]),
    (HfHubHTTPError(f"500 {TOKEN}", response=response(500)), ["could not be reached", "local folder"]),
    (LocalEntryNotFoundError("offline"), ["could not be reached", "local folder"]),
    (OfflineModeIsEnabled("offline"), ["could not be reached", "local folder"]),
    (httpx2.ProxyError("proxy"), ["could not be reached", "ProxyError"]),
    (httpx2.ReadTimeout("slow"), ["could not be reached", "ReadTimeout"]),
    (ConnectionResetError("reset"), ["could not be reached", "ConnectionResetError"]),
]


@pytest.mark.parametrize(
    ("error", "words"), HUB, ids=lambda x: type(x).__name__ if isinstance(x, Exception) else ""
)
def test_what_the_hub_refuses_becomes_what_to_do(monkeypatch, error, words):
    hub_raises(monkeypatch, error)
    with pytest.raises(ValueError) as raised:
        open_checkpoint("owner/name")
    assert_says(raised, "owner/name", *words)
    assert TOKEN not in str(raised.value)


def test_of_the_hub_only_weights_configuration_and_tokenizer_are_fetched(tmp_path, monkeypatch):
    asked = {}

    def snapshot_download(model, allow_patterns):
        asked.update(model=model, patterns=allow_patterns)
        return str(save(tmp_path / "snapshot", llama()))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert len(open_checkpoint("owner/name").weights) == 15
    assert asked["model"] == "owner/name"
    files = [
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "tokenizer.json",
    ]
    files += ["tokenizer_config.json", "generation_config.json"]
    refused = ["pytorch_model.bin", "consolidated.00.pth", "model.gguf", "modeling_x.py", "README.md"]
    chosen = huggingface_hub.utils.filter_repo_objects([*files, *refused], allow_patterns=asked["patterns"])
    assert list(chosen) == files


def test_a_folder_comes_before_the_hub(tmp_path, monkeypatch):
    hub_raises(monkeypatch, AssertionError("the hub was asked"))
    (tmp_path / "owner").mkdir()
    save(tmp_path / "owner" / "name", llama())
    monkeypatch.chdir(tmp_path)
    assert len(open_checkpoint("owner/name").weights) == 15


COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch) -> Path:
    """The snapshot of owner/name in a cache of the hub, without a connection."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = tmp_path / "cache" / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    (model / "snapshots" / COMMIT).mkdir(parents=True)
    return model / "snapshots" / COMMIT


@pytest.mark.parametrize("name", ["owner/name", "owner/name@main:Q8/a.gguf", "owner/name:Q8/a.gguf"])
def test_a_gguf_file_of_the_hub(cached, name):
    (cached / "Q8").mkdir()
    write_llama(cached / "Q8" / "a.gguf", llama_tensors())
    checkpoint = open_checkpoint(name)
    assert len(checkpoint.weights) == 15 and checkpoint.revision == COMMIT


@pytest.mark.parametrize("name", ["owner/name", "owner/name:a-00001-of-00003.gguf"])
def test_a_split_gguf_file_of_the_hub(cached, name):
    write_llama(cached / "a.gguf", llama_tensors(), split_max_tensors=8)
    assert len(open_checkpoint(name).weights) == 15


def test_of_several_gguf_files_one_has_to_be_named(cached, tmp_path):
    tensors = llama_tensors()
    for file in ("b.gguf", "a.gguf"):
        write_llama(cached / file, tensors)
    with pytest.raises(ValueError, match=r"as in owner/name:a\.gguf; it has a\.gguf, b\.gguf\.$"):
        open_checkpoint("owner/name")
    with pytest.raises(ValueError, match=rf"as in {COMMIT}/a\.gguf; it has a\.gguf, b\.gguf\.$"):
        open_checkpoint(cached)
    with pytest.raises(ValueError, match=r"no file 'c\.gguf'; its GGUF files: a\.gguf, b\.gguf\.$"):
        open_checkpoint("owner/name:c.gguf")
    (cached / "b.gguf").unlink()
    assert len(open_checkpoint(cached).weights) == 15, "the only one of a folder"
    save(cached, llama())
    assert open_checkpoint("owner/name").folder == cached, "safetensors come first"


def test_of_a_gguf_model_its_parts_alone_are_fetched(tmp_path, monkeypatch):
    """The hub lists its files, and everything but one is left there."""
    asked, parts = [], [f"a-0000{n}-of-00003.gguf" for n in (1, 2, 3)]

    def snapshot_download(model, allow_patterns):
        asked.append(allow_patterns)
        if allow_patterns == parts:
            write_llama(tmp_path / "a.gguf", llama_tensors(), split_max_tensors=8)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda model: [*parts, "README.md", "a.imatrix"])
    assert find_model("owner/name") == tmp_path / parts[0]
    assert asked[1:] == [parts]
