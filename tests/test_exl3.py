"""EXL3's codes, rings of bits, places in a tile, blocks and scales; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.linalg import hadamard

from rdlib.checkpoints import QuantizedCheckpoint, open_quantized
from rdlib.measure import measure
from rdlib.quantizers import ComputedTrellis
from rdlib.quantizers.trellis.computed import computed_code

STEM = "model.layers.0.self_attn.q_proj"
CONFIG = {"model_type": "llama", "quantization_config": {"quant_method": "exl3", "bits": 3.0, "head_bits": 6}}
MULTIPLIERS = {"mcg": 0xCBAC1FED, "mul1": 0x83DCD12D}


def half(bits: int) -> float:
    return float(np.array(bits, np.uint16).view(np.float16))


def code_by_hand(register: int, codebook: str) -> float:
    """With Python's integers and fractions."""
    if codebook == "mul1":
        x = register * MULTIPLIERS["mul1"] % 2**32
        total = 1024 + sum(x >> shift & 255 for shift in (0, 8, 16, 24))
        return float(np.float16(total * half(0x1EEE) + half(0xC931)))
    x = (register * 89226354 + 64248484 if codebook == "3inst" else register * MULTIPLIERS["mcg"]) % 2**32
    x = x & 0x8FFF8FFF ^ 0x3B603B60
    return float(np.float16(half(x & 0xFFFF) + half(x >> 16)))


@pytest.mark.parametrize("codebook", ["3inst", "mcg", "mul1"])
def test_a_code_is_about_gaussian(codebook):
    code = computed_code(codebook)
    registers = np.random.default_rng(0).integers(1 << 16, size=500)
    assert [float(c) for c in code[registers]] == [code_by_hand(int(r), codebook) for r in registers]
    values = code.astype(np.float64)
    assert values.std() == pytest.approx(1.0003 if codebook == "mul1" else 1.244, abs=0.0005)
    assert 2.7 < (values**4).mean() / values.var() ** 2 < 2.9, "kurtosis of a Gaussian is 3"


def write(folder: Path, tensors: dict, config: dict = CONFIG) -> QuantizedCheckpoint:
    save_file(
        {f"{STEM}.{n}": np.array(t, order="C") for n, t in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    return QuantizedCheckpoint(folder)


def layer(bits: int, codebook: str, inputs: int = 128, outputs: int = 256) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(bits)
    tensors = {
        "trellis": rng.integers(-(1 << 15), 1 << 15, (inputs // 16, outputs // 16, 16 * bits), np.int16),
        "suh": rng.uniform(-2, 2, inputs).astype(np.float16),
        "svh": rng.uniform(-0.1, 0.1, outputs).astype(np.float16),
    }
    if codebook != "3inst":
        tensors[codebook] = np.array(MULTIPLIERS[codebook], np.uint32).view(np.int32)
    return tensors


def decoded_by_hand(tensors: dict[str, np.ndarray], codebook: str) -> np.ndarray:
    """Ŵ (out, in) by strings of bits and products of matrices."""
    rows, columns, length = tensors["trellis"].shape
    bits, C = length // 16, np.empty((16 * rows, 16 * columns))
    for i in range(rows):
        for j in range(columns):
            words = tensors["trellis"][i, j].view(np.uint32)
            ring = "".join(f"{word:032b}" for word in words)
            for t in range(256):
                end = (t + 1) * bits
                register = int((ring + ring)[end + len(ring) - 16 : end + len(ring)], 2)
                thread, k = divmod(t, 8)
                row = 2 * (thread % 4) + (0, 1, 8, 9)[k % 4]
                C[16 * i + row, 16 * j + thread // 4 + 8 * (k // 4)] = code_by_hand(register, codebook)
    H = hadamard(128).astype(np.float64)
    blocks = C.reshape(len(C) // 128, 128, -1, 128)
    W = np.einsum("ab,ibjc,cd->iajd", H, blocks, H).reshape(C.shape) / 128
    scales = (tensors[name].astype(np.float64) for name in ("suh", "svh"))
    return (W * next(scales)[:, None] * next(scales)).astype(np.float32).T


@pytest.mark.parametrize(("bits", "codebook"), [(1, "mcg"), (3, "3inst"), (5, "mul1"), (8, "mcg")])
def test_decoded_by_hand(tmp_path, bits, codebook):
    tensors = layer(bits, codebook)
    quantized = write(tmp_path, tensors)
    name = quantized.layers[0]
    assert quantized.shape(name) == (256, 128)
    assert np.array_equal(quantized.tensor(name), decoded_by_hand(tensors, codebook))
    assert quantized.needed_bits(name) == {
        "index": bits * 256 * 128,
        "input_scale": 16 * 128,
        "output_scale": 16 * 256,
    }


def test_signs_of_early_files(tmp_path):
    tensors = layer(2, "mcg")
    signs = {side: np.random.default_rng(0).integers(0, 2, len(tensors[f"{side}h"])) for side in ("su", "sv")}
    for side, ones in signs.items():
        tensors[f"{side}h"] = (1 - 2 * ones).astype(np.float16)
    expected = write(tmp_path, tensors).tensor(f"{STEM}.weight")
    for side, ones in signs.items():
        del tensors[f"{side}h"]
        tensors[side] = np.packbits(ones.astype(np.uint8), bitorder="little").view(np.int16)
    quantized = write(tmp_path, tensors)
    assert np.array_equal(quantized.tensor(f"{STEM}.weight"), expected)
    assert quantized.needed_bits(f"{STEM}.weight")["input_scale"] == 128


def test_what_fills_up_a_block_is_cut_off_and_paid_for(tmp_path):
    tensors = layer(2, "mcg", 128, 128)
    whole = write(tmp_path, tensors).tensor(f"{STEM}.weight")
    sizes = {"hidden_size": 96, "num_attention_heads": 5, "head_dim": 16}
    quantized = write(tmp_path, tensors, CONFIG | sizes)
    assert quantized.shape(f"{STEM}.weight") == (80, 96)
    assert np.array_equal(quantized.tensor(f"{STEM}.weight"), whole[:80, :96])
    assert quantized.needed_bits(f"{STEM}.weight")["index"] == 2 * 128 * 128
    other = write(tmp_path, tensors, CONFIG | sizes | {"hidden_size": 320})
    assert other.shape(f"{STEM}.weight") == (128, 128), "another model: which one, is for aligned to say"


def test_the_head_of_a_tied_model_is_a_layer():
    quantized = open_quantized("multi-head-exl3")
    assert "lm_head.weight" in quantized.layers and "model.embed_tokens.weight" in quantized.unquantized


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suh": None}, r"q_proj\.suh is missing"),
        ({"svh": None}, r"q_proj\.svh is missing"),
        ({"trellis": None}, r"q_proj\.trellis is missing"),
        ({"trellis": lambda t: t[:, :-1]}, r"q_proj\.trellis has the shape \(8, 15, 48\)"),
        ({"trellis": lambda t: t[..., :-1]}, r"q_proj\.trellis has the shape \(8, 16, 47\)"),
        ({"trellis": lambda t: np.tile(t, 3)}, r"q_proj\.trellis has the shape \(8, 16, 144\)"),
        ({"trellis": lambda t: t.astype(np.int32)}, r"q_proj\.trellis is int32"),
        ({"suh": lambda s: s[:-1]}, r"q_proj\.suh has the shape \(127,\)"),
        ({"svh": lambda s: np.full_like(s, np.nan)}, r"q_proj\.svh"),
        ({"mcg": lambda m: m + 2}, r"q_proj\.mcg holds 0xcbac1fef"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path, change, message):
    tensors = layer(3, "mcg")
    for name, how in change.items():
        tensors |= {name: how(tensors[name])} if how else {}
        if not how:
            del tensors[name]
    with pytest.raises(ValueError, match=message):
        quantized = write(tmp_path, tensors)
        quantized.shape(quantized.layers[0])
        quantized.tensor(quantized.layers[0])


@pytest.mark.parametrize("bits", [None, 0, 9, "3", True])
def test_a_rate_that_is_none_is_refused(tmp_path, bits):
    with pytest.raises(ValueError, match="says bits = "):
        write(
            tmp_path,
            layer(3, "mcg"),
            CONFIG | {"quantization_config": {"quant_method": "exl3", "bits": bits}},
        )


# As a quantizer


@pytest.mark.parametrize("codebook", ["3inst", "mcg", "mul1"])
def test_a_short_register_has_the_first_of_the_codes(codebook):
    W = np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32)
    curve = [measure(W, ComputedTrellis(2, register, codebook)).mse for register in (8, 10)]
    assert 0.0625 < curve[1] < curve[0] < 0.1


def test_a_code_that_is_none_is_refused():
    with pytest.raises(ValueError, match="3inst, mcg, mul1, not '4inst'"):
        ComputedTrellis(2, 8, "4inst")
