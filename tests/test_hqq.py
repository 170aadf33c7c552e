"""HQQ's layers, packed by hand, and what is refused."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from rdlib.checkpoints import QuantizedCheckpoint

STEM = "model.layers.0.mlp.up_proj"
EACH = {8: 1, 6: 1, 5: 1, 4: 2, 3: 10, 2: 4, 1: 8}  # fields of a byte, or of a word of 32
PACKING = {3: "3bit_32"} | {bits: f"{8 // EACH[bits]}bit_u8" for bits in (1, 2, 4, 5, 6, 8)}
SHAPE = (16, 80)


def letters(word: str) -> np.ndarray:
    return np.frombuffer(word.encode(), np.uint8)


def layer(bits: int, axis: int, dtype: type = np.float16, size: int = 40) -> tuple[dict, np.ndarray]:
    """The tensors of a layer, and its weights in numpy's arithmetic of their type."""
    rng, groups = np.random.default_rng(bits), SHAPE[0] * SHAPE[1] // size
    V = rng.integers(0, 1 << bits, (groups, size) if axis else (size, groups))
    scale, zero = (rng.uniform(0.1, 3, (groups, 1) if axis else (1, groups)).astype(dtype) for _ in range(2))
    rows = -(-len(V) // EACH[bits])
    whole = np.concatenate([V, np.zeros((rows * EACH[bits] - len(V), V.shape[1]), int)])
    parts = whole.reshape(EACH[bits], rows, -1)
    step = {3: 3}.get(bits, 8 // EACH[bits])
    packed = sum(part << step * k for k, part in enumerate(parts[::-1]))
    name = np.dtype(dtype).name
    tensors = {"W_q": packed.astype(np.int32 if bits == 3 else np.uint8), "scale": scale, "zero": zero}
    tensors |= {"nbits": np.int32(bits), "group_size": np.int32(size), "axis": np.int32(axis)}
    tensors |= {"packing": letters(PACKING[bits]), "compute_dtype": letters(f"torch.{name}")}
    tensors |= {"shape": np.array(SHAPE), "view_as_float": np.uint8(0), "quant_scale": np.uint8(0)}
    return tensors, ((V.astype(dtype) - zero) * scale).reshape(SHAPE).astype(np.float32)


def write(folder: Path, tensors: dict, settings: dict | None = None) -> QuantizedCheckpoint:
    """A checkpoint of one layer; without settings as hqq itself writes it."""
    config = {"model_type": "llama"} | ({"quantization_config": settings} if settings else {})
    save_file(
        {f"{STEM}.{n}": np.array(t, order="C") for n, t in tensors.items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps(config))
    return QuantizedCheckpoint(folder)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("bits", EACH)
def test_decoded_as_the_arithmetic_of_its_type_has_it(tmp_path, bits, axis, dtype):
    tensors, W = layer(bits, axis, dtype)
    quantized = write(tmp_path, tensors)
    assert np.array_equal(quantized.tensor(f"{STEM}.weight"), W)
    width = 8 * np.dtype(dtype).itemsize * 32
    assert quantized.needed_bits(f"{STEM}.weight") == {"index": bits * W.size, "scale": width, "zero": width}
    assert quantized.stored_bits(f"{STEM}.weight")["index"] == 8 * tensors["W_q"].nbytes
    assert (quantized.bits, quantized.method) == (bits, f"HQQ g40{'' if axis else ' axis 0'}")


def test_bytes_that_are_stored_as_floats_are_bytes(tmp_path):
    tensors, W = layer(4, 1)
    viewed = tensors | {"W_q": tensors["W_q"].view(np.float16), "view_as_float": np.uint8(1)}
    assert np.array_equal(write(tmp_path, viewed, {"quant_method": "hqq"}).tensor(f"{STEM}.weight"), W)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"W_q": np.zeros((15, 40), np.uint8)}, r"W_q has the shape \(600,\), but 4bit_u8 of \(32, 40\)"),
        ({"nbits": np.int32(7)}, "nbits = 7"),
        ({"nbits": np.float32(1.58)}, "nbits is float32"),
        ({"nbits": np.int32(2)}, "is packed as '4bit_u8'"),
        ({"axis": np.int32(2)}, "axis = 2"),
        ({"group_size": np.int32(0)}, "group_size = 0"),
        ({"group_size": np.int32(77)}, r"group_size = 77 does not divide \(16, 80\)"),
        ({"group_size": np.int32(20)}, r"scale has the shape \(32, 1\)"),
        ({"shape": np.array([16, 81])}, "does not divide"),
        ({"shape": np.array([-16, -80])}, r"and not \(out, in\)"),
        ({"packing": letters("4bit_i8")}, "'4bit_i8'"),
        ({"compute_dtype": letters("torch.float64")}, "'torch.float64'"),
        (
            {"compute_dtype": letters("torch.bfloat16")},
            "scale is float16, but compute_dtype is torch.bfloat16",
        ),
        ({"scale": np.full((32, 1), np.nan, np.float16)}, "scale holds nan"),
        ({"zero": np.zeros((31, 1), np.float16)}, r"zero has the shape \(31, 1\)"),
        ({"zero": None}, r"up_proj\.zero is missing"),
        ({"quant_scale": np.uint8(1)}, "scales are quantized"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, changed, message):
    tensors = {n: t for n, t in (layer(4, 1)[0] | changed).items() if t is not None}
    with pytest.raises(ValueError, match=message):
        write(tmp_path, tensors, {"quant_method": "hqq"}).tensor(f"{STEM}.weight")


def test_a_symbol_beyond_its_bits_is_refused(tmp_path):
    tensors, _ = layer(5, 1)
    tensors["W_q"][3, 3] = 32
    with pytest.raises(ValueError, match="W_q goes beyond 5 bits"):
        write(tmp_path, tensors).tensor(f"{STEM}.weight")
