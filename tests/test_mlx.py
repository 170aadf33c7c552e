"""MLX's modes, packed by hand, its settings for single layers, and what is refused."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from rdlib.checkpoints import QuantizedCheckpoint
from rdlib.models.checkpoint import Checkpoint

STEM = "model.layers.0.mlp.up_proj"
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Rows of codes as one number each, the first code lowest, by Python's integers."""
    words = np.empty((len(codes), codes.shape[1] * bits // 32), np.uint32)
    for i, row in enumerate(codes):
        number = sum(int(q) << (bits * j) for j, q in enumerate(row))
        words[i] = [number >> (32 * w) & 0xFFFFFFFF for w in range(words.shape[1])]
    return words


def write(folder: Path, layers: dict[str, dict[str, np.ndarray]], quantization: dict) -> QuantizedCheckpoint:
    tensors = {
        f"{stem}.{n}": np.ascontiguousarray(t) for stem, parts in layers.items() for n, t in parts.items()
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization": quantization}))
    return QuantizedCheckpoint(folder)


def affine(bits: int, size: int, dtype: type, rows: int = 6, columns: int = 256) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(bits)
    scales = rng.normal(0, 0.1, (rows, columns // size)).astype(dtype)
    return {
        "weight": packed(rng.integers(0, 1 << bits, (rows, columns)), bits),
        "scales": scales,
        "biases": (-(2.0 ** (bits - 1)) * scales.astype(np.float32)).astype(dtype),
    }


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize(("bits", "size"), [(2, 32), (3, 64), (4, 128), (5, 32), (6, 64), (8, 128)])
def test_affine_is_computed_in_the_type_of_its_scales(tmp_path, bits, size, dtype):
    tensors = affine(bits, size, dtype)
    quantized = write(tmp_path, {STEM: tensors}, {"bits": bits, "group_size": size})
    codes = np.random.default_rng(bits)
    codes.normal(0, 0.1, (6, 256 // size))
    codes = codes.integers(0, 1 << bits, (6, 256)).astype(dtype)
    s, m = (np.repeat(tensors[name], size, axis=1) for name in ("scales", "biases"))
    assert np.array_equal(quantized.tensor(f"{STEM}.weight"), (codes * s + m).astype(np.float32))
    width = 8 * np.dtype(dtype).itemsize
    assert quantized.needed_bits(f"{STEM}.weight") == {
        "index": bits * 6 * 256,
        "scale": width * 6 * 256 // size,
        "minimum": width * 6 * 256 // size,
    }


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_every_code_with_every_scale(tmp_path, mode):
    bits, size = 8 if mode == "mxfp8" else 4, 16 if mode == "nvfp4" else 32
    kind = ml_dtypes.float8_e4m3fn if mode == "nvfp4" else ml_dtypes.float8_e8m0fnu
    t = np.array(E2M1, np.float32)
    if bits == 8:
        t = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    scales = np.arange(256, dtype=np.uint8)
    values = scales.view(kind).astype(np.float32)
    finite = np.abs(values) < 2.0**118  # 448 times as much is still a bfloat16
    scales, values = scales[finite], values[finite]
    codes = np.tile(np.arange(1 << bits), 2)
    codes = np.where(np.isnan(t[codes]), 0, codes)  # E4M3 has two
    tensors = {
        "weight": packed(np.tile(codes, (len(scales), 1)), bits),
        "scales": np.repeat(scales[:, None], len(codes) // size, axis=1),
    }
    W = write(tmp_path, {STEM: tensors}, {"mode": mode, "bits": bits, "group_size": size}).tensor(
        f"{STEM}.weight"
    )
    expected = (t[codes] * values[:, None]).astype(ml_dtypes.bfloat16).astype(np.float32)
    assert np.array_equal(W.view(np.uint32), expected.view(np.uint32)), "−0 is not 0"


def test_layers_have_settings_of_their_own(tmp_path):
    """What an entry does not say is mlx's default and not what is said of all; head and embedding are layers."""
    names = [f"model.layers.0.mlp.{group}_proj" for group in ("up", "gate", "down")]
    layers = {
        names[0]: affine(4, 32, np.float16),
        names[1]: affine(8, 64, np.float16),
        names[2]: affine(3, 32, np.float16),
        "model.embed_tokens": affine(6, 32, np.float16),
        "lm_head": affine(2, 128, np.float16),
    }
    said = {
        "group_size": 32,
        "bits": 4,
        names[1]: {"bits": 8},
        names[2]: {"bits": 3, "group_size": 32},
        "model.embed_tokens": {"bits": 6, "group_size": 32},
        "lm_head": {"bits": 2, "group_size": 128},
        "model.layers.0.self_attn.v_proj": False,
        names[0]: True,
    }
    quantized = write(tmp_path, layers, said)
    bits = {name.removesuffix(".weight"): quantized.packed(name).decoder.bits for name in quantized.layers}
    assert bits == dict(zip([*names, "model.embed_tokens", "lm_head"], (4, 8, 3, 6, 2), strict=True))
    assert not quantized.checkpoint.tied


def test_names_of_a_decoder_in_a_larger_model(tmp_path):
    layers = {
        "language_model.model.layers.0.mlp.up_proj": affine(8, 64, np.float16),
        "language_model.model.embed_tokens": affine(4, 64, np.float16),
        "language_model.lm_head": affine(4, 64, np.float16),
    }
    said = {"bits": 4, "group_size": 64, "language_model.model.layers.0.mlp.up_proj": {"bits": 8}}
    quantized = write(tmp_path, layers, said)
    assert quantized.layers == ["model.embed_tokens.weight", "lm_head.weight", f"{STEM}.weight"]
    assert quantized.packed(f"{STEM}.weight").decoder.bits == 8


def test_a_checkpoint_refuses_codes_as_weights(tmp_path):
    write(tmp_path, {STEM: affine(4, 64, np.float16)}, {"bits": 4, "group_size": 64})
    with pytest.raises(ValueError, match=r"up_proj\.weight holds codes .* the settings say mlx"):
        Checkpoint(tmp_path).tensor(f"{STEM}.weight")


FLOATS = {"mode": "mxfp4", "bits": 4, "group_size": 32}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"mode": "mxfp5"}, "mode = 'mxfp5' of all layers; mlx has affine, mxfp4, mxfp8, nvfp4"),
        ({"bits": 7}, "bits = 7 of all layers; mlx has 4, 2, 3, 5, 6, 8"),
        ({"bits": 4.0}, "bits = 4.0"),
        ({"bits": True}, "bits = True"),
        ({"group_size": 16}, "group_size = 16 of all layers; mlx has 64, 32, 128"),
        ({STEM: {"mode": "nvfp4", "bits": 8}}, "bits = 8 of model.layers.0.mlp.up_proj; mlx has 4"),
        ({STEM: {"bits": "x"}}, "bits = 'x' of model.layers.0.mlp.up_proj"),
        ({STEM: False}, "up_proj is quantized, but quantization in config.json of .* says False of it"),
        ({STEM: 4}, "says 4 of it"),
        ({STEM: FLOATS}, r"up_proj\.scales is float16, but it should be uint8"),
        (
            {"bits": 8},
            r"up_proj\.scales has the shape \(6, 4\), but affine with bits = 8 and group_size = 64",
        ),
        ({"bits": 6}, r"up_proj\.weight has the shape \(6, 32\), but affine with bits = 6"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, said, message):
    with pytest.raises(ValueError, match=message):
        quantized = write(tmp_path, {STEM: affine(4, 64, np.float16)}, {"bits": 4, "group_size": 64} | said)
        quantized.tensor(quantized.layers[0])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("scales", None, r"up_proj\.scales is missing"),
        ("biases", None, r"up_proj\.biases is missing"),
        ("weight", lambda w: w.view(np.int32), r"up_proj\.weight is int32"),
        ("weight", lambda w: w[:, :-1], r"up_proj\.weight has the shape \(6, 31\)"),
        ("scales", lambda s: s[:-1], r"up_proj\.scales has the shape \(5, 4\)"),
        ("biases", lambda s: s[:, :-1], r"up_proj\.biases has the shape \(6, 3\)"),
        ("scales", lambda s: np.full_like(s, np.nan), r"up_proj\.scales holds nan at \(0, 0\)"),
        ("biases", lambda s: s.astype(np.int32), r"up_proj\.biases is int32"),
        ("biases", lambda s: s.astype(np.float32), r"up_proj\.biases is float32, and scales are float16"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path, name, change, message):
    tensors = affine(4, 64, np.float16)
    tensors[name] = change(tensors[name]) if change else None
    with pytest.raises(ValueError, match=message):
        quantized = write(
            tmp_path,
            {STEM: {n: t for n, t in tensors.items() if t is not None}},
            {"bits": 4, "group_size": 64},
        )
        quantized.tensor(quantized.layers[0])


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("scales", np.full((6, 8), 255, np.uint8), r"up_proj\.scales holds nan at \(0, 0\)"),
        ("weight", np.full((6, 64), 0x7F, np.uint32), r"up_proj\.weight holds nan at \(0, 0\)"),
        (
            "biases",
            np.zeros((6, 8), np.float16),
            r"up_proj\.biases is a tensor that mode mxfp8 does not have",
        ),
        ("scales", None, r"up_proj\.scales is missing"),
        ("global_scale", np.ones(1, np.float32), r"up_proj\.global_scale is a tensor that mode mxfp8"),
    ],
)
def test_what_a_mode_does_not_have_is_refused(tmp_path, name, array, message):
    tensors = {"weight": np.zeros((6, 64), np.uint32), "scales": np.full((6, 8), 127, np.uint8)} | {
        name: array
    }
    with pytest.raises(ValueError, match=message):
        quantized = write(
            tmp_path, {STEM: {n: t for n, t in tensors.items() if t is not None}}, {"mode": "mxfp8"}
        )
        quantized.tensor(quantized.layers[0])
