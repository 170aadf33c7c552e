"""The census against reading the file, against the seed notebook and against other packages, in one run.

    python tests/benchmark_census.py FOLDER [table.json]

FOLDER takes random checkpoints of 0.1, 0.3 and 1.2 billion weights, 3.3 GB, that are made where they are missing.
Every time is the median of runs that alternate with those of the peer.  The seed notebook's functions are done
here with vectorised NumPy, see ``benchmark_lloyd_max``; where its quantizers have 2^b + 1 levels, so have they here.
"""

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import faiss
import ml_dtypes
import numpy as np
import torch
from benchmark_lloyd_max import assign, seed_lloyd_max
from peers import as_tensor, bitsandbytes_4bit
from random_checkpoint import write_checkpoint

from rdlib.census import census, stored_tensors
from rdlib.census.grouped import uniform_errors
from rdlib.census.scalar import scalar_points
from rdlib.census.tensors import histogram_of
from rdlib.histogram import Histogram, lloyd_max
from rdlib.quantizers import FP4, NF4

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (128, 32)
SIZES = {"0.1 B": (1, 16032), "0.3 B": (4, 32064), "1.2 B": (16, 128256)}  # layers, vocabulary


def times(rounds: int, *functions: Callable[[], object]) -> list[float]:
    """Median seconds of each function, called in turns."""
    seconds = [[] for _ in functions]
    for _ in range(rounds):
        for function, clock in zip(functions, seconds, strict=True):
            begin = time.perf_counter()
            function()
            clock.append(time.perf_counter() - begin)
    return [median(clock) for clock in seconds]


def row(what: str, ours: float, peer: float, limit: float, unit: str = "s") -> dict:
    """``ratio`` = peer / ours, which should be ``limit`` at least."""
    return {"what": what, "ours": ours, "peer": peer, "ratio": peer / ours, "limit": limit, "unit": unit}


def read_and_sum(folder: Path) -> int:
    """What the census is held against: every byte once, as 16-bit integers."""
    return int(np.memmap(folder / "model.safetensors", np.uint16, "r").sum(dtype=np.uint64))


def run_census(folder: Path, grouped: bool, jobs: int = -1) -> None:
    """A census from nothing."""
    with tempfile.TemporaryDirectory() as out:
        census(folder, out, grouped=grouped, jobs=jobs)


def checkpoints(folder: Path) -> list[dict]:
    """The census of each size."""
    made = {}
    for name, (layers, vocabulary) in SIZES.items():
        made[name] = folder / name.replace(" ", "")
        if not (made[name] / "model.safetensors").exists():
            write_checkpoint(made[name], layers, vocabulary)
    weights = {n: sum(np.prod(t.shape) for t in stored_tensors(f)) for n, f in made.items()}
    small, large = made["0.1 B"], made["1.2 B"]
    read_and_sum(large)  # into the page cache
    run_census(small, True)  # compiles, and starts the processes
    scalar, read = times(3, lambda: run_census(large, False), lambda: read_and_sum(large))
    per_weight = {"1.2 B": 0.0}
    for name in SIZES:
        (whole,) = times(1, lambda name=name: run_census(made[name], True))
        per_weight[name] = whole / weights[name]
    one, two = times(1, lambda: run_census(small, True, 1), lambda: run_census(small, True, 2))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return [
        row("census from histograms / read and sum, 1.2 B", scalar, read, 1 / 8),
        row("… with rows and groups / that", per_weight["1.2 B"] * weights["1.2 B"], scalar, 1 / 3),
        row(
            "time per weight, 1.2 B / 0.1 B", per_weight["1.2 B"], per_weight["0.1 B"], 1 / 1.3, "s a weight"
        ),
        row(
            "time per weight, 0.3 B / 0.1 B", per_weight["0.3 B"], per_weight["0.1 B"], 1 / 1.3, "s a weight"
        ),
        row("two processes / one", two, one, 1.8),
        row("largest process / 1.5 GB", peak, 1.5, 1, "GiB"),
    ]


def seed_uniform(x: np.ndarray, bits: int, largest: np.ndarray) -> np.ndarray:
    """The seed's symmetric quantizer: round(x / scale), scale = 2·max / (2^b − 1)."""
    scale = 2 * largest / (2**bits - 1)
    return np.round(x / scale) * scale


def seed_sweep(x: np.ndarray) -> dict[tuple[str, int], tuple[float, int]]:
    """The seed's six methods at all of ``BITS``: the MSE, and how many levels there are to a scale."""
    found, low, sigma = {}, x.min(), x.std()
    for bits in BITS:
        step = (x.max() - low) / (2**bits - 1)
        found["asymmetric", bits] = (error(x, np.round((x - low) / step) * step + low), 2**bits)
        found["symmetric", bits] = (error(x, seed_uniform(x, bits, np.abs(x).max())), 2**bits + 1)
        clipped = np.clip(x, -3 * sigma, 3 * sigma)
        found["clipped", bits] = (error(x, seed_uniform(clipped, bits, 3 * sigma)), 2**bits + 1)
        for size in GROUPS:
            groups = x.reshape(-1, size)
            decoded = seed_uniform(groups, bits, np.abs(groups).max(axis=1, keepdims=True))
            found[f"g{size}", bits] = (error(groups, decoded), 2**bits + 1)
        levels = seed_lloyd_max(x, bits)
        found["Lloyd–Max", bits] = (error(x, levels[assign(x, levels)]), 2**bits)
    return found


def error(x: np.ndarray, decoded: np.ndarray) -> float:
    """D."""
    return float(np.mean((x - decoded) ** 2, dtype=np.float64))


def our_sweep(W: np.ndarray) -> tuple[list[dict], np.ndarray]:
    """The same methods at the same rates, and one more."""
    levels = np.array([1 << b for b in BITS])
    errors = uniform_errors(W.view(np.uint16), np.array(GROUPS), levels)[0]
    return scalar_points(W, histogram_of(W), coded=False, bits=BITS), errors


def least_error(W: np.ndarray, method: str, levels: int) -> float:
    """Our D with so many levels to a scale: the optimal ones of a tensor, even ones of a group."""
    if method.startswith("g"):
        sums = uniform_errors(W.view(np.uint16), np.array([int(method[1:])]), np.array([levels]))[0]
        return float(sums.sum() / W.size)
    histogram = histogram_of(W)
    optimum = lloyd_max(histogram, levels)
    return histogram.mean_of((histogram.values - optimum[assign(histogram.values, optimum)]) ** 2)


def eager(W: torch.Tensor) -> torch.Tensor:
    """Four bits per group of 128 and its squared error, in torch."""
    groups = W.float().reshape(-1, 128)
    scale = groups.abs().amax(1, keepdim=True).half().float()
    q = torch.clamp(torch.floor((groups + scale) * (7.5 / scale) + 0.5), 0, 15)
    return ((groups - scale * (q / 7.5 - 1)) ** 2).sum()


def group_pass(W: np.ndarray, bits: tuple[int, ...] = (4,)) -> float:
    """The same, ours, at each of ``bits``."""
    levels = np.array([1 << b for b in bits])
    return uniform_errors(W.view(np.uint16), np.array([128]), levels)[0].sum()


def matrix(W: np.ndarray) -> list[dict]:
    """One 2048 × 8192 matrix against the seed and other packages."""
    group_pass(W[:64]), our_sweep(W[:64])
    eight = tuple(range(1, 9))
    tensor = as_tensor(W)
    assert abs(group_pass(W) / float(eager(tensor)) - 1) < 1e-4
    ours, theirs = times(5, lambda: group_pass(W), lambda: eager(tensor))
    (read,) = times(5, lambda: W.view(np.uint16).sum(dtype=np.uint64))
    rows = [row("group pass, 4 bits, g128 / torch eager", ours, theirs, 8)]
    rows.append(row("group pass / reading, GB/s", W.nbytes / ours / 1e9, W.nbytes / read / 1e9, 0, "GB/s"))
    try:
        compiled = torch.compile(eager)
        compiled(tensor)
        ours, theirs = times(5, lambda: group_pass(W), lambda: compiled(tensor))
        rows.append(row("group pass / torch.compile", ours, theirs, 3))
        ours, theirs = times(5, lambda: group_pass(W, eight), lambda: [compiled(tensor) for _ in eight])
        rows.append(row("… at 1 … 8 bits / torch.compile eight times", ours, theirs, 3))
    except Exception as error:  # there is no compiler here
        print(f"torch.compile does not run here: {type(error).__name__}", file=sys.stderr)
    wide = W.astype(np.float32)
    for quantizer, kind in ((NF4(), "nf4"), (FP4(), "fp4")):
        decoded, theirs = quantizer.decode(quantizer.encode(wide)), bitsandbytes_4bit(wide, kind, 64)[0]
        assert np.array_equal(decoded, theirs), f"{kind} is not that of bitsandbytes"
        ours, theirs = times(
            3,
            lambda q=quantizer: q.decode(q.encode(wide)),
            lambda k=kind: bitsandbytes_4bit(wide, k, 64),
        )
        rows.append(row(f"{quantizer.method} / bitsandbytes, the same bits", ours, theirs, 1))
    part = wide[:128]
    column = np.ascontiguousarray(part.reshape(-1, 1))
    settings = {"niter": 100, "max_points_per_centroid": part.size, "seed": 0}
    k_means = faiss.Kmeans(1, 16, **settings)
    histogram = Histogram.of(W[:128])
    ours, theirs = times(1, lambda: lloyd_max(Histogram.of(W[:128]), 16), lambda: k_means.train(column))
    rows.append(row("Lloyd–Max, 16 levels / faiss k-means, 1 M weights", ours, theirs, 1))
    levels = lloyd_max(histogram, 16)
    their_levels = np.sort(k_means.centroids[:, 0].astype(np.float64))
    values = part.ravel().astype(np.float64)
    D, theirs = (float(np.mean((values - t[assign(values, t)]) ** 2)) for t in (levels, their_levels))
    rows.append(row("… its distortion", D, theirs, 1 - 1e-6, "MSE"))
    return rows


def sweep(W: np.ndarray) -> list[dict]:
    """The whole scalar sweep of the seed."""
    (ours,) = times(3, lambda: our_sweep(W))
    x = W.astype(np.float32).ravel()
    begin = time.perf_counter()
    theirs = seed_sweep(x)
    seconds = time.perf_counter() - begin
    ratio = min(D / least_error(W, method, levels) for (method, _), (D, levels) in theirs.items())
    return [
        row("six methods × six rates / the seed's", ours, seconds, 300),
        row("… least ratio of distortions at equal numbers of levels", 1.0, ratio, 1, "×"),
    ]


def main() -> None:
    """Print the table and, where a path is given, write it as JSON; exit 1 where a limit is missed."""
    W = (np.random.default_rng(0).standard_t(5, (2048, 8192)) * 0.02).astype(ml_dtypes.bfloat16)
    table = []
    print(f"{'ours / peer':58} {'ours':>10} {'peer':>10} {'ratio':>8} {'limit':>7}")
    for part in (lambda: matrix(W), lambda: checkpoints(Path(sys.argv[1])), lambda: sweep(W)):
        for line in part():
            table.append(line)
            print(
                f"{line['what']:58} {line['ours']:10.3g} {line['peer']:10.3g} {line['ratio']:8.3g} "
                f"{line['limit']:7.3g}  {line['unit']}",
                flush=True,
            )
        if len(sys.argv) > 2:
            Path(sys.argv[2]).write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
    sys.exit(any(line["ratio"] < line["limit"] for line in table))


if __name__ == "__main__":
    main()
