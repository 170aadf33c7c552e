"""What a tensor is follows from its neighbours: codes are decoded with their scales, or refused, never measured."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
import torch
from networks import one_torch_thread, random_windows  # noqa: F401
from safetensors.numpy import load_file
from tiny_llama import (
    BFLOAT16,
    DOWN1,
    Q0,
    config,
    fp8,
    gptq,
    gptq_settings,
    is_linear,
    llama,
    refusal,
    spread,
    write,
    write_index,
)

from rdlib.allocation.export import export, export_model
from rdlib.allocation.plan import uniform_plan
from rdlib.census import census, stored_tensors
from rdlib.census.rows import tensor_rows
from rdlib.checkpoints import IN_THE_BOX, aligned, open_available, open_quantized
from rdlib.checkpoints.readers.awq import Awq
from rdlib.checkpoints.readers.gptq import Gptq
from rdlib.checkpoints.unquantized import left_alone
from rdlib.code.code import Code
from rdlib.engine import Stored, Variant, walk
from rdlib.measure import measure, measure_code
from rdlib.models import Kind, open_checkpoint
from rdlib.network import load_network
from rdlib.network.windows import cut_windows
from rdlib.quantizers import Uniform

E4M3, E5M2 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2


def as_float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


# FP8 with scales


def amax(W: np.ndarray, axis: int | None, top: float) -> np.ndarray:
    return np.abs(as_float32(W)).max(axis, keepdims=axis is not None) / np.float32(top)


def blocks(W: np.ndarray, block: tuple[int, int], top: float) -> np.ndarray:
    """A scale for each block of neighbours."""
    rows, columns = (range(0, n, b) for n, b in zip(W.shape, block, strict=True))
    return np.array([[amax(W[i : i + block[0], j : j + block[1]], None, top) for j in columns] for i in rows])


def encoded(
    W: np.ndarray, granularity: str, dtype: type, scale_dtype: type
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes, their scale as a file has it, and the weights that the two stand for."""
    top = float(ml_dtypes.finfo(dtype).max)
    match granularity:
        case "tensor" | "number":
            scale = full = (
                amax(W, None, top).reshape((1,) if granularity == "tensor" else ()).astype(scale_dtype)
            )
        case "row" | "vector of rows":
            full = amax(W, 1, top).astype(scale_dtype)
            scale = full[:, 0] if granularity == "vector of rows" else full
        case "column":
            scale = full = amax(W, 0, top).astype(scale_dtype)
        case "group of a row":
            scale = blocks(W, (1, 32), top).astype(scale_dtype)
            full = spread(scale, W.shape, (1, 32))
        case "block":
            scale = blocks(W, (128, 128), top).astype(scale_dtype)
            full = spread(scale, W.shape, (128, 128))
    codes = fp8(W, full, dtype)
    return codes, scale, as_float32(codes) * as_float32(full)


def matrix(shape: tuple[int, int] = (200, 160)) -> np.ndarray:
    """Rows and columns of very different power; blocks of 128 are cut short at both edges."""
    random = np.random.default_rng(0)
    rows, columns = (np.exp(0.7 * random.standard_normal(n)) for n in shape)
    return (0.02 * rows[:, None] * columns * random.standard_normal(shape)).astype(np.float32)


GRANULARITIES = ["number", "tensor", "row", "vector of rows", "column", "group of a row", "block"]


@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv", "scale_weight"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_fp8_is_decoded_with_its_scale(tmp_path, granularity, name):
    """By tensor() and census alike, for every type of code and scale; nothing is measured of the codes or the scale."""
    for dtype, scale_dtype in ((E4M3, np.float32), (E4M3, BFLOAT16), (E5M2, BFLOAT16)):
        codes, scale, right = encoded(matrix(), granularity, dtype, scale_dtype)
        tensors = {DOWN1: codes, DOWN1.replace("weight", name): scale}
        folder = write(tmp_path / f"{dtype.__name__}-{np.dtype(scale_dtype).name}", tensors)
        checkpoint = open_checkpoint(folder)
        assert np.array_equal(checkpoint.tensor(DOWN1), right)
        assert checkpoint.tensor(DOWN1).dtype == np.float32
        (tensor,) = stored_tensors(folder)
        assert np.array_equal(tensor.matrix(), right)
        assert [checkpoint.tensors[n].kind for n in tensors] == [Kind.WEIGHT, Kind.SCALE]
        assert name in tensor.note


@pytest.mark.parametrize("granularity", ["row", "block"])
def test_the_census_of_fp8_is_that_of_its_weights(tmp_path, granularity):
    codes, scale, right = encoded(matrix(), granularity, E4M3, BFLOAT16)
    rows = []
    for k, tensors in enumerate(({DOWN1: codes, f"{DOWN1}_scale": scale}, {DOWN1: right})):
        (tensor,) = stored_tensors(write(tmp_path / str(k), tensors))
        rows.append(tensor_rows(tensor))
    for one, other in zip(*rows, strict=True):
        assert one.pop("note") and not other.pop("note")
        assert (one.pop("dtype"), other.pop("dtype")) == ("F8_E4M3", "F32")
        assert one == other


def fp8_model(granularity: str = "row", name: str = "weight_scale") -> tuple[dict, dict]:
    """A whole Llama with linear layers in FP8; its tensors, and the weights that they stand for."""
    stored, right = {}, {}
    for key, W in llama().items():
        if is_linear(key):
            stored[key], scale, right[key] = encoded(W, granularity, E4M3, np.float32)
            stored[key.replace("weight", name)] = scale
            stored[key.replace("weight", "input_scale")] = np.ones(1, np.float32)
        else:
            stored[key] = right[key] = W
    return stored, right


FP8_SETTINGS = {
    "none": None,
    "fp8": {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"},
    "compressed-tensors": {"quant_method": "compressed-tensors", "format": "float-quantized"},
}


@pytest.mark.parametrize("settings", FP8_SETTINGS.values(), ids=FP8_SETTINGS)
@pytest.mark.parametrize("granularity", ["tensor", "row", "block"])
def test_fp8_runs_as_its_weights(tmp_path, granularity, settings):
    """Network, measure and export take the decoded weights."""
    stored, right = fp8_model(granularity)
    checkpoint = open_checkpoint(write(tmp_path / "fp8", stored, config(quantization_config=settings)))
    plain = open_checkpoint(write(tmp_path / "plain", right))
    networks = [load_network(c, "cpu") for c in (checkpoint, plain)]
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(*(network(ids).logits for network in networks))
    assert [w.name for w in checkpoint.weights] == [w.name for w in plain.weights]
    points = [measure(c.tensor(Q0), Uniform(4)) for c in (checkpoint, plain)]
    assert repr(points[0]) == repr(points[1])
    for c, name in ((checkpoint, "a"), (plain, "b")):
        export(c, uniform_plan(Uniform(3), c), tmp_path / name)
    one, other = (open_checkpoint(tmp_path / name) for name in "ab")
    assert one.sha256 == other.sha256 and "quantization_config" not in one.config


MISFITS = {
    "too many rows": ((201, 1), None, "does not fit"),
    "a vector of neither": ((7,), None, "does not fit"),
    "no equal blocks": ((199, 2), None, "does not fit"),
    "another block": ((2, 2), [64, 64], "64 × 64"),
    "three axes": ((1, 2, 2), None, "does not fit"),
}


@pytest.mark.parametrize("case", MISFITS.values(), ids=MISFITS)
def test_a_scale_that_does_not_fit_is_refused(tmp_path, case):
    shape, block, words = case
    settings = config(
        quantization_config={"quant_method": "fp8", "weight_block_size": block} if block else None
    )
    tensors = {DOWN1: np.ones((200, 160), E4M3), f"{DOWN1}_scale": np.ones(shape, np.float32)}
    folder = write(tmp_path, tensors, settings)
    refusal(lambda: open_checkpoint(folder).tensor(DOWN1), DOWN1, f"{DOWN1}_scale", words)
    (tensor,) = stored_tensors(folder)
    assert words in tensor_rows(tensor)[0]["error"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_scale_that_is_not_finite_is_refused(tmp_path, bad):
    tensors = {DOWN1: np.ones((8, 8), E4M3), f"{DOWN1}_scale": np.float32([bad])}
    refusal(lambda: open_checkpoint(write(tmp_path, tensors)).tensor(DOWN1), f"{DOWN1}_scale", "NaN or Inf")


def test_declared_blocks_are_believed_where_they_fit(tmp_path):
    """Two blocks of 96 rows, and not one of 128 and a short one, if the settings say 96."""
    W = matrix((192, 96))
    scale = blocks(W, (96, 96), 448.0)
    codes = fp8(W, spread(scale, W.shape, (96, 96)))
    right = as_float32(codes) * spread(scale, W.shape, (96, 96))
    settings = config(quantization_config={"quant_method": "fp8", "weight_block_size": [96, 96]})
    checkpoint = open_checkpoint(write(tmp_path, {DOWN1: codes, f"{DOWN1}_scale_inv": scale}, settings))
    assert np.array_equal(checkpoint.tensor(DOWN1), right)


def test_fp8_without_any_scale_is_measured_as_it_is_and_says_so(tmp_path):
    codes = matrix().astype(E4M3)
    folder = write(tmp_path, {DOWN1: codes})
    (tensor,) = stored_tensors(folder)
    rows = tensor_rows(tensor, grouped=False)
    assert rows[0]["sigma"] == pytest.approx(as_float32(codes).std(), rel=1e-6)
    assert "without a scale" in rows[0]["note"] and not rows[0]["error"]
    refusal(lambda: open_checkpoint(folder).tensor(DOWN1), DOWN1, "F8_E4M3", "without a scale")
    checkpoint = open_checkpoint(write(tmp_path / "m", llama() | {DOWN1: matrix((64, 96)).astype(E4M3)}))
    refusal(lambda: load_network(checkpoint, "cpu"), DOWN1, "F8_E4M3", "without a scale")
    refusal(lambda: export_model(checkpoint, tmp_path / "out"), DOWN1, "F8_E4M3", "without a scale")


def test_codes_whose_scale_is_lost_are_not_weights(tmp_path):
    """Without a word in the settings, and without a scale anywhere: their largest number says so."""
    stored, _ = fp8_model()
    plain = {name: W for name, W in stored.items() if "scale" not in name}
    folder = write(tmp_path / "m", plain)
    words = (Q0, "the largest number of F8_E4M3", "scale is missing")
    row = next(tensor_rows(w, grouped=False) for w in stored_tensors(folder) if w.name == Q0)
    assert len(row) == 1 and all(word in row[0]["error"] for word in words)


def test_a_scale_that_divides_is_not_multiplied_with(tmp_path):
    codes, scale, _ = encoded(matrix(), "row", E4M3, np.float32)
    folder = write(tmp_path, {DOWN1: codes, f"{DOWN1}_scale_inv": 1 / scale})
    refusal(
        lambda: open_checkpoint(folder).tensor(DOWN1), f"{DOWN1}_scale_inv", "not the scale that multiplies"
    )


# Codes that are not decoded here


def packed_bytes(shape: tuple[int, int], dtype: type) -> np.ndarray:
    """Two weights a byte, stored in a float type: bytes that happen to be finite."""
    size = np.prod(shape) // 2 // np.dtype(dtype).itemsize
    return np.random.default_rng(0).standard_normal(size).astype(dtype).reshape(-1, 1)


def ones(dtype: type, *shape: int) -> np.ndarray:
    return np.ones(shape, dtype)


HALF, WIDE, SCALE = ones(np.float16, 64, 1), ones(np.float32, 96), ones(BFLOAT16, 64, 3)
BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
STATE = "weight.quant_state.bitsandbytes__nf4"
BYTES = packed_bytes((64, 96), BFLOAT16)
CODES = {
    "NF4 in bfloat16": ({"weight": BYTES, "weight.absmax": WIDE}, BNB),
    "NF4 in float16": ({"weight": packed_bytes((64, 96), np.float16), "weight.absmax": WIDE}, BNB),
    "NF4 in float32": ({"weight": packed_bytes((64, 96), np.float32), "weight.absmax": WIDE}, BNB),
    "NF4, no settings": ({"weight": BYTES, "weight.quant_map": WIDE}, None),
    "NF4, nothing beside it": ({"weight": BYTES}, BNB),
    "NF4, no sign but its shape": ({"weight": BYTES}, None),
    "int8 of quanto": ({"weight._data": ones(np.int8, 64, 96), "weight._scale": HALF}, None),
    "FP8 of torchao": ({"_weight_qdata": ones(E4M3, 64, 96), "_weight_scale": HALF}, None),
    "NF4 in uint8": ({"weight": ones(np.uint8, 3072, 1), STATE: WIDE}, BNB),
    "int8": ({"weight": ones(np.int8, 64, 96), "SCB": WIDE[:64]}, None),
    "int8 of compressed-tensors": ({"weight": ones(np.int8, 64, 96), "weight_scale": HALF}, None),
    "codes widened to bfloat16": ({"weight": ones(BFLOAT16, 64, 96), "weight_scale": HALF}, None),
    "two scales": ({"weight": ones(E4M3, 64, 96), "weight_scale": HALF, "weight_scale_inv": HALF}, None),
    "an unknown scale": ({"weight": ones(E4M3, 64, 96), "weight_descale": HALF}, None),
    "FP8 and its largest number": ({"weight": ones(E4M3, 64, 96), "weight_amax": HALF}, None),
    "FP8 and something else": ({"weight": ones(E4M3, 64, 96), "s": HALF}, None),
    "FP8 and exponents as bytes": (
        {"weight": ones(E4M3, 64, 96), "weight_scale": ones(np.uint8, 64, 3)},
        {"quant_method": "compressed-tensors", "format": "mxfp8-quantized"},
    ),
    "FP8 and scales of blocks by another name": (
        {"weight": ones(E4M3, 64, 96), "weight_block_scale": HALF},
        None,
    ),
    "FP8 of a quantized model, no scale": ({"weight": ones(E4M3, 64, 96)}, {"quant_method": "fp8"}),
    "NVFP4": (
        {"weight": ones(np.uint8, 64, 48), "weight_scale": ones(E4M3, 64, 6), "weight_scale_2": WIDE[:1]},
        None,
    ),
    "MLX": ({"weight": ones(np.uint32, 64, 12), "scales": SCALE, "biases": SCALE}, None),
    "GPTQ": ({"qweight": ones(np.int32, 12, 64), "scales": ones(np.float16, 3, 64)}, None),
    "HQQ": ({"W_q": ones(np.uint8, 32, 96), "scale": HALF, "zero": HALF}, None),
    "EXL3": ({"trellis": ones(np.int16, 4, 6, 64), "suh": WIDE, "svh": WIDE[:64]}, None),
    "packed by compressed-tensors": ({"weight_packed": ones(np.int32, 64, 12), "weight_scale": SCALE}, None),
}


@pytest.mark.parametrize("case", CODES.values(), ids=CODES)
def test_a_code_is_never_measured_as_a_weight(tmp_path, case):
    """Whatever its type and size: the checkpoint refuses it, the census has one row that says why, and no other."""
    parts, settings = case
    stem = DOWN1.removesuffix("weight")
    others = {name: W for name, W in llama().items() if name != DOWN1}
    tensors = others | {stem + name: part for name, part in parts.items()}
    folder = write(tmp_path / "m", tensors, config(quantization_config=settings))
    checkpoint = open_checkpoint(folder)
    code = stem + next(iter(parts))
    assert checkpoint.tensors[code].kind is Kind.CODE
    refusal(lambda: checkpoint.tensor(code), code, "holds codes", "open_quantized")
    refusal(lambda: checkpoint.layer(1), "open_quantized")
    refusal(lambda: load_network(checkpoint, "cpu"), "m is quantized")
    rows = {w.name: tensor_rows(w, grouped=False) for w in stored_tensors(folder) if w.name.startswith(stem)}
    assert list(rows) == [code]
    assert "holds codes" in rows[code][0]["error"] and len(rows[code]) == 1


def test_one_fp8_tensor_without_a_scale_among_others_is_refused(tmp_path):
    stored, _ = fp8_model()
    del stored[f"{DOWN1}_scale"]
    checkpoint = open_checkpoint(write(tmp_path / "m", stored))
    refusal(lambda: checkpoint.tensor(DOWN1), DOWN1, "scale")
    refusal(lambda: load_network(checkpoint, "cpu"), "m is quantized")


def test_scales_of_inputs_change_nothing(tmp_path):
    tensors = llama() | {Q0.replace("weight", "input_scale"): np.float32([2])}
    tensors |= {"model.layers.0.self_attn.k_scale": np.float32([2])}
    checkpoint = open_checkpoint(write(tmp_path, tensors))
    assert np.array_equal(checkpoint.tensor(Q0), tensors[Q0])
    assert len(checkpoint.weights) == 16
    load_network(checkpoint, "cpu")


def test_norms_biases_and_buffers_are_called_so(tmp_path):
    tensors = llama(biases=("q",)) | {"model.rotary_emb.inv_freq": np.ones(8, np.float32)}
    kinds = {name: w.kind for name, w in open_checkpoint(write(tmp_path, tensors)).tensors.items()}
    assert kinds["model.norm.weight"] is kinds["model.layers.0.input_layernorm.weight"] is Kind.NORM
    assert kinds["model.layers.0.self_attn.q_proj.bias"] is Kind.BIAS
    assert kinds["model.rotary_emb.inv_freq"] is Kind.BUFFER
    assert {kinds[n] for n in (Q0, DOWN1, "lm_head.weight", "model.embed_tokens.weight")} == {Kind.WEIGHT}


def test_a_census_of_fp8_goes_to_its_end(tmp_path):
    stored, right = fp8_model()
    small = {name: stored[name] for name in stored if "layers.0.mlp.up" in name}
    file = census(write(tmp_path / "m", small), tmp_path / "out", grouped=False, jobs=1)
    (sigma,) = pd.read_parquet(file).sigma.unique()
    assert sigma == pytest.approx(right["model.layers.0.mlp.up_proj.weight"].std(), rel=1e-6)


# Settings against tensors


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("label", [None, "gptq", "gptq_v2"])
@pytest.mark.parametrize("version", [1, 2])
def test_zero_points_of_the_other_version_are_refused(tmp_path, bits, symmetric, label, version):
    """A right label is read bit for bit; a wrong one is refused, by a symmetric grid or by the reference."""
    tensors = llama()
    reference = open_checkpoint(write(tmp_path / "reference", tensors))
    stored, hats = gptq(tensors, symmetric, version, bits=bits)
    settings = gptq_settings(bits=bits, sym=symmetric, checkpoint_format=label)
    quantized = open_quantized(write(tmp_path / "q", stored, config(quantization_config=settings)))
    if (label == "gptq_v2") is (version == 2):
        found = {name: packed.weight for name, packed in aligned(quantized, reference).items()}
        assert all(np.array_equal(found[name], hat) for name, hat in hats.items())
        return
    refusal(lambda: dict(aligned(quantized, reference)), "q_proj", "gptq" if version == 1 else "gptq_v2")
    if symmetric:
        refusal(lambda: quantized.tensor(Q0), "qzeros", "sym = true", f"{1 << bits - 1}")


def spoiled(change) -> tuple[dict, dict]:
    """A GPTQ model and its settings, with something changed."""
    stored, _ = gptq(llama())
    settings = gptq_settings()
    change(stored, settings)
    return stored, settings


def shuffle(stored: dict, settings: dict) -> None:
    for name in [n for n in stored if n.endswith("g_idx")]:
        stored[name] = np.random.default_rng(0).permutation(stored[name])


CONTRADICTIONS = {
    "groups that are no neighbours": (shuffle, ["g_idx", "desc_act = false"]),
    "more bits": (lambda t, s: s.update(bits=8), ["qweight"]),
    "smaller groups": (lambda t, s: s.update(group_size=16), ["scales"]),
    "no groups": (lambda t, s: s.update(group_size=-1), ["scales"]),
    "another package": (lambda t, s: s.update(quant_method="awq", checkpoint_format=None), ["q_proj"]),
    "a format of another package": (lambda t, s: s.update(quant_method="awq"), ["format = 'gptq'"]),
    "a layer that dynamic excludes": (
        lambda t, s: s.update(dynamic={"-:model\\.layers\\.0\\..*": {}}),
        ["dynamic"],
    ),
    "a layer twice": (lambda t, s: t.update({Q0: llama()[Q0]}), [Q0, "twice"]),
}


@pytest.mark.parametrize("case", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_settings_that_contradict_the_tensors_are_refused(tmp_path, case):
    change, words = case
    stored, settings = spoiled(change)
    folder = write(tmp_path, stored, config(quantization_config=settings))
    refusal(lambda: [open_quantized(folder).tensor(Q0)], *words)


AWQ_MISTAKES = {  # of who packed the words, and what is said
    "less one": (lambda fields, key: fields - 1 if key == "qzeros" else fields, "its zero points one higher"),
    "in their own order": (
        lambda fields, key: fields[..., [0, 4, 1, 5, 2, 6, 3, 7]],
        "in the order of the fields",
    ),
}


@pytest.mark.parametrize("mistake", AWQ_MISTAKES.values(), ids=AWQ_MISTAKES)
def test_awq_that_was_packed_in_another_way_is_refused(tmp_path, mistake):
    change, words = mistake
    stored, shifts = load_file(IN_THE_BOX["autoawq"] / "model.safetensors"), np.arange(0, 32, 4, np.uint32)
    for name in (n for n in stored if n.endswith(("qweight", "qzeros"))):
        fields = change(stored[name].view(np.uint32)[..., None] >> shifts & 15, name.rpartition(".")[2]) & 15
        stored[name] = (fields << shifts).sum(-1, dtype=np.uint32).view(np.int32)
    settings = json.loads((IN_THE_BOX["autoawq"] / "config.json").read_text())
    quantized = open_quantized(write(tmp_path / "m", stored, settings))
    refusal(lambda: dict(aligned(quantized, open_checkpoint("embedded"))), "q_proj.weight of m", words)


INCOMPLETE = {
    "a matrix": (lambda names: [n for n in names if DOWN1.removesuffix("weight") in n], "lacks " + DOWN1),
    "biases": (lambda names: [n for n in names if n.endswith(".bias")], "lacks"),
}


@pytest.mark.parametrize("case", INCOMPLETE.values(), ids=INCOMPLETE)
def test_a_quantized_model_that_is_not_whole_is_refused(tmp_path, case):
    which, words = case
    tensors = llama(biases=("q",))
    reference = open_checkpoint(write(tmp_path / "reference", tensors, config(attention_bias=True)))
    stored, _ = gptq(tensors)
    for name in which(list(stored)):
        del stored[name]
    settings = config(quantization_config=gptq_settings(), attention_bias=True)
    quantized = open_quantized(write(tmp_path / "q", stored, settings))
    refusal(lambda: dict(aligned(quantized, reference)), "q was not made of reference", words)


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_biases_that_the_reference_has_not(tmp_path, bias):
    """Zeros are what packages write where there is none; others are of another model."""
    stored, _ = gptq(llama())
    for name in [n for n in stored if n.endswith("q_proj.qweight")]:
        stored[name.replace("qweight", "bias")] = np.full(stored[name].shape[1], bias, np.float16)
    reference = open_checkpoint(write(tmp_path / "reference", llama()))
    quantized = open_quantized(write(tmp_path / "q", stored, config(quantization_config=gptq_settings())))
    if bias:
        refusal(lambda: dict(aligned(quantized, reference)), "q_proj.bias", "the other has none")
    else:
        assert len(dict(aligned(quantized, reference))) == 14


def test_settings_may_be_those_of_the_decoder_in_a_larger_model(tmp_path):
    stored, hats = gptq(llama())
    settings = {"model_type": "llava", "text_config": config(quantization_config=gptq_settings())}
    assert np.array_equal(open_quantized(write(tmp_path, stored, settings)).tensor(Q0), hats[Q0])


@pytest.mark.parametrize("file", ["quantize_config.json", "quant_config.json", "quantization_config.json"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_settings_may_lie_beside_config(tmp_path, file, encoding):
    stored, hats = gptq(llama())
    folder = write(tmp_path, stored)
    (folder / file).write_text(json.dumps(gptq_settings()), encoding=encoding)
    assert np.array_equal(open_quantized(folder).tensor(Q0), hats[Q0])


@pytest.mark.parametrize(
    "change", [{"bits": 8}, {"sym": False}, {"group_size": 64}, {"desc_act": True}], ids=str
)
def test_two_files_of_settings_that_disagree_are_refused(tmp_path, change):
    stored, _ = gptq(llama())
    folder = write(tmp_path, stored, config(quantization_config=gptq_settings()))
    (folder / "quantize_config.json").write_text(json.dumps(gptq_settings(**change)))
    refusal(lambda: open_quantized(folder), "quantize_config.json", "config.json says", next(iter(change)))


# Partly quantized


SOME = {
    "without layer 0": lambda n: is_linear(n) and "layers.0." not in n,
    "the MLP alone": lambda n: "mlp" in n,
    "one matrix": lambda n: n == DOWN1,
    "all but one": lambda n: is_linear(n) and n != DOWN1,
}


@pytest.mark.parametrize("rule", [None, "dynamic"])
@pytest.mark.parametrize("which", SOME.values(), ids=SOME)
def test_layers_that_were_left_alone_are_there_at_their_own_width(tmp_path, which, rule):
    """Read as notebooks 04 and 05 read them: every layer by its name, with its price."""
    tensors = {name: W.astype(np.float16) for name, W in llama().items()}
    reference = open_checkpoint(write(tmp_path / "reference", tensors))
    stored, hats = gptq(tensors, which=which)
    excluded = {f"-:{n.removesuffix('.weight')}$": {} for n in tensors if is_linear(n) and not which(n)}
    settings = gptq_settings(dynamic=excluded if rule else None)
    folder = write(tmp_path / "q", stored, config(quantization_config=settings))
    found, reasons = open_available([folder, "no/such", tmp_path / "reference"], reference)
    assert list(reasons) == ["no/such", str(tmp_path / "reference")], reasons
    (quantized,) = found.values()
    packed, linear = dict(aligned(quantized, reference)), [w for w in reference.weights if w.layer >= 0]
    assert list(packed) == [w.name for w in linear]
    for w in linear:
        layer = packed[w.name]
        assert np.array_equal(layer.weight, hats.get(w.name, as_float32(tensors[w.name])))
        streams = sum(stream.bits for stream in layer.code.streams.values())
        assert streams == w.size * (4 + 20 / 32 if w.name in hats else 16)
        point = measure_code(reference.tensor(w), layer.decoder, layer.code)
        assert (point.mse == 0) is (w.name not in hats) and point.bits == 4
    windows = cut_windows(np.random.default_rng(0).integers(2, 80, 200), 24).take(3)
    variant = Variant.by("file", packed, Stored("file", quantized.bits, packed))
    found = walk(reference, [variant], windows, windows, device="cpu")
    rows = found.of(variant)
    assert set(rows.bits) == {4} and list(rows.index) == [w.name for w in linear]
    assert found.totals(variant)["weights"] == sum(w.size for w in linear)
    assert (rows.squared[[w.name for w in linear if w.name not in hats]] == 0).all()
    assert (found.outputs["file"].kl.mean == 0) is (not hats)


@pytest.mark.parametrize(("name", "layout"), [("gptqmodel", Gptq), ("autoawq", Awq)], ids=["gptq", "awq"])
def test_each_layer_is_unpacked_once(monkeypatch, name, layout):
    """To find faults; the table of prices, and the shapes that tell models apart, read none again.

    AWQ's up has the scales of down in its rows: it is read for both.
    """
    reads, read = [], layout.read
    monkeypatch.setattr(layout, "read", lambda self, parts: reads.append(parts.stem) or read(self, parts))
    (quantized,) = open_available([name], open_checkpoint("embedded"))[0].values()
    assert len(quantized.table) == len(quantized.layers) and len(quantized.rates) == 2
    stems = [layer.removesuffix(".weight") for layer in quantized.layers]
    again = [stem for stem in stems if stem.endswith("up_proj") and layout is Awq]
    assert sorted(reads) == sorted(stems + again)


@pytest.mark.parametrize("name", [n for n in IN_THE_BOX if n.startswith("multi")])
def test_shapes_are_those_of_the_headers(name):
    quantized = open_quantized(name)
    assert all(quantized.shape(n) == quantized.packed(n).code.shape for n in quantized.layers)


def test_a_sharded_quantized_checkpoint_is_one(tmp_path: Path):
    """The parts of a layer may lie in two files."""
    stored, hats = gptq(llama())
    names = sorted(stored)
    for k in range(2):
        write(
            tmp_path,
            {n: stored[n] for n in names[k::2]},
            config(quantization_config=gptq_settings()),
            f"{k}.safetensors",
        )
    write_index(tmp_path, {n: f"{i % 2}.safetensors" for i, n in enumerate(names)})
    assert np.array_equal(open_quantized(tmp_path).tensor(Q0), hats[Q0])


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32], ids=lambda d: np.dtype(d).name)
def test_a_layer_left_alone_is_its_bit_patterns(dtype):
    W = matrix().astype(dtype)
    layer = left_alone(W, 4, "GPTQ g32")
    assert np.array_equal(layer.weight, as_float32(W))
    assert np.array_equal(layer.decoder.decode(Code.from_bytes(layer.code.to_bytes())), layer.weight)
    assert sum(stream.bits for stream in layer.code.streams.values()) == 8 * W.nbytes
