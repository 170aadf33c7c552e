"""Quantized checkpoints are read as the packages that wrote them decode them, and refused where they are not whole."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bitsandbytes_package import quantize_by_package
from safetensors.numpy import load_file, save_file

from rdlib.checkpoints import (
    IN_THE_BOX,
    QuantizedCheckpoint,
    aligned,
    open_quantized,
    refuse_other_model,
)
from rdlib.code.code import Code
from rdlib.files import ASSETS
from rdlib.measure import distances
from rdlib.models.checkpoint import Checkpoint, open_checkpoint
from rdlib.tools.producers.record import fingerprint

REFERENCES = {"model": ASSETS / "model", "multi-head": ASSETS / "checkpoints" / "multi-head"}


def provenance(name: str) -> dict:
    return json.loads((IN_THE_BOX[name] / "provenance.json").read_text(encoding="utf-8"))


def reference(name: str) -> Checkpoint:
    return Checkpoint(REFERENCES[provenance(name)["model"]])


# The checkpoints in the box


def test_all_producers_are_there():
    versions = {package for name in IN_THE_BOX for package in provenance(name)["versions"]}
    assert {"auto-gptq", "autoawq", "gptqmodel", "bitsandbytes"} <= versions


@pytest.mark.parametrize("name", IN_THE_BOX)
def test_files_are_those_of_the_record(name):
    hashes = {
        f: hashlib.sha256((IN_THE_BOX[name] / f).read_bytes()).hexdigest() for f in provenance(name)["files"]
    }
    assert hashes == provenance(name)["files"]
    model = REFERENCES[provenance(name)["model"]] / "model.safetensors"
    assert hashlib.sha256(model.read_bytes()).hexdigest() == provenance(name)["model_sha256"]


@pytest.mark.parametrize("name", IN_THE_BOX)
def test_decoded_bit_for_bit_as_the_package_does(name):
    quantized, recorded = open_quantized(name), provenance(name)["dequantized"]
    assert sorted(quantized.layers) == sorted(recorded)
    for layer in quantized.layers:
        W = quantized.tensor(layer)
        assert W.dtype == np.float32 and fingerprint(W) == recorded[layer], layer


@pytest.mark.parametrize("name", IN_THE_BOX)
def test_a_layer_is_a_code(name):
    """It can be written to bytes and read back, and its length is the price in the table."""
    quantized = open_quantized(name)
    for layer in quantized.layers[:3]:
        packed = quantized.packed(layer)
        again = Code.from_bytes(packed.code.to_bytes())
        assert np.array_equal(packed.decoder.decode(again), packed.weight)
        assert sum(quantized.needed_bits(layer).values()) == packed.code.bits - packed.code.prices["header"]
        for stream in packed.code.streams:
            streams = {n: s for n, s in packed.code.streams.items() if n != stream}
            with pytest.raises(ValueError, match=stream):
                packed.decoder.decode(Code(packed.code.shape, streams))


@pytest.mark.parametrize("name", IN_THE_BOX)
def test_error_is_that_of_its_bits(name):
    """In the model's own coordinates Ŵ is W to the accuracy that the bits allow: 6 dB each, less at most 11.

    Floats of 8 bits are as accurate as 6 bits: their steps grow with the weights.
    """
    model, quantized = reference(name), open_quantized(name)
    for layer, packed in aligned(quantized, model).items():
        W = model.tensor(layer).astype(np.float64)
        if layer in quantized.left_alone:
            assert np.array_equal(packed.weight, W)
            continue
        nmse = ((W - packed.weight) ** 2).mean() / W.var()
        bits = 6 if getattr(packed.decoder, "element", "") == "e4m3" else packed.decoder.bits
        assert 4.0**-packed.rate < nmse < 12 * 4.0**-bits, layer


def test_rates_by_hand():
    """GPTQ and AWQ, 4 bits in groups of 128: a scale of 16 bits and a zero point of 4 for each."""
    for name in ("auto-gptq", "autoawq", "gptqmodel"):
        table = open_quantized(name).table
        assert table.rate.to_numpy() == pytest.approx(np.full(len(table), 4 + (16 + 4) / 128))
        assert (table.stored >= table.rate - 1e-9).all(), "a file is no shorter than what it has to tell"
    ordered = open_quantized("auto-gptq-act-order")
    row = ordered.table.set_index("name").loc["model.layers.0.mlp.down_proj.weight"]
    assert row.rate == pytest.approx(4 + 20 / 128 + np.log2(768 / 128) / 256, rel=1e-3), (
        "g_idx: log₂ 6 bits an input"
    )
    nf4 = open_quantized("multi-head-bitsandbytes-fp4").table
    assert nf4.rate.to_numpy() == pytest.approx(np.full(len(nf4), 4.5)), "float32 for 64 weights"


def test_whole_model_counts_what_was_left_alone():
    rates = open_quantized("gptqmodel").rates
    model = open_checkpoint("embedded")
    rest = sum(model.size(n) for n in model.names) - rates.weights["quantized layers"]
    expected = (rates.rate["quantized layers"] * rates.weights["quantized layers"] + 16 * rest) / (
        rates.weights["quantized layers"] + rest
    )
    assert rates.rate["whole model"] == pytest.approx(expected)


# Which model?


def test_another_model_is_refused():
    with pytest.raises(ValueError, match=r"gptqmodel was not made of multi-head: .*q_proj"):
        refuse_other_model(open_quantized("gptqmodel"), Checkpoint(REFERENCES["multi-head"]))


def test_the_same_shapes_are_not_the_same_model(tmp_path):
    other = tmp_path / "instruct"
    shutil.copytree(REFERENCES["model"], other)
    tensors = load_file(other / "model.safetensors")
    tensors["model.embed_tokens.weight"][5, 7] += 1
    save_file(tensors, other / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"was not made of instruct: model\.embed_tokens\.weight at \(5, 7\)"
    ):
        refuse_other_model(open_quantized("autoawq"), Checkpoint(other))


# AWQ's scales


def test_unfolding_tells_the_error_of_quantization_from_the_scales():
    for name in ("autoawq", "multi-head-autoawq"):
        layers, ratios = aligned(open_quantized(name), reference(name)), []
        for layer, packed in layers.items():
            W = reference(name).tensor(layer)
            undone, stored = (
                distances(W, d.decode(packed.code))["nmse"] for d in (packed.decoder, packed.decoder.inner)
            )
            assert undone < 0.03
            ratios += [] if np.allclose(packed.decoder.columns, 1) else [stored / undone]
        assert min(ratios) > 1 and np.median(ratios) > 1.5 and max(ratios) > 5


def test_a_layer_is_aligned_alone_as_among_all():
    """Nothing is remembered from the layers before it."""
    layers = aligned(open_quantized("multi-head-autoawq"), reference("multi-head-autoawq"))
    for name, packed in reversed(list(layers.items())):
        assert (layers[name].weight == packed.weight).all()


def test_o_proj_is_scaled_only_without_grouped_queries():
    for name, scaled in (("autoawq", False), ("multi-head-autoawq", True)):
        layers = aligned(open_quantized(name), reference(name))
        found = {(layers[layer].decoder.columns == 1).all() for layer in layers if "o_proj" in layer}
        assert found == {not scaled}


# Packed by hand, slowly


def packed_down(fields: np.ndarray, bits: int) -> np.ndarray:
    """GPTQ's packing of fields (in, out) down the rows: one number of 32 bits after the other, by Python integers."""
    words = np.zeros((len(fields) * bits // 32, fields.shape[1]), np.int64)
    for column in range(fields.shape[1]):
        number = sum(int(q) << (bits * i) for i, q in enumerate(fields[:, column]))
        for word in range(len(words)):
            words[word, column] = number >> (32 * word) & 0xFFFFFFFF
    return words.astype(np.uint32).view(np.int32)


def gptq_folder(folder: Path, bits: int, form: str, ordered: bool, seed: int = 0) -> tuple[np.ndarray, dict]:
    """One layer as GPTQ stores it, and its Ŵ."""
    rng = np.random.default_rng(seed)
    inputs, outputs, size = 96, 64, 32
    q, z = (
        rng.integers(0, 1 << bits, (inputs, outputs)),
        rng.integers(1, 1 << bits, (inputs // size, outputs)),
    )
    s = rng.uniform(0.01, 0.1, z.shape).astype(np.float16)
    g_idx = (rng.permutation(inputs) if ordered else np.arange(inputs)) // size
    W = (s[g_idx].astype(np.float32) * (q - z[g_idx])).astype(np.float16).T.astype(np.float32)
    tensors = {
        "qweight": packed_down(q, bits),
        "qzeros": np.ascontiguousarray(packed_down((z - (form == "gptq")).T, bits).T),
        "scales": s,
        "g_idx": g_idx.astype(np.int32),
    }
    config = {
        "quant_method": "gptq",
        "bits": bits,
        "group_size": size,
        "desc_act": ordered,
        "checkpoint_format": form,
    }
    folder.mkdir(exist_ok=True)
    write(folder, tensors, config)
    return W, tensors


def write(folder: Path, tensors: dict[str, np.ndarray], config: dict) -> None:
    stem = "model.layers.0.mlp.up_proj."
    save_file(
        {stem + name: np.ascontiguousarray(t) for name, t in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": config}))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("form", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_gptq_packed_by_hand(tmp_path, bits, form, ordered):
    W, _ = gptq_folder(tmp_path, bits, form, ordered)
    quantized = QuantizedCheckpoint(tmp_path)
    assert np.array_equal(quantized.tensor(quantized.layers[0]), W)


def test_awq_packed_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    inputs, outputs, size = 64, 32, 32
    q, z = rng.integers(0, 16, (inputs, outputs)), rng.integers(0, 16, (inputs // size, outputs))
    s = rng.uniform(0.01, 0.1, z.shape).astype(np.float16)

    def packed(fields: np.ndarray) -> np.ndarray:
        words = np.zeros((len(fields), fields.shape[1] // 8), np.uint32)
        for column in range(fields.shape[1]):
            place = [0, 2, 4, 6, 1, 3, 5, 7].index(column % 8)
            words[:, column // 8] |= fields[:, column].astype(np.uint32) << np.uint32(4 * place)
        return words.view(np.int32)

    config = {"quant_method": "awq", "bits": 4, "group_size": size, "version": "gemm", "zero_point": True}
    write(tmp_path, {"qweight": packed(q), "qzeros": packed(z), "scales": s}, config)
    quantized = QuantizedCheckpoint(tmp_path)
    groups = np.arange(inputs) // size
    W = (s[groups].astype(np.float32) * (q - z[groups])).astype(np.float16).T
    assert np.array_equal(quantized.tensor(quantized.layers[0]), W.astype(np.float32))


# Bad input: one sentence that names tensor and field

Change = Callable[[dict, dict], None]


def drop(name: str) -> Change:
    return lambda tensors, config: tensors.__delitem__(name)


def put(name: str, value: object) -> Change:
    return lambda tensors, config: tensors.__setitem__(name, value(tensors[name]))


def say(**settings: object) -> Change:
    return lambda tensors, config: config.update(settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("scales"), r"up_proj\.scales is missing"),
        (drop("qzeros"), r"up_proj\.qzeros is missing"),
        (put("scales", lambda s: s[:-1]), r"up_proj\.scales has the shape \(2, 64\)"),
        (put("qzeros", lambda z: z[:, :-1]), r"up_proj\.qzeros has the shape"),
        (put("qweight", lambda q: q.astype(np.int64)), r"up_proj\.qweight is int64"),
        (put("scales", lambda s: np.full_like(s, np.nan)), r"up_proj\.scales"),
        (put("g_idx", lambda g: g + 9), r"up_proj\.g_idx names the group"),
        (say(bits=5), r"bits = 5"),
        (say(bits=8), r"up_proj\."),
        (say(group_size=16), r"up_proj\.scales has the shape"),
        (say(quant_method="spqr"), r"quantized by 'spqr'"),
        (say(checkpoint_format="gptq_v9"), r"gptq_v9"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path, change, message):
    _, tensors = gptq_folder(tmp_path, 4, "gptq", ordered=True)
    config = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    change(tensors, config)
    write(tmp_path, tensors, config)
    with pytest.raises(ValueError, match=message):
        quantized = QuantizedCheckpoint(tmp_path)
        quantized.tensor(quantized.layers[0])


def test_two_files_that_disagree_are_refused(tmp_path):
    gptq_folder(tmp_path, 4, "gptq", ordered=False)
    (tmp_path / "quantize_config.json").write_text(json.dumps({"bits": 8}))
    with pytest.raises(ValueError, match=r"quantize_config\.json .* says bits = 8, but config\.json says 4"):
        QuantizedCheckpoint(tmp_path)


def test_a_bitsandbytes_state_of_an_unknown_kind_is_refused(tmp_path):
    shutil.copytree(IN_THE_BOX["multi-head-bitsandbytes-nf4"], tmp_path / "x")
    tensors = load_file(tmp_path / "x" / "model.safetensors")
    for name in [n for n in tensors if n.endswith("bitsandbytes__nf4")]:
        tensors[name.replace("__nf4", "__nf3")] = tensors.pop(name)
    save_file(tensors, tmp_path / "x" / "model.safetensors")
    quantized = QuantizedCheckpoint(tmp_path / "x")
    with pytest.raises(
        ValueError, match=r"\.weight has .*bitsandbytes__nf3, but bnb_4bit_quant_type = 'nf4'"
    ):
        quantized.tensor(quantized.layers[0])


def test_what_is_not_quantized_is_refused():
    with pytest.raises(ValueError, match="not a quantized checkpoint"):
        QuantizedCheckpoint(REFERENCES["model"])


@pytest.mark.parametrize(("kind", "double"), [("nf4", False), ("nf4", True), ("fp4", False), ("int8", False)])
def test_straight_through_the_package(kind, double):
    """A dense weight matrix by bitsandbytes itself: as close as its bits allow, at the price of its streams."""
    W = open_checkpoint("embedded").tensor("model.layers.1.mlp.up_proj.weight")
    packed = quantize_by_package(W, kind, double)
    wide = W.astype(np.float64)
    snr = wide.var() / ((wide - packed.weight) ** 2).mean()
    assert {"nf4": 80, "fp4": 40, "int8": 5000}[kind] < snr
    rows, columns = W.shape
    scales = {"nf4": 32 / 64, "fp4": 32 / 64, "int8": 32 / columns}[kind]
    expected = (8 if kind == "int8" else 4) + scales
    if double:
        expected = 4 + 8 / 64 + 32 / (64 * 256) + 32 / W.size
    rates = packed.code.rates
    assert sum(rates.values()) - rates["header"] == pytest.approx(expected)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="not 'nf3'"):
        quantize_by_package(np.ones((2, 64), np.float32), "nf3")
