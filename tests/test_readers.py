"""Traps of formats, packed by hand; what contradicts itself is refused in a sentence that names the tensor."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from test_checkpoints import gptq_folder

from rdlib.checkpoints import IN_THE_BOX, QuantizedCheckpoint, aligned
from rdlib.checkpoints.affine import LEVELS, Affine, Levels, round_to
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import MalformedCode
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.weight import Kind

STEM = "model.layers.0.mlp.up_proj"
BF16, E4M3 = np.dtype(ml_dtypes.bfloat16), np.dtype(ml_dtypes.float8_e4m3fn)
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def opened(
    folder: Path, tensors: dict[str, np.ndarray], config: dict, stem: str = STEM
) -> QuantizedCheckpoint:
    """A checkpoint of one matrix; names that contain a dot beyond the first are whole names."""
    named = {name if name.startswith("model.") else f"{stem}.{name}": t for name, t in tensors.items()}
    save_file({n: np.ascontiguousarray(t) for n, t in named.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": config}))
    return QuantizedCheckpoint(folder)


def only(checkpoint: QuantizedCheckpoint) -> np.ndarray:
    (name,) = checkpoint.layers
    return checkpoint.tensor(name)


def packed(fields: np.ndarray, bits: int, loose: bool) -> np.ndarray:
    """Rows of fields as int32, by Python's integers: one long number a row, or one a word."""
    per_word = 32 // bits
    runs = [row.tolist() for row in fields]
    if loose:
        words = [[_number(row[i : i + per_word], bits) for i in range(0, len(row), per_word)] for row in runs]
    else:
        count = -(-fields.shape[1] * bits // 32)
        words = [[_number(row, bits) >> 32 * w & 0xFFFFFFFF for w in range(count)] for row in runs]
    return np.array(words, np.uint32).view(np.int32)


def _number(fields: list[int], bits: int) -> int:
    return sum(field << bits * i for i, field in enumerate(fields))


# compressed-tensors


def compressed(weights: dict, form: str = "pack-quantized", **more: object) -> dict:
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups} | more


def integers(bits: int, loose: bool, symmetric: bool, seed: int = 0) -> tuple[dict, dict, np.ndarray]:
    """Tensors, settings and Ŵ of a matrix in groups of 32."""
    rng = np.random.default_rng(seed)
    rows, columns, size = 24, 96, 32
    q = rng.integers(0, 1 << bits, (rows, columns))
    z = (
        np.full((rows, columns // size), 1 << bits - 1)
        if symmetric
        else rng.integers(0, 1 << bits, (rows, 3))
    )
    s = rng.uniform(0.01, 0.1, z.shape).astype(BF16)
    tensors = {
        "weight_packed": packed(q, bits, loose),
        "weight_scale": s,
        "weight_shape": np.array([rows, columns]),
    }
    if not symmetric:
        tensors["weight_zero_point"] = packed(z.T, bits, loose).T
    steps = (q - np.repeat(z, size, 1)) * np.repeat(s.astype(np.float32), size, 1)
    args = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": size, "symmetric": symmetric}
    return tensors, compressed(args), steps.astype(BF16).astype(np.float32)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("loose", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
def test_both_packings_are_told_apart_by_their_shapes(tmp_path, bits, loose, symmetric):
    tensors, config, W = integers(bits, loose, symmetric)
    checkpoint = opened(tmp_path, tensors, config)
    assert np.array_equal(only(checkpoint), W)
    rate = bits + (16 + (0 if symmetric else bits)) / 32
    assert checkpoint.table.rate.item() == pytest.approx(rate, abs=8 / W.size)
    assert checkpoint.table.stored.item() >= checkpoint.table.rate.item()


def test_a_shape_that_fits_both_packings_is_refused(tmp_path):
    tensors, config, _ = integers(3, False, True)
    tensors |= {"weight_packed": tensors["weight_packed"][:, :2], "weight_shape": np.array([24, 16])}
    tensors["weight_scale"] = tensors["weight_scale"][:, :1]
    with pytest.raises(ValueError, match=r"up_proj\.weight_packed may be packed densely or loosely"):
        only(opened(tmp_path, tensors, config))


def nvfp4(seed: int = 0) -> tuple[dict, dict, np.ndarray]:
    rng = np.random.default_rng(seed)
    q, s = rng.integers(0, 16, (8, 64)), rng.uniform(1, 400, (8, 4)).astype(E4M3)
    q[0, :2] = 8, 0  # −0, and 0
    tensors = {
        "weight_packed": (q[:, ::2] | q[:, 1::2] << 4).astype(np.uint8),
        "weight_scale": s,
        "weight_global_scale": np.float32([2688 / 0.3]),
    }
    v = np.array(E2M1 + [-float(x) for x in E2M1], np.float32)[q]
    scale = np.repeat(s.astype(np.float32) / tensors["weight_global_scale"], 16, 1)
    args = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16, "symmetric": True}
    return tensors, compressed(args, "nvfp4-pack-quantized"), (v * scale).astype(BF16).astype(np.float32)


def test_nvfp4_divides_by_its_global_scale(tmp_path):
    """The lower half of a byte comes first, and −0 exists."""
    tensors, config, W = nvfp4()
    checkpoint = opened(tmp_path, tensors, config)
    assert np.array_equal(only(checkpoint).view(np.uint32), W.view(np.uint32)) and np.signbit(W[0, 0])
    assert checkpoint.table.rate.item() == 4 + 8 / 16 + 32 / W.size


def two_schemes(**targets: int) -> dict:
    """Settings with a group of so many bits for each target."""
    groups = {
        target: {"targets": [target], "weights": {"num_bits": bits, "strategy": "group", "group_size": 32}}
        for target, bits in targets.items()
    }
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}


@pytest.mark.parametrize(
    "targets",
    [
        {"Linear": 4, "re:.*up_proj": 2},
        {"re:.*up_proj": 4, STEM: 2},
        {"Linear": 4, "re:.*": 4, STEM: 2},
        {"Linear": 2, "re:.*down_proj": 4, "up_proj": 4},
    ],
)
def test_a_name_goes_before_an_expression_and_an_expression_before_a_class(tmp_path, targets):
    tensors, _, W = integers(2, False, True)
    assert np.array_equal(only(opened(tmp_path, tensors, two_schemes(**targets))), W)


def test_scales_of_inputs_and_of_the_cache_are_known_and_decode_nothing(tmp_path):
    tensors, config, W = nvfp4()
    cache = "model.layers.0.self_attn.k_scale"
    tensors |= {"input_global_scale": np.float32([3]), cache: np.float32([7])}
    checkpoint = opened(tmp_path, tensors, config)
    assert np.array_equal(only(checkpoint), W)
    assert checkpoint.checkpoint.tensors[cache].kind is Kind.SCALE and cache not in checkpoint.needed
    assert checkpoint.unquantized == [cache] and "input_global_scale" not in checkpoint.table


# FP8 and ModelOpt


@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_blocks_of_fp8_are_smaller_at_the_edges(tmp_path, dtype):
    rng = np.random.default_rng(0)
    q, s = rng.standard_normal((70, 100)).astype(E4M3), rng.uniform(0.01, 0.1, (3, 2)).astype(dtype)
    config = {"quant_method": "fp8", "weight_block_size": [32, 64]}
    checkpoint = opened(tmp_path, {"weight": q, "weight_scale_inv": s}, config)
    wide = np.repeat(np.repeat(s.astype(np.float32), 32, 0)[:70], 64, 1)[:, :100] * q.astype(np.float32)
    assert np.array_equal(only(checkpoint), wide.astype(dtype).astype(np.float32))
    assert np.array_equal(checkpoint.checkpoint.tensor(f"{STEM}.weight"), wide), "as a model: in float32"
    assert checkpoint.table.rate.item() == pytest.approx(8 + 8 * s.nbytes / q.size)


def modelopt(seed: int = 0) -> tuple[dict, dict, np.ndarray]:
    """NVFP4 with a scale of scales that multiplies."""
    tensors, _, _ = nvfp4(seed)
    S = np.float32(1e-4)
    q = np.stack([tensors["weight_packed"] & 15, tensors["weight_packed"] >> 4], -1).reshape(8, 64)
    v = np.array(E2M1 + [-x for x in E2M1], np.float32)[q]
    W = v * np.repeat(tensors["weight_scale"].astype(np.float32) * S, 16, 1)
    stored = {
        "weight": tensors["weight_packed"],
        "weight_scale": tensors["weight_scale"],
        "weight_scale_2": S,
    }
    settings = {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head"]}
    return stored, settings, W.astype(BF16).astype(np.float32)


def test_modelopt_multiplies_by_its_scale_of_scales(tmp_path):
    tensors, config, W = modelopt()
    assert np.array_equal(only(opened(tmp_path, tensors, config)).view(np.uint32), W.view(np.uint32))


def test_settings_of_modelopt_may_be_in_a_file_of_their_own(tmp_path):
    tensors, _, W = modelopt()
    opened(tmp_path, tensors, {"quant_method": "modelopt", "quant_algo": "NVFP4"})
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    quantization = {"quant_algo": "NVFP4", "group_size": 16, "exclude_modules": ["lm_head"]}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
    assert np.array_equal(only(QuantizedCheckpoint(tmp_path)), W)
    quantization["quant_algo"] = "FP8"
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": quantization}))
    with pytest.raises(ValueError, match=r"up_proj is stored as NVFP4, but the settings say FP8"):
        only(QuantizedCheckpoint(tmp_path))


@pytest.mark.parametrize(("bits", "element"), [(4, ml_dtypes.float4_e2m1fn), (8, ml_dtypes.float8_e4m3fn)])
def test_mx_of_modelopt(tmp_path, bits, element):
    rng = np.random.default_rng(0)
    v, e = (2 * rng.standard_normal((8, 64))).astype(element), rng.integers(110, 130, (8, 2)).astype(np.uint8)
    q = v.view(np.uint8)
    tensors = {"weight": q[:, ::2] | q[:, 1::2] << 4 if bits == 4 else v, "weight_scale": e}
    checkpoint = opened(tmp_path, tensors, {"quant_method": "modelopt", "quant_algo": f"MXFP{bits}"})
    W = v.astype(np.float32) * np.repeat(2.0 ** (e.astype(np.float32) - 127), 32, 1)
    assert np.array_equal(only(checkpoint), W) and checkpoint.table.rate.item() == bits + 8 / 32


# GPTQ's relatives


@pytest.mark.parametrize("method", ["auto-round", "intel/auto-round"])
@pytest.mark.parametrize(
    ("form", "packing"),
    [
        ("gptq", {"packing_format": "auto_round:auto_gptq"}),
        ("gptq", {"backend": "auto_round:gptq:exllamav2"}),
        ("gptq_v2", {"packing_format": "auto_round"}),
        ("gptq_v2", {"backend": "auto_round:exllamav2"}),
        ("gptq_v2", {}),
    ],
)
def test_autoround_is_one_of_the_versions_of_gptq(tmp_path, form, packing, method):
    W, tensors = gptq_folder(tmp_path, 4, form, ordered=False)
    settings = {"quant_method": method, "bits": 4, "group_size": 32, "data_type": "int", **packing}
    checkpoint = opened(tmp_path, tensors, settings)
    assert np.array_equal(only(checkpoint), W) and checkpoint.method == "AutoRound g32"


def test_autoround_in_the_packing_of_awq(tmp_path):
    source = IN_THE_BOX["multi-head-autoawq"]
    shutil.copytree(source, tmp_path / "x")
    config = json.loads((source / "config.json").read_text())
    own = config["quantization_config"]
    settings = {"quant_method": "auto-round", "packing_format": "auto_round:auto_awq", "bits": 4}
    config["quantization_config"] = settings | {"group_size": own["group_size"]}
    (tmp_path / "x" / "config.json").write_text(json.dumps(config))
    one, other = QuantizedCheckpoint(source), QuantizedCheckpoint(tmp_path / "x")
    assert all(np.array_equal(one.tensor(name), other.tensor(name)) for name in one.layers)


@pytest.mark.parametrize(
    "rules",
    [
        {"dynamic": {"-:.*down_proj": {}, "+:.*up_proj": {"bits": 8}, ".*": {"bits": 2}}},
        {"dynamic": {".*mlp.*": {"bits": 8, "group_size": 32}}},
        {"extra_config": {STEM: {"bits": 8, "group_size": 32, "sym": False}}},
    ],
)
def test_a_matrix_may_have_settings_of_its_own(tmp_path, rules):
    W, tensors = gptq_folder(tmp_path, 8, "gptq_v2", ordered=False)
    settings = {"bits": 4, "group_size": 64, "quant_method": "gptq", "checkpoint_format": "gptq_v2"}
    settings |= rules | ({"group_size": 32} if "group_size" not in str(rules) else {})
    assert np.array_equal(only(opened(tmp_path, tensors, settings)), W)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"dynamic": {"-:.*up_proj": {}}}, "up_proj is quantized, but dynamic excludes it"),
        ({"dynamic": {"+:.*(": {}}}, "no regular expression"),
        ({"dynamic": [1]}, r"dynamic = \[1\], which are no rules"),
        ({"extra_config": {STEM: {"bits": 16}}}, "up_proj is quantized, but extra_config leaves it"),
        ({"extra_config": {STEM: {"bits": 5}}}, "bits = 5"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:fp8"}, "packed by AutoRound as"),
        (
            {"quant_method": "auto-round", "data_type": "mx_fp"},
            "packed by AutoRound as 'auto_round', 'mx_fp'",
        ),
    ],
)
def test_rules_that_are_not_understood_are_refused(tmp_path, rules, message):
    _, tensors = gptq_folder(tmp_path, 4, "gptq_v2", ordered=False)
    settings = {"bits": 4, "group_size": 32, "quant_method": "gptq", "checkpoint_format": "gptq_v2"}
    with pytest.raises(ValueError, match=message):
        only(opened(tmp_path, tensors, settings | rules))


@pytest.mark.parametrize(
    "method", ["aqlm", "quip", "vptq", "spqr", "eetq", "quanto", "quark", "torchao", "mxfp4", "higgs"]
)
def test_what_is_not_read_is_refused_by_name(tmp_path, method):
    with pytest.raises(ValueError, match=f"was quantized by '{method}'; rdlib reads .*compressed-tensors"):
        opened(tmp_path, {"W_q": np.zeros((4, 4), np.uint8)}, {"quant_method": method})


def test_scales_that_llm_compressor_folds_are_undone(tmp_path):
    """AWQ of autoawq in the format of compressed-tensors: the recipe beside it says that norms absorbed scales."""
    source, reference = (
        QuantizedCheckpoint(IN_THE_BOX["multi-head-autoawq"]),
        IN_THE_BOX["multi-head-autoawq"],
    )
    model = Checkpoint(reference.parent / "multi-head")
    tensors = {name: source.checkpoint.stored(name) for name in source.unquantized}
    for name in source.layers:
        code, stem = source.packed(name).code, name.removesuffix(".weight")
        tensors |= {
            f"{stem}.weight_packed": packed(code["index"], 4, False),
            f"{stem}.weight_scale": code["scale"],
            f"{stem}.weight_zero_point": packed(code["zero"].T, 4, False).T,
            f"{stem}.weight_shape": np.array(code.shape),
        }
    size = source.packed(source.layers[0]).decoder.tile[1]
    args = {"num_bits": 4, "strategy": "group", "group_size": size, "symmetric": False}
    quantized = opened(tmp_path, tensors, compressed(args))
    with pytest.raises(ValueError, match="was not made of multi-head"):
        dict(aligned(quantized, model))
    (tmp_path / "recipe.yaml").write_text(
        "default_stage:\n  default_modifiers:\n    AWQModifier:\n      duo: both\n"
    )
    found, expected = dict(aligned(QuantizedCheckpoint(tmp_path), model)), dict(aligned(source, model))
    assert all(np.array_equal(found[name].weight, layer.weight) for name, layer in expected.items())


Change = Callable[[dict, dict], None]


def drop(name: str) -> Change:
    return lambda tensors, config: tensors.__delitem__(name)


def put(name: str, value: Callable) -> Change:
    return lambda tensors, config: tensors.__setitem__(name, value(tensors.get(name)))


def say(**settings: object) -> Change:
    return lambda tensors, config: config.update(settings)


def say_of_weights(**settings: object) -> Change:
    return lambda tensors, config: config["config_groups"]["group_0"]["weights"].update(settings)


def groups_of_strangers(tensors: dict, config: dict) -> None:
    tensors["weight_g_idx"] = np.arange(96, dtype=np.int32) % 3


PACKED = integers(3, True, False)
NVFP4 = nvfp4()
MODELOPT = modelopt()
FP8 = (
    {"weight": np.ones((64, 64), E4M3), "weight_scale_inv": np.full((2, 2), 0.1, np.float32)},
    {"quant_method": "fp8", "weight_block_size": [32, 32]},
)


@pytest.mark.parametrize(
    ("seed", "change", "message"),
    [
        (PACKED, drop("weight_scale"), r"up_proj\.weight_scale is missing"),
        (PACKED, drop("weight_shape"), r"up_proj\.weight_shape is missing"),
        (PACKED, drop("weight_packed"), r"up_proj\.weight_packed is missing"),
        (PACKED, drop("weight_zero_point"), r"up_proj\.weight_zero_point is missing"),
        (PACKED, put("weight_scale", lambda s: s * np.nan), r"up_proj\.weight_scale holds nan"),
        (PACKED, put("weight_scale", lambda s: s[:, :2]), r"up_proj\.weight_scale has the shape \(24, 2\)"),
        (PACKED, put("weight_packed", lambda w: w[:, :8]), r"up_proj\.weight_packed has the shape \(24, 8\)"),
        (PACKED, put("weight_shape", lambda s: s * 2), r"up_proj\.weight_packed has the shape"),
        (PACKED, put("weight_shape", lambda s: -s), r"up_proj\.weight_shape is \[-24, -96\]"),
        (PACKED, put("weight_zero_point", lambda z: z[1:]), r"up_proj\.weight_zero_point has the shape"),
        (PACKED, say_of_weights(symmetric=True), r"zero_point is not zero, but .* symmetric = true"),
        (PACKED, say_of_weights(num_bits=4), r"up_proj\.weight_packed has the shape"),
        (PACKED, say_of_weights(num_bits=9), r"num_bits = 9"),
        (PACKED, say_of_weights(type="float"), r"type = 'float'"),
        (PACKED, say_of_weights(group_size=0), r"group_size = 0"),
        (PACKED, say_of_weights(group_size=64), r"up_proj\.weight_scale has the shape"),
        (PACKED, say_of_weights(strategy="token"), r"strategy = 'token'"),
        (PACKED, say_of_weights(actorder="group"), r"up_proj\.weight_g_idx is missing"),
        (PACKED, groups_of_strangers, r"weight_g_idx puts inputs together that are no neighbours"),
        (PACKED, say(format="marlin-24"), r"format = 'marlin-24'"),
        (PACKED, say(ignore=[STEM]), r"up_proj is quantized, but .* ignore names it"),
        (PACKED, say(ignore=["re:.*("]), r"no expression"),
        (PACKED, say(ignore="lm_head"), r"ignore = 'lm_head'"),
        (PACKED, say(quantization_status="frozen"), r"quantization_status = 'frozen'"),
        (PACKED, say(sparsity_config={"format": "sparse-24-bitmask"}), r"sets sparsity_config"),
        (PACKED, say(transform_config={"config_groups": {"u": {}}}), r"sets transform_config"),
        (PACKED, say(config_groups={}), r"no group of config_groups"),
        (PACKED, say(config_groups=[1]), r"config_groups = \[1\]"),
        (NVFP4, drop("weight_global_scale"), r"up_proj\.weight_global_scale is missing"),
        (NVFP4, put("weight_global_scale", lambda s: s * 0), r"up_proj\.weight_global_scale .* not positive"),
        (NVFP4, put("weight_scale", lambda s: np.full_like(s, np.nan)), r"up_proj\.weight_scale holds nan"),
        (NVFP4, put("weight_scale", lambda s: s.astype(np.float32)), r"up_proj\.weight_scale is float32"),
        (NVFP4, say(format="mxfp4-pack-quantized"), r"up_proj\.weight_scale is float8_e4m3fn"),
        (NVFP4, say(format="pack-quantized"), r"type = 'float'"),
        (
            MODELOPT,
            put("pre_quant_scale", lambda _: np.ones(64, BF16)),
            r"up_proj\.pre_quant_scale scales inputs",
        ),
        (MODELOPT, drop("weight_scale_2"), r"up_proj is stored as FP8, but the settings say NVFP4"),
        (MODELOPT, drop("weight_scale"), r"up_proj\.weight_scale is missing"),
        (MODELOPT, say(quant_algo="W4A16_AWQ"), r"quant_algo = 'w4a16_awq'"),
        (MODELOPT, say(ignore=["model.layers.0*"]), r"up_proj is quantized, but the settings exclude it"),
        (MODELOPT, say(ignore=3), r"ignore = 3"),
        (
            MODELOPT,
            put("weight_scale_2", lambda s: s * np.float32(np.nan)),
            r"up_proj\.weight_scale_2 holds nan",
        ),
        (
            FP8,
            put("weight_scale", lambda _: np.float32([1])),
            r"up_proj has both weight_scale_inv and weight_scale",
        ),
        (FP8, put("weight_scale_inv", lambda s: s[:1]), r"up_proj\.weight_scale_inv has the shape \(1, 2\)"),
        (FP8, put("weight_scale_inv", lambda s: s * np.nan), r"up_proj\.weight_scale_inv holds nan"),
        (FP8, put("weight", lambda w: np.full_like(w, np.nan)), r"up_proj\.weight holds nan"),
        (FP8, put("weight", lambda w: w.astype(np.int8)), r"up_proj\.weight is int8"),
        (FP8, say(weight_block_size=[128]), r"weight_block_size = \[128\]"),
    ],
)
def test_what_is_not_whole_or_contradicts_itself_is_refused(tmp_path, seed, change, message):
    tensors, config = dict(seed[0]), json.loads(json.dumps(seed[1]))
    change(tensors, config)
    with pytest.raises(ValueError, match=message):
        only(opened(tmp_path, tensors, config))


# The decoder alone


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_rounding_is_that_of_the_type(dtype):
    """To the nearest even, also of subnormal numbers, and to ∞ beyond the largest."""
    rng = np.random.default_rng(0)
    W = (rng.standard_normal((4, 50_000)) * 10.0 ** rng.integers(-9, 6, (4, 50_000))).astype(np.float32)
    W[0, :8] = 65519.99, 65520, 2**-24 * 1.5, 2**-25, 2**-14, 2**-15 + 2**-25, 0, -0.0
    W[1] = np.float32(2.0**-24) * rng.integers(0, 1 << 12, W.shape[1]) / 2
    with np.errstate(over="ignore"):
        expected = W.astype({"float16": np.float16, "bfloat16": BF16}[dtype]).astype(np.float32)
    round_to(dtype, W)
    assert np.array_equal(W.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("element", LEVELS)
def test_a_level_is_what_its_element_says(element):
    """ŵ = s·(v[q] − v[z]) with v from the table, by NumPy."""
    rng = np.random.default_rng(1)
    symbols = np.flatnonzero(np.isfinite(LEVELS[element]))
    q, z = rng.choice(symbols, (5, 70)), rng.choice(symbols, (3, 2))
    s = rng.uniform(0.5, 1, z.shape).astype(np.float32)
    streams = {"index": (q, 256), "zero": (z, 256)}
    code = Code(
        q.shape,
        {name: Stream.fixed(a, n) for name, (a, n) in streams.items()}
        | {"scale": Stream.floats(s, "float32")},
    )
    spread = [np.repeat(np.repeat(a, 2, 0)[:5], 64, 1)[:, :70] for a in (s, LEVELS[element][z])]
    W = Affine(8, "x", element, (2, 64)).decode(code)
    assert np.array_equal(W, (LEVELS[element][q] - spread[1]) * spread[0])


def test_a_scale_for_each_tile():
    streams = {"index": Stream.fixed(np.zeros((5, 70), int), 16), "scale": Stream.floats(np.ones((2, 2)))}
    with pytest.raises(MalformedCode, match="is not one for every tile"):
        Levels(4, "x", "int4", (2, 64)).decode(Code((5, 70), streams))


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("index", np.full((5, 70), 16), "index goes beyond 4 bits"),
        ("index", np.zeros((5, 64), int), "do not fit"),
        ("scale", np.ones((3, 1)), "do not fit"),
        ("scale", np.ones((2, 2)), "do not fit"),
        ("zero", np.zeros((3, 3), int), "do not fit"),
    ],
)
def test_streams_that_do_not_fit_are_refused(name, array, message):
    """None is read beyond its end."""
    arrays = {"index": np.zeros((5, 70), int), "scale": np.ones((3, 2)), "zero": np.zeros((3, 2), int)}
    arrays[name] = array
    streams = {n: Stream.floats(a) if n == "scale" else Stream.fixed(a, 256) for n, a in arrays.items()}
    with pytest.raises(MalformedCode, match=message):
        Affine(4, "x", "int4", (2, 64)).decode(Code((5, 70), streams))
