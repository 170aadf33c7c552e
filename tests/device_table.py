"""The engine on the CPU and on CUDA: the same results, and how long each takes.

    python tests/device_table.py [--devices cpu cuda]

The model in the package, and a random checkpoint with two layers of the shapes of Llama-3.2-1B; in less than five
minutes.  H must agree to 1e-4, rates and errors to 1e-3 (single roundings of GPTQ flip), and KL within its error.
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
COLUMNS = ["seconds", "H", "rate", "output error", "KL", "in errors"]


def on(device: str, checkpoint: Checkpoint, texts: list[Windows]) -> dict:
    """Seconds, H of the first layer, rows and divergences."""
    names = [w.name for w in checkpoint.weights if w.layer >= 0]
    variants = [Variant.by(label, names, quantizer) for label, quantizer in QUANTIZERS.items()]
    start = time.perf_counter()
    found = walk(checkpoint, variants, *texts, device=device)
    seconds = time.perf_counter() - start
    moments = second_moments(checkpoint, texts[1], [0], device).inputs
    return {"seconds": seconds, "H": moments, "points": found.points, "outputs": found.outputs}


def apart(one: dict, other: dict) -> list[float]:
    """The largest relative difference of each quantity; that of KL also in its own standard errors."""
    H = max(np.linalg.norm(other["H"][name] - H) / np.linalg.norm(H) for name, H in one["H"].items())
    rows = [abs(other["points"][c] / one["points"][c] - 1).max() for c in ("rate", "output_mse")]
    pairs = [(one["outputs"][label].kl, other["outputs"][label].kl) for label in QUANTIZERS]
    kl = max(abs(b.mean / a.mean - 1) for a, b in pairs)
    return [H, *rows, kl, max(abs(b.mean - a.mean) / a.error for a, b in pairs)]


def table(checkpoint: Checkpoint, texts: list[Windows], devices: list[str]) -> pd.DataFrame:
    """A row a device: seconds, and the differences from the first."""
    results = {device: on(device, checkpoint, texts) for device in devices}
    first = results[devices[0]]
    rows = {device: [result["seconds"], *apart(first, result)] for device, result in results.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


def random_texts(vocabulary: int, windows: int, length: int) -> list[Windows]:
    """Two texts of random tokens."""
    random = np.random.default_rng(0)
    return [cut_windows(random.integers(0, vocabulary, windows * length + 1), length) for _ in range(2)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--devices", nargs="+", default=["cpu", "cuda"])
    devices = parser.parse_args().devices
    embedded = open_checkpoint("embedded")
    print("the model in the package")
    print(table(embedded, random_texts(embedded.config["vocab_size"], 8, 256), devices).to_string())
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_checkpoint(Path(temporary) / "model", layers=2)
        print("two layers of the shapes of Llama-3.2-1B")
        print(table(open_checkpoint(folder), random_texts(128256, 4, 256), devices).to_string())
