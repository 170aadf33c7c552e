"""The engine on random checkpoints of the shapes of Llama: time and peak memory of one walk.

    python tests/benchmark_engine.py [shape ...] [--tokens 2048] [--variants 10] [--device cuda]

Moments of a text, ten variants of all matrices and their divergences on another, of so many tokens each.  Every shape
has a process of its own.  A line a layer gives the seconds since the start, those of the processor, and the peak
resident size, which must not grow with the layers.  The last layer's time says how long the whole model takes.
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
import torch
from random_checkpoint import write_checkpoint

from rdlib.engine import Progress, Variant, walk
from rdlib.models import open_checkpoint
from rdlib.network import cut_windows
from rdlib.quantizers import PerGroup, UniformAsymmetric

SHAPES = {  # layers, vocabulary, hidden, inner, outputs of k and v; the memory that is allowed, in GB; and all layers
    "1b": ((16, 128256, 2048, 8192, 512), 5, 16),
    "1b, 2 layers": ((2, 128256, 2048, 8192, 512), 5, 16),
    "8b, 2 layers": ((2, 128256, 4096, 14336, 1024), 11, 32),
    "8b, 4 layers": ((4, 128256, 4096, 14336, 1024), 11, 32),
}
WINDOW = 512


class Lines:
    """Prints a line whenever a layer has been passed."""

    def __init__(self):
        self.layer, self.start, self.ends = 0, time.perf_counter(), []

    def __call__(self, progress: Progress) -> None:
        if progress.layer > self.layer:
            self.layer = progress.layer
            self.end(f"layer {self.layer} of {progress.layers}, {progress.left:6.0f} s left,")

    def end(self, what: str) -> float:
        """Seconds since the start."""
        seconds = time.perf_counter() - self.start
        self.ends.append(seconds)
        on_device = f", {torch.cuda.max_memory_allocated() / 1e9:.2f} on the GPU" * torch.cuda.is_available()
        spent = f"{seconds:6.0f} s, processor {time.process_time():6.0f} s"
        print(f"  {what} {spent}, peak {peak():.2f} GB{on_device}", flush=True)
        return seconds


def peak() -> float:
    """Peak resident size of this process in GB; pages of mapped files count."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure(shape: str, folder: Path, tokens: int, count: int, device: str) -> None:
    """One walk; prints a line a layer, and one for all."""
    sizes, allowed, layers = SHAPES[shape]
    random = np.random.default_rng(0)
    texts = [cut_windows(random.integers(0, sizes[1], tokens + 1), WINDOW) for _ in range(2)]
    checkpoint = open_checkpoint(folder)
    names = [w.name for w in checkpoint.weights if w.layer >= 0]
    quantizers = [UniformAsymmetric(b, PerGroup(size=n)) for b in (2, 3, 4, 5, 6) for n in (64, 128)][:count]
    variants, lines = [Variant.by(q, names, q) for q in quantizers], Lines()
    found = walk(checkpoint, variants, *texts, device=device, progress=lines)
    assert len(found.outputs) == count and len(found.points) == count * len(names)
    seconds = lines.end(f"{shape}, {tokens} tokens, {count} variants:")
    a_layer = np.diff(lines.ends[: sizes[0]]).mean()
    whole = seconds + (layers - sizes[0]) * a_layer
    print(
        f"  a layer takes {a_layer:.0f} s, so {layers} layers and the head take {whole / 3600:.1f} hours",
        flush=True,
    )
    if peak() > allowed:
        sys.exit(f"{shape} takes {peak():.2f} GB, more than {allowed}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--variants", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        measure(*options.shapes, options.folder, options.tokens, options.variants, options.device)
    for name in [] if options.folder else options.shapes:
        with tempfile.TemporaryDirectory() as temporary:
            written = write_checkpoint(Path(temporary) / "model", *SHAPES[name][0])
            passed = [f"--{key}={getattr(options, key)}" for key in ("tokens", "variants", "device")]
            command = [sys.executable, __file__, name, *passed, f"--folder={written}"]
            subprocess.run(command, check=True, env=os.environ)
