"""The engine on the CPU and on CUDA: the same results, and how long each takes.

    python tests/device_table.py [--devices cpu cuda]

The model in the package, and a random checkpoint with two layers of the shapes of Llama-3.2-1B; in less than five
minutes.  Relative differences from the first device: H must agree to 1e-4, rates and errors to 1e-3, and KL within its
standard error.  Roundings of GPTQ flip where two levels are equally near, so its errors agree less than those of
rounding; ``worst`` is the matrix that differs most.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from random_checkpoint import write_checkpoint

from rdlib.engine import Variant, second_moments, walk
from rdlib.models import Checkpoint, open_checkpoint
from rdlib.network import Windows, cut_windows
from rdlib.quantizers import GPTQ, PerGroup, UniformAsymmetric

GRID = UniformAsymmetric(3, PerGroup(size=128))
QUANTIZERS = {"rounding": GRID, "GPTQ": GPTQ(GRID)}
COLUMNS = ["rate", "output error", "worst", "KL", "in errors"]


def on(device: str, checkpoint: Checkpoint, texts: list[Windows]) -> dict:
    """Seconds, H of the first layer, rows and divergences."""
    names = [w.name for w in checkpoint.weights if w.layer >= 0]
    variants = [Variant.by(label, names, quantizer) for label, quantizer in QUANTIZERS.items()]
    start = time.perf_counter()
    found = walk(checkpoint, variants, *texts, device=device)
    seconds = time.perf_counter() - start
    moments = second_moments(checkpoint, texts[0], [0], device).inputs
    return {
        "seconds": seconds,
        "H": moments,
        "points": {v.label: found.of(v) for v in variants},
        "outputs": found.outputs,
    }


def apart(one: dict, other: dict, label: str) -> list[float]:
    """Relative differences of a variant: largest of the rates, of all errors, of one error, and KL, also in errors."""
    ours, theirs = (result["points"][label] for result in (one, other))
    rate, worst = (abs(theirs[c].to_numpy() / ours[c].to_numpy() - 1).max() for c in ("rate", "output"))
    a, b = (result["outputs"][label].kl for result in (one, other))
    total = abs(theirs.output.sum() / ours.output.sum() - 1)
    return [rate, total, worst, abs(b.mean / a.mean - 1), abs(b.mean - a.mean) / a.error]


def table(checkpoint: Checkpoint, texts: list[Windows], devices: list[str]) -> pd.DataFrame:
    """A row a device and variant: seconds of both variants, and the differences from the first device."""
    results = {device: on(device, checkpoint, texts) for device in devices}
    first, rows = results[devices[0]], []
    for device, result in results.items():
        H = max(np.linalg.norm(result["H"][n] - H) / np.linalg.norm(H) for n, H in first["H"].items())
        shared = {"device": device, "seconds": result["seconds"], "H": H}
        rows += [
            shared | {"variant": label} | dict(zip(COLUMNS, apart(first, result, label), strict=True))
            for label in QUANTIZERS
        ]
    return pd.DataFrame(rows).set_index(["device", "variant"])


def random_texts(vocabulary: int, *windows: int, length: int = 256) -> list[Windows]:
    """A text of random tokens for each number of windows."""
    random = np.random.default_rng(0)
    return [cut_windows(random.integers(0, vocabulary, count * length + 1), length) for count in windows]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    devices = parser.parse_args().devices
    embedded = open_checkpoint("embedded")
    print("the model in the package")
    print(table(embedded, random_texts(embedded.config["vocab_size"], 8, 8), devices).to_string())
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_checkpoint(Path(temporary) / "model", layers=2)
        print("two layers of the shapes of Llama-3.2-1B")
        print(table(open_checkpoint(folder), random_texts(128256, 32, 4), devices).to_string())
