"""All digits of what the library computes, printed a line a quantity, for test_determinism.py to compare."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import ml_dtypes
from quantizer_list import COVERED
from safetensors.numpy import save_file
from sources import SOURCES, coded, heavy

from rdlib.census import stored_tensors
from rdlib.census.rows import tensor_rows
from rdlib.engine import second_moments
from rdlib.measure import measure_code
from rdlib.models import open_checkpoint
from rdlib.network import cut_windows, load_tokenizer, read_tokens


def of_quantizers() -> list[str]:
    """Of each quantizer what is measured, and the hash of its file."""
    lines = []
    for q in COVERED:
        code = coded(q, "heavy")
        point = measure_code(SOURCES["heavy"], q, code)
        lines.append(f"{q.method} {point.rate!r} {point.mse!r} {hashlib.sha256(code.to_bytes()).hexdigest()}")
    return lines


def of_census() -> list[str]:
    """All rows of a matrix in two types."""
    with TemporaryDirectory() as folder:
        W = {"one": heavy((24, 172)), "two": heavy((24, 172), ml_dtypes.bfloat16)}
        save_file(W, Path(folder, "model.safetensors"))
        Path(folder, "config.json").write_text("{}")
        return [repr(row) for tensor in stored_tensors(folder) for row in tensor_rows(tensor)]


def of_moments() -> list[str]:
    """Of H: its trace and ‖H‖², from float32 products, which sum in an order that depends on the threads."""
    checkpoint = open_checkpoint("embedded")
    windows = cut_windows(read_tokens("calibration", load_tokenizer("embedded")), 64).take(4)
    moments = second_moments(checkpoint, windows)
    H = {weight.name: moments[weight] for weight in checkpoint.layer(1)}
    return [f"{name} {float(A.trace())!r} {float((A**2).sum())!r}" for name, A in H.items()]


if __name__ == "__main__":
    print(*of_quantizers(), "", *of_census(), "", *of_moments(), sep="\n")
