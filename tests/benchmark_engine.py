"""The engine on random checkpoints of the shapes of Llama: time and peak memory of one walk.

    python tests/benchmark_engine.py [shape ...] [--tokens 2048] [--device cuda]

Moments of a text, ten variants of all matrices and their divergences on another, of so many tokens each.  Every shape
has a process of its own, whose peak resident size is printed: memory must not grow with the number of layers.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from random_checkpoint import write_checkpoint

from rdlib.engine import Variant, walk
from rdlib.models import open_checkpoint
from rdlib.network import cut_windows
from rdlib.quantizers import PerGroup, UniformAsymmetric

SHAPES = {  # layers, vocabulary, hidden, inner, outputs of k and v; and the memory that is allowed, in GB
    "1b": ((16, 128256, 2048, 8192, 512), 5),
    "1b, 2 layers": ((2, 128256, 2048, 8192, 512), 5),
    "8b, 2 layers": ((2, 128256, 4096, 14336, 1024), 11),
    "8b, 4 layers": ((4, 128256, 4096, 14336, 1024), 11),
}
WINDOW = 512


def measure(shape: str, folder: Path, tokens: int, device: str) -> None:
    """One walk; prints a line."""
    sizes, allowed = SHAPES[shape]
    random = np.random.default_rng(0)
    texts = [cut_windows(random.integers(0, sizes[1], tokens + 1), WINDOW) for _ in range(2)]
    checkpoint = open_checkpoint(folder)
    names = [w.name for w in checkpoint.weights if w.layer >= 0]
    quantizers = [UniformAsymmetric(b, PerGroup(size=n)) for b in (2, 3, 4, 5, 6) for n in (64, 128)]
    start = time.perf_counter()
    found = walk(checkpoint, [Variant.by(q, names, q) for q in quantizers], *texts, device=device)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    assert len(found.outputs) == len(quantizers) and len(found.points) == len(quantizers) * len(names)
    print(
        f"{shape:14} {tokens:6} tokens: {seconds:6.0f} s, peak {peak:.2f} GB (allowed: {allowed} GB)",
        flush=True,
    )
    if peak > allowed:
        sys.exit(f"{shape} takes {peak:.2f} GB, more than {allowed}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        measure(*options.shapes, options.folder, options.tokens, options.device)
    for name in [] if options.folder else options.shapes:
        with tempfile.TemporaryDirectory() as temporary:
            written = write_checkpoint(Path(temporary) / "model", *SHAPES[name][0])
            arguments = [
                name,
                "--tokens",
                str(options.tokens),
                "--device",
                options.device,
                "--folder",
                str(written),
            ]
            subprocess.run([sys.executable, __file__, *arguments], check=True, env=os.environ)
