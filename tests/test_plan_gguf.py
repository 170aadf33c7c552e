"""A plan for llama.cpp: the list of types, the file, and what it says of itself."""

import re

import numpy as np
import pytest
from gguf import GGUFReader
from gguf_files import llama_tensors, tokenizer_metadata, write_llama
from sources import one_thread  # noqa: F401

from rdlib.allocation import lagrangian, options
from rdlib.allocation.gguf import OUTER, outer_bytes, write_gguf
from rdlib.allocation.llama_cpp import plan, prices, tensor_types, tries
from rdlib.checkpoints.llama_cpp import LlamaCppImportance
from rdlib.engine import Given, Variant, second_moments, walk
from rdlib.engine.law import law
from rdlib.models import open_checkpoint
from rdlib.models.gguf.names import gguf_name, permuted, transformers_name, unpermuted
from rdlib.network import Windows

TYPES = ("Q2_K", "Q4_K", "Q4_0", "Q8_0")


def random_text(seed: int, windows: int = 12) -> Windows:
    return Windows(np.random.default_rng(seed).integers(0, 256, (windows, 33)), 32)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small Llama in a GGUF file of floats, as llama-quantize takes it."""
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    return open_checkpoint(write_llama(path, llama_tensors(tied=False), metadata=tokenizer_metadata()))


@pytest.fixture(scope="module")
def table(model):
    alpha, limit = law(model, random_text(0))
    assert limit is None, "too few tokens"
    return options(model, random_text(0), tries(model, TYPES), alpha)


def test_names_and_rows_go_there_and_back():
    for name in ("blk.7.attn_q.weight", "blk.0.ffn_norm.weight", "token_embd.weight", "output.weight"):
        assert gguf_name(transformers_name(name)) == name
    assert gguf_name("rope_freqs.weight") == "rope_freqs.weight"
    with pytest.raises(ValueError, match="lm_head.bias has no name in GGUF"):
        gguf_name("lm_head.bias")
    rows = np.arange(48).reshape(24, 2)
    assert np.array_equal(unpermuted(permuted(rows, 3), 3), rows)


def test_every_line_of_the_list_names_one_tensor(model):
    plan_of_all = {weight.name: "Q4_K" for weight in model.weights if weight.layer >= 0}
    lines = tensor_types(plan_of_all).splitlines()
    stored = [gguf_name(name) for name in model.tensors]
    for line, name in zip(lines, plan_of_all, strict=True):
        pattern, kind = line.split("=")
        assert kind == "q4_k"
        assert [t for t in stored if re.search(pattern, t)] == [gguf_name(name)]


def test_options_are_the_bits_of_the_type_and_fall_in_cost(model, table):
    assert set(table.option) == set(TYPES) and table.tensor.nunique() == 14
    for _, tensor in table.groupby("tensor"):
        two, four, plain, eight = tensor.set_index("option").loc[list(TYPES)].itertuples()
        assert two.cost > four.cost > eight.cost > 0
        assert four.bits == plain.bits == 4.5 * model.size(four.tensor)
    assert table.drop(columns="cost").equals(prices(model, tries(model, TYPES)))


def test_the_file_holds_each_matrix_by_its_type(model, table, tmp_path):
    """Bytes of llama.cpp's own code, rows of q and k in its order, metadata and tokenizer as they were."""
    known, text = random_text(0), random_text(1)
    weights = sum(w.size for w in model.weights if w.layer >= 0)
    chosen = lagrangian(table, 4.2 * weights)
    types = dict(zip(chosen.tensor, chosen.option, strict=True))
    assert len(set(types.values())) > 1
    importance = tmp_path / "imatrix.gguf"
    measured = write_gguf(model, types, tmp_path / "planned.gguf", known, text, importance=importance)["file"]
    written = open_checkpoint(tmp_path / "planned.gguf")
    assert written.config == model.config and set(written.tensors) == set(model.tensors)
    assert written.container.tokenizer.get_vocab() == model.container.tokenizer.get_vocab()
    moments = second_moments(model, known)
    for name, weight in written.tensors.items():
        if name in types:
            quantizer = LlamaCppImportance(types[name])
            expected = quantizer.decode(quantizer.encode(model.tensor(name), moments[name]))
            assert weight.dtype == types[name] and np.array_equal(written.tensor(name), expected)
        else:
            assert weight.dtype == (OUTER if len(weight.shape) == 2 else "F32")
    squares = {t.name: t.data for t in GGUFReader(importance).tensors}
    assert len(squares) == 2 * len(types)
    for name in types:
        mean = squares[f"{gguf_name(name)}.in_sum2"] / squares[f"{gguf_name(name)}.counts"]
        assert np.allclose(mean, moments[name].diagonal(), rtol=1e-6)
    read = GGUFReader(tmp_path / "planned.gguf")
    assert {t.name: t.tensor_type.name for t in read.tensors}[gguf_name(chosen.tensor.iloc[0])] == types[
        chosen.tensor.iloc[0]
    ]
    again = Variant("file", {n: Given(written.tensor(n)) for n in written.parameters})
    assert walk(model, [again], text).outputs["file"].kl.mean == pytest.approx(measured.kl.mean, rel=1e-6)
    size = (tmp_path / "planned.gguf").stat().st_size
    assert 0 <= outer_bytes(model) + chosen.bits.sum() / 8 - size < 2000


def test_a_plan_says_what_it_is(tmp_path):
    """Of a folder: sizes from config.json; the file is within its size, and its KL is near what was predicted."""
    model = open_checkpoint("embedded")
    said = plan(
        model, tmp_path, "calibration", "sample", 1024, gib=2.6 / 1024, types=("Q3_K", "Q4_K", "Q8_0")
    )
    written = open_checkpoint(tmp_path / "model.gguf")
    assert (tmp_path / "model.gguf").stat().st_size <= 2.6 * 2**20
    assert {n: w.shape for n, w in written.parameters.items()} == {
        n: w.shape for n, w in model.parameters.items()
    }
    measured, predicted = (float(re.search(p, said[1])[1]) for p in (r"KL: (\S+)", r"predicted (\S+)\."))
    assert 0.4 < measured / predicted < 2.5, "few tokens"
    assert re.match(r"Q4_K for all, 4.500 bits: KL \S+ ± \S+; the plan has \S+ ± \S+ less\.", said[2])
    assert "20 tokens for each input" in said[3]
    assert said[4].endswith("MODEL-F16.gguf OUT.gguf Q8_0") and "requantize" not in said[4]


def test_a_model_that_is_coded_already_is_said_to_be(tmp_path):
    """Its own type gives its weights back: KL 0, of which nobody should think that four bits cost nothing."""
    tensors = llama_tensors(tied=False)
    coded = write_llama(tmp_path / "coded.gguf", tensors, types="Q4_1", metadata=tokenizer_metadata())
    said = plan(open_checkpoint(coded), tmp_path, "sample", "sample", 64, bits=5.5, types=("Q4_1", "Q8_0"))
    assert any("stored as Q4_1: KL is from its weights as they are" in line for line in said)
    assert "llama-quantize --allow-requantize --imatrix" in said[-1]
    assert "nan" not in " ".join(said)


def test_what_is_not_written_is_refused_before_anything_is_run(tmp_path, monkeypatch):
    model = open_checkpoint("embedded")
    monkeypatch.setattr("rdlib.allocation.llama_cpp.law", lambda *_: pytest.fail("the model was run"))
    with pytest.raises(ValueError, match="cheapest options take"):
        plan(model, tmp_path, "sample", "sample", 64, bits=1.0)
    monkeypatch.setitem(model.config, "rope_scaling", {"rope_type": "llama3"})
    with pytest.raises(ValueError, match="convert_hf_to_gguf.py of llama.cpp: plan that file"):
        plan(model, tmp_path, "sample", "sample", 64, bits=5.0)
