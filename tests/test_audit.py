"""The audit: bits add up to files, distances are those of the decoded weights, and what is wrong is a sentence."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from distributed import LocalCluster, default_client
from gguf_files import CONFIG, llama_tensors, tokenizer_metadata, write_llama
from interrupted import interrupt
from pages import loads
from safetensors.numpy import load_file, save_file
from sources import heavy, one_thread  # noqa: F401

from rdlib.__main__ import main
from rdlib.audit import audit
from rdlib.audit.fields import FIELDS
from rdlib.audit.judged import Judge
from rdlib.audit.kept import keep, kept_audit
from rdlib.audit.page import common
from rdlib.audit.rows import SCHEMA
from rdlib.audit.run import labelled
from rdlib.checkpoints import IN_THE_BOX, aligned, open_quantized
from rdlib.checkpoints.lossless import coded_bits
from rdlib.code.code import Code, Stream
from rdlib.engine.resume import Kept
from rdlib.files import ASSETS
from rdlib.histogram import Histogram
from rdlib.measure import distances
from rdlib.models.checkpoint import open_checkpoint
from rdlib.theory import blahut_arimoto, rate_lower_at

MULTI_HEAD = ASSETS / "checkpoints" / "multi-head"
OF_MULTI_HEAD = [name for name in IN_THE_BOX if name.startswith("multi-head")]
NARROW = CONFIG | {"embedding_length": 64, "feed_forward_length": 128}


def files_of(model: Path) -> list[Path]:
    return [model] if model.is_file() else list(model.glob("*.safetensors"))


def llama(folder: Path, config: Mapping[str, int] = CONFIG) -> tuple[Path, dict[str, np.ndarray]]:
    """A model as a GGUF file of floats, and its tensors."""
    tensors = llama_tensors(config=config)
    return write_llama(folder / "original.gguf", tensors, config=config), tensors


def table(file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of files, by their label; rows of tensors."""
    frame = pd.read_parquet(file)
    assert list(frame) == list(SCHEMA)
    return frame[(frame.name == "") & (frame.group == "all")].set_index("file"), frame[frame.name != ""]


@pytest.fixture(autouse=True)
def without_page(monkeypatch) -> None:
    """The figures of a page take longer than its rows: those of the module, which are older than this, have one."""
    monkeypatch.setattr("rdlib.audit.run.render", lambda *_: {})


@pytest.fixture(scope="module")
def in_the_box(tmp_path_factory) -> Path:
    """All of them, without a page of as many figures; :func:`of_three` has one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rdlib.audit.run.render", lambda *_: {})
        return audit(MULTI_HEAD, OF_MULTI_HEAD, tmp_path_factory.mktemp("audit"), jobs=1)


# Bits


def test_fields_add_up_to_the_files(in_the_box):
    files, tensors = table(in_the_box)
    assert list(files.index) == OF_MULTI_HEAD and files.error.isna().all()
    for name, row in files.iterrows():
        size = sum(file.stat().st_size for file in files_of(IN_THE_BOX[name]))
        own = tensors[tensors.file == name]
        assert row.bits == row[list(FIELDS)].sum() == 8 * size
        assert own.bits.sum() + row.metadata == 8 * size
    sums = tensors[list(FIELDS)].sum(axis=1)
    assert (sums == tensors.bits).all() and (tensors.needed <= tensors.bits).all()


def test_a_rate_is_that_of_the_checkpoint(in_the_box):
    _, tensors = table(in_the_box)
    for name in OF_MULTI_HEAD:
        expected = open_quantized(name).table.set_index("name")
        own = tensors[tensors.file == name].set_index("name").loc[expected.index]
        assert own.rate.to_numpy() == pytest.approx(expected.stored.to_numpy())
        assert (own.needed / own.weights).to_numpy() == pytest.approx(expected.rate.to_numpy())


def test_no_field_is_coded_in_more_than_it_has(in_the_box):
    for rows in table(in_the_box):
        assert all((rows[f"{field}_coded"].fillna(0) <= rows[field].fillna(0)).all() for field in FIELDS)


def test_blocks_of_a_gguf_file_are_shared_out(tmp_path):
    original, tensors = llama(tmp_path)
    file = write_llama(
        tmp_path / "q.gguf", tensors, {key: "Q4_K" for key in ("blk.0.ffn_down", "token_embd")}
    )
    files, rows = table(audit(original, [file], tmp_path / "out", jobs=1))
    row = rows.set_index("name").loc["model.layers.0.mlp.down_proj.weight"]
    blocks = row.weights / 256
    assert (row.codes, row.scales, row.minima) == (1024 * blocks, 64 * blocks, 64 * blocks)
    assert row.type == "Q4_K" and files.bits["q"] == 8 * file.stat().st_size


def test_what_a_coder_takes_counts_its_table():
    symbols = np.repeat([0, 1, 3], [800, 100, 100]).astype(np.uint8)
    code = Code(
        (10, 100), {"index": Stream.fixed(symbols, 4), "scale": Stream.floats(heavy((20,)), "float16")}
    )
    entropy = -(0.8 * np.log2(0.8) + 0.2 * np.log2(0.1)) * 1000
    assert coded_bits(code) == {"index": int(np.ceil(entropy)) + 3 * (2 + 8), "scale": 20 * 16}


# Distortion


def test_distances_are_those_of_the_decoded_weights(in_the_box):
    _, tensors = table(in_the_box)
    original = open_checkpoint(MULTI_HEAD)
    for name in OF_MULTI_HEAD:
        own = tensors[tensors.file == name].set_index("name")
        for layer, packed in aligned(open_quantized(name), original).items():
            found = distances(original.tensor(layer), packed.weight)
            assert (own.mse[layer], own.sqnr_db[layer]) == (found["mse"], found["sqnr_db"]), (name, layer)
            assert own.correlation[layer] > 0.6, (name, layer)  # of HQQ with 1 bit


def test_the_limit_is_conservative(in_the_box):
    """It is below what a test channel achieves, by no more than bounds are apart, and so is the gap above 0."""
    _, tensors = table(in_the_box)
    original = open_checkpoint(MULTI_HEAD)
    for name, rows in list(tensors.dropna(subset="gap").groupby("name"))[::5]:
        histogram = Histogram.of(original.tensor(name))
        curve = blahut_arimoto(histogram.values, histogram.counts, tolerance=0.005)
        upper = curve.rate_upper(rows.mse.to_numpy())
        assert (rows.limit <= upper).all() and (rows.limit > upper - 0.01).all(), name
        assert np.allclose(rows.gap, rows.rate - rows.limit)


def test_one_line_is_below_the_whole_curve():
    histogram = Histogram.of(heavy((16, 256), np.float16))
    curve = blahut_arimoto(histogram.values, histogram.counts, tolerance=0.01)
    for bits in (0, 0.05, 0.5, 2, 5, 7.5):
        D = histogram.variance * 4.0**-bits
        found = rate_lower_at(histogram.values, histogram.counts, D)
        assert curve.rate_upper(D) - 0.02 < found <= curve.rate_upper(D), bits


def test_no_error_takes_the_entropy():
    assert rate_lower_at(np.arange(4.0), np.ones(4), 0) == pytest.approx(2)
    assert rate_lower_at(np.arange(4.0), np.ones(4), 2) == 0


def test_a_model_that_lies_on_a_grid_is_named(tmp_path):
    tensors = llama_tensors(config=NARROW)
    first = write_llama(tmp_path / "first.gguf", tensors, "Q4_0", config=NARROW)
    file = write_llama(tmp_path / "q.gguf", tensors, "Q8_0", config=NARROW)
    files, _ = table(audit(first, [file], tmp_path / "out", jobs=1))
    assert "lies on a grid already" in files.note["q"]


# What is wrong


@pytest.fixture
def beside(in_the_box, tmp_path) -> Path:
    """A folder in which the parts of all that is in the box are kept already."""
    shutil.copytree(in_the_box.parent / "parts", tmp_path / "out" / "parts")
    return tmp_path / "out"


@pytest.fixture(scope="module")
def of_three(in_the_box, tmp_path_factory) -> Path:
    """An audit of three of them, with its page."""
    out = tmp_path_factory.mktemp("three")
    shutil.copytree(in_the_box.parent / "parts", out / "parts")
    return audit(MULTI_HEAD, OF_MULTI_HEAD[::8], out, jobs=1)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A page of an audit of a file whose name is a tag."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "<script>.gguf").write_bytes(b"")
    return audit(MULTI_HEAD, [folder / "<script>.gguf"], folder / "out", jobs=1).with_suffix(".html")


def test_another_model_is_named_by_a_tensor_and_the_rest_goes_on(beside):
    files, tensors = table(audit(MULTI_HEAD, ["autoawq", OF_MULTI_HEAD[0]], beside, jobs=1))
    assert (
        "autoawq was not made of multi-head: it has model.layers.0.self_attn.q_proj.weight"
        in files.error["autoawq"]
    )
    assert set(tensors.file) == {OF_MULTI_HEAD[0]} and files.gap[OF_MULTI_HEAD[0]] > 0


def test_rows_in_another_order_are_refused(tmp_path):
    original, tensors = llama(tmp_path, NARROW)
    name = "model.layers.1.self_attn.v_proj.weight"
    shuffled = tensors | {name: np.roll(tensors[name], 3, axis=0)}
    file = write_llama(tmp_path / "q.gguf", shuffled, "Q8_0", config=NARROW)
    files, rows = table(audit(original, [file], tmp_path / "out", jobs=1))
    error = rows.set_index("name").error.dropna()
    assert (
        list(error.index) == [name]
        and "nothing in common" in error.iloc[0]
        and files.error["q"] == error.iloc[0]
    )


def broken_scale(folder: Path, config: Mapping[str, int]) -> Path:
    """A GGUF file with a NaN for the scale of one block."""
    file = write_llama(folder / "broken.gguf", llama_tensors(config=config), "Q4_0", config=config)
    weight = open_checkpoint(file).tensors["model.layers.0.mlp.up_proj.weight"]
    data = bytearray(file.read_bytes())
    data[weight.offset : weight.offset + 2] = np.float16(np.nan).tobytes()
    file.write_bytes(data)
    return file


def test_a_tensor_that_is_broken_has_a_row_that_says_so(tmp_path):
    original, _ = llama(tmp_path, NARROW)
    file = broken_scale(tmp_path, NARROW)
    files, rows = table(audit(original, [file], tmp_path / "out", jobs=1))
    error = rows.set_index("name").error.dropna()
    assert list(error.index) == ["model.layers.0.mlp.up_proj.weight"] and "NaN" in error.iloc[0]
    assert rows.gap.notna().sum() > 10 and files.bits["broken"] == 8 * file.stat().st_size
    assert "1 of" in files.note["broken"] and pd.isna(files.error["broken"])


def truncated(folder: Path) -> Path:
    file = write_llama(folder / "short.gguf", llama_tensors(), "Q4_0")
    file.write_bytes(file.read_bytes()[:-1000])
    return file


def half_a_split(folder: Path) -> Path:
    write_llama(folder / "split.gguf", llama_tensors(), "Q4_0", split_max_tensors=5)
    parts = sorted(folder.glob("split-*.gguf"))
    parts[-1].unlink()
    return parts[0]


def changed(folder: Path, **settings: object) -> Path:
    copy = folder / "changed"
    shutil.copytree(IN_THE_BOX["multi-head-auto-gptq-2bit"], copy)
    for name in ("config.json", "quantize_config.json"):
        content = json.loads((copy / name).read_text())
        content.get("quantization_config", content).update(settings)
        (copy / name).write_text(json.dumps(content))
    return copy


def without_scales(folder: Path) -> Path:
    copy = changed(folder)
    file = next(copy.glob("*.safetensors"))
    tensors = load_file(file)
    del tensors[next(name for name in tensors if name.endswith("scales"))]
    save_file(tensors, file)
    return copy


WRONG = {
    "truncated": (truncated, "short.gguf"),
    "half a split": (half_a_split, "is missing beside it"),
    "other bits": (lambda folder: changed(folder, bits=4), "q_proj"),
    "unknown method": (lambda folder: changed(folder, quant_method="shrink"), "'shrink'"),
    "no scales": (without_scales, "scales"),
    "not there": (lambda folder: folder / "nothing", "There is no folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_read_has_a_sentence_and_the_rest_goes_on(tmp_path, beside, case):
    make, words = WRONG[case]
    files, rows = table(audit(MULTI_HEAD, [make(tmp_path), OF_MULTI_HEAD[0]], beside, jobs=1))
    errors = files.error.dropna().tolist() + rows.error.dropna().tolist()
    assert len(errors) >= 1 and words in errors[0] and files.gap[OF_MULTI_HEAD[0]] > 0


# Killed


def test_an_interrupted_audit_goes_on_and_ends_with_the_same_bytes(tmp_path, beside):
    names, out = OF_MULTI_HEAD[:1], tmp_path / "interrupted"
    whole = audit(MULTI_HEAD, names, beside, jobs=1).read_bytes()
    command = ["audit", MULTI_HEAD, *names, "--out", out, "--jobs", 1]
    times = interrupt("rdlib.audit.run", "tensor_row", *command, parts=out / "parts")
    assert audit(MULTI_HEAD, names, out, jobs=1).read_bytes() == whole
    assert all(part.stat().st_mtime_ns == t for part, t in times.items())


def test_labels_tell_files_apart():
    assert list(labelled(["a/x.gguf", "b/x.gguf", "c/y"])) == ["a/x", "b/x", "y"]
    assert list(labelled(["owner/name:x-Q4_K.gguf"])) == ["name:x-Q4_K"]
    beside = ["a/x", "a/x.gguf", "x"]
    assert list(labelled(beside).values()) == beside, "a folder beside a file of its name is not lost"


def test_what_the_settings_say_is_not_taken_from_parts_of_before(tmp_path):
    folder = shutil.copytree(IN_THE_BOX[OF_MULTI_HEAD[0]], tmp_path / "file")
    parts = audit(MULTI_HEAD, [folder], tmp_path / "out", jobs=1).parent / "parts"
    known = set(parts.iterdir())
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rope_theta": 5.0}))
    audit(MULTI_HEAD, [folder], tmp_path / "out", jobs=1)
    assert len(set(parts.iterdir()) - known) == len(known) > 0


def test_a_text_that_was_changed_is_run_again(tmp_path):
    text, files = tmp_path / "text.txt", (narrow(tmp_path), [narrow(tmp_path, "Q4_0")])
    found = []
    for words in "the cat sat on the mat. ", "a dog ran to the house. ":
        text.write_text(200 * words)
        found.append(
            table(audit(*files, tmp_path / "out", 1, Judge(128, str(text), "calibration")))[0].kl["Q4_0"]
        )
    assert found[0] > 0 and found[0] != found[1]


def test_a_cluster_gives_the_same_bytes(tmp_path):
    original, tensors = llama(tmp_path, NARROW)
    file = write_llama(tmp_path / "q.gguf", tensors, "Q4_0", config=NARROW)
    whole = audit(original, [file], tmp_path / "whole", jobs=1).read_bytes()
    local = {"host": "127.0.0.1", "protocol": "tcp://", "processes": False, "dashboard_address": None}
    with LocalCluster(1, threads_per_worker=1, **local) as cluster:
        out = ["--out", str(tmp_path / "out"), "--cluster", cluster.scheduler_address]
        main(["audit", str(original), str(file), *out])
        default_client().close()
    assert (tmp_path / "out" / "audit.parquet").read_bytes() == whole


# Run


JUDGE = Judge(
    640, "evaluation", "calibration"
)  # H of 20 tokens for each input: there is a limit of the model


def narrow(folder: Path, kind: str = "F32", **changed: np.ndarray) -> Path:
    """A model that can read, as a GGUF file; its head is tied where no ``lm_head`` is given."""
    tensors = llama_tensors(config=NARROW) | {f"{name}.weight": tensor for name, tensor in changed.items()}
    name = "original" if kind == "F32" else f"{kind}{' own head' if changed else ''}"
    return write_llama(folder / f"{name}.gguf", tensors, kind, tokenizer_metadata(), NARROW)


def own_head() -> np.ndarray:
    """The embedding and noise, 14 dB below it."""
    embedding = llama_tensors(config=NARROW)["model.embed_tokens.weight"]
    return embedding + np.float32(0.01) * np.random.default_rng(0).standard_normal(
        embedding.shape, np.float32
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Path:
    """A model, and files of it, judged: two, one with a head of its own, one that is broken."""
    folder = tmp_path_factory.mktemp("ran")
    original, files = narrow(folder), [narrow(folder, kind) for kind in ("Q8_0", "Q4_0")]
    files.append(narrow(folder, "Q8_0", lm_head=own_head()))
    (folder / "broken").mkdir()
    files.append(broken_scale(folder / "broken", NARROW))
    out = audit(original, files, folder / "out", 1, JUDGE)
    before = out.read_bytes()
    assert audit(original, files, folder / "out", 1, JUDGE).read_bytes() == before, "from the parts alone"
    return out


def test_a_file_is_judged_by_what_it_does_to_the_model(ran):
    files, tensors = table(ran)
    coarse, fine = files.loc["Q4_0"], files.loc["Q8_0"]
    assert coarse.kl > fine.kl > 0 and coarse.kl_floor == fine.kl_floor > 0
    assert coarse.held_out_limit < fine.held_out_limit and 0 < fine.output_gap < 8.5
    assert fine.kl_paired == 0 and coarse.kl_paired == pytest.approx(coarse.kl - fine.kl)
    assert coarse.kl_median < coarse.kl_p99 < coarse.kl_p999 and 0 <= coarse.agreement <= 1
    assert "H on calibration" in coarse.protocol and "20 for each of the 128 inputs" in coarse.protocol
    own = tensors[tensors.file == "Q4_0"].set_index("name")
    down = own.loc["model.layers.1.mlp.down_proj.weight"]
    assert down.output_db > 0 and down.held_out_db > 0 and down.output_gap == down.rate - down.held_out_limit
    groups = (
        pd.read_parquet(ran).query("name == '' and group != 'all' and file == 'Q4_0'").set_index("group").kl
    )
    assert own.kl.sum() == pytest.approx(groups.sum())
    assert set(groups.index) == {"q", "k", "v", "o", "gate", "up", "down", "embed"}


def test_the_limit_of_the_model_is_below_every_file(ran):
    """In bits of the matrices of the layers; the less KL, the more bits."""
    files, tensors = table(ran)
    whole = files.drop(index="broken")
    for name, row in whole.iterrows():
        own = tensors[(tensors.file == name) & (tensors.layer >= 0)]
        assert row.layers_rate == pytest.approx(own.bits.sum() / own.weights.sum())
        assert 0 < row.model_limit < row.layers_rate
        assert row.model_gap == pytest.approx(row.layers_rate - row.model_limit)
    assert (whole.sort_values("kl").model_limit.diff().dropna() < 0).all()
    assert np.isnan(files.model_limit["broken"])


def test_a_head_of_its_own_is_compared_with_the_embedding(ran):
    """The original ties them; the file does not."""
    files, tensors = table(ran)
    head = tensors[(tensors.file == "Q8_0 own head")].set_index("name").loc["lm_head.weight"]
    assert head.group == "lm_head" and head.sqnr_db < 15 and head.correlation > 0.9 and head.gap > 0
    assert files.kl["Q8_0 own head"] > 10 * files.kl["Q8_0"] and head.kl > 0 and head.output_db < 15


def test_a_head_of_floats_of_its_own_is_compared(tmp_path):
    tensors = llama_tensors(config=NARROW) | {"lm_head.weight": own_head()}
    file = write_llama(tmp_path / "q.gguf", tensors, {"blk.0.ffn_down": "Q8_0"}, config=NARROW)
    files, rows = table(audit(narrow(tmp_path), [file], tmp_path / "out", jobs=1))
    row = rows.set_index("name").loc["lm_head.weight"]
    assert files.error.isna().all() and row.type == "F32" and 5 < row.sqnr_db < 15


class Stopped(KeyboardInterrupt):
    """Someone stopped the run."""


def test_a_run_that_was_stopped_goes_on_at_its_layer(tmp_path, monkeypatch):
    original, file, judge = (
        narrow(tmp_path),
        narrow(tmp_path, "Q4_0"),
        Judge(128, "evaluation", "calibration"),
    )
    whole = audit(original, [file], tmp_path / "whole", 1, judge).read_bytes()
    save, load, passed = Kept.save, Kept.load, []

    def stop(*state: object) -> None:
        save(*state)
        raise Stopped

    monkeypatch.setattr(Kept, "save", stop)
    with pytest.raises(Stopped):
        audit(original, [file], tmp_path / "out", 1, judge)
    monkeypatch.setattr(Kept, "save", save)
    monkeypatch.setattr(Kept, "load", lambda *state: passed.append(load(*state)) or passed[-1])
    assert audit(original, [file], tmp_path / "out", 1, judge).read_bytes() == whole and passed == [1]
    assert not (tmp_path / "out" / "walk").exists()


def test_h_of_too_few_tokens_gives_no_limit(tmp_path):
    original, file = narrow(tmp_path), narrow(tmp_path, "Q4_0")
    judge = Judge(96, "evaluation", "calibration")
    files, rows = table(audit(original, [file], tmp_path / "out", 1, judge))
    down = rows[rows.group == "down"]  # of 128 inputs
    assert down.held_out_limit.isna().all() and down.output_limit.notna().all()
    assert "fewer than the 128 inputs" in files.protocol["Q4_0"] and files.output_gap.notna().all()


def test_a_file_that_cannot_be_read_whole_is_not_run(ran):
    files, _ = table(ran)
    assert (
        "It was not run" in files.note["broken"] and pd.isna(files.kl["broken"]) and files.gap["broken"] > 0
    )


def test_what_is_kept_is_the_rows_of_files_and_the_limit(ran, tmp_path, monkeypatch):
    keep(ran.parent, "narrow", tmp_path / "kept", tmp_path / "cards")
    card = (tmp_path / "cards/narrow.md").read_text()
    assert "](narrow.svg)" in card and card.endswith("Made by `make cards`.\n")
    assert (tmp_path / "cards/narrow.svg").read_bytes() == (ran.parent / "audit.svg").read_bytes()
    monkeypatch.setattr("rdlib.audit.kept.KEPT", tmp_path / "kept")
    files, limit = kept_audit("narrow")
    assert list(files.kl.dropna()) == list(table(ran)[0].kl.dropna())
    assert (limit.kl.diff().dropna() > 0).all() and (limit.rate.diff().dropna() <= 0).all()
    with pytest.raises(ValueError, match="No audit of other is kept: narrow"):
        kept_audit("other")


@pytest.mark.parametrize("which", [0, 1])
def test_page_and_card_say_the_same_and_load_nothing(of_three, ran, which):
    file = (of_three, ran)[which]
    page, card = (file.with_suffix(end).read_text() for end in (".html", ".md"))
    assert loads(page) == [] and "<svg" in page and "![" in card and "&#" not in card
    files, _ = table(file)
    soup = BeautifulSoup(page, features="html.parser")
    cells = {cell.get_text() for cell in soup.find_all("td")}
    for line in card.splitlines():
        if line.startswith("| ") and "---" not in line and not line.startswith(("| file", "| tensor")):
            assert {cell.strip() for cell in line.strip("|").split("|")} <= cells | {""}, line
    shared = common(list(files.index))
    labels = [label.removeprefix(shared) for label in files.index]
    assert all(text in card and text in page for text in [shared, *labels]) and labels[0] in cells
    assert file.with_suffix(".svg").read_text().startswith("<svg")


def test_names_cannot_break_the_page(hostile):
    page = hostile.read_text()
    assert "<script>.gguf" not in page and "&lt;script&gt;.gguf" in page
