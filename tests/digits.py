"""All digits of what the library computes, printed a line a quantity, for test_determinism.py to compare."""

import hashlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from quantizer_list import COVERED
from safetensors.numpy import save_file
from sources import DTYPES, SOURCES, coded, heavy

from rdlib.census import stored_tensors
from rdlib.census.rows import tensor_rows
from rdlib.checkpoints import IN_THE_BOX, open_quantized
from rdlib.engine import second_moments
from rdlib.histogram import Histogram
from rdlib.measure import measure_code
from rdlib.models import open_checkpoint
from rdlib.network import cut_windows, load_tokenizer, read_tokens
from rdlib.theory import rate_lower_at


def of_quantizers() -> list[str]:
    """Of each quantizer what is measured, and the hash of its file."""
    lines = []
    for q in COVERED:
        code = coded(q, "heavy")
        point = measure_code(SOURCES["heavy"], q, code)
        lines.append(f"{q.method} {point.rate!r} {point.mse!r} {hashlib.sha256(code.to_bytes()).hexdigest()}")
    return lines


def of_census() -> list[str]:
    """All rows of a matrix in every type, and the limits of one."""
    with TemporaryDirectory() as folder:
        W = {dtype.__name__: heavy((24, 172), dtype) for dtype in DTYPES}
        save_file(W, Path(folder, "model.safetensors"))
        Path(folder, "config.json").write_text("{}")
        rows = [repr(row) for tensor in stored_tensors(folder) for row in tensor_rows(tensor)]
    histogram = Histogram.of(W["float16"])
    D = histogram.variance / 4.0 ** np.arange(1, 5)
    return [*rows, *(repr(rate_lower_at(histogram.values, histogram.counts, d)) for d in D)]


def of_files() -> list[str]:
    """The hash of a matrix of each quantized checkpoint in the package, decoded."""
    lines = []
    for name in IN_THE_BOX:
        checkpoint = open_quantized(name)
        W = checkpoint.packed(next(iter(checkpoint.linear))).weight
        lines.append(f"{name} {hashlib.sha256(W.tobytes()).hexdigest()}")
    return lines


def of_moments() -> list[str]:
    """Of H: its trace and ‖H‖², from float32 products, which sum in an order that depends on the threads."""
    checkpoint = open_checkpoint("embedded")
    windows = cut_windows(read_tokens("calibration", load_tokenizer("embedded")), 64).take(4)
    moments = second_moments(checkpoint, windows)
    H = {weight.name: moments[weight] for weight in checkpoint.layer(1)}
    return [f"{name} {float(A.trace())!r} {float((A**2).sum())!r}" for name, A in H.items()]


if __name__ == "__main__":
    print(*of_quantizers(), "", *of_census(), "", *of_moments(), "", *of_files(), sep="\n")
