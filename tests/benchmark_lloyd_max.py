"""All optimal Lloyd–Max quantizers against the seed's one: time and distortion, in one run.

    python tests/benchmark_lloyd_max.py [table.json]

The seed notebook started 2^b levels at quantiles and iterated 20 times over the whole tensor.  That is done
here with vectorised NumPy (``bincount`` instead of a loop over levels), and shown on a part of the tensor to
reproduce the distortion of the loop that the seed describes.
"""

import json
import sys
import time

import ml_dtypes
import numpy as np

from rdlib.histogram import Histogram, lloyd_max_curve

ITERATIONS = 20
LIMIT = 1 / 100  # of the time of the seed's design at 4 bits, for all of ours at 1 … 8 bits
BITS = range(1, 9)


def assign(values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Index of the nearest level."""
    return np.digitize(values, (levels[1:] + levels[:-1]) / 2)


def start(values: np.ndarray, bits: int) -> np.ndarray:
    """The seed's first levels: quantiles between the extremes."""
    return np.percentile(values, np.linspace(0, 100, 2**bits + 2)[1:-1])


def seed_lloyd_max(values: np.ndarray, bits: int) -> np.ndarray:
    """The seed's levels after 20 iterations, or when nothing moves."""
    levels = start(values, bits)
    for _ in range(ITERATIONS):
        index = assign(values, levels)
        counts = np.bincount(index, minlength=len(levels))
        sums = np.bincount(index, values, len(levels))
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), levels)
        if np.allclose(levels, moved, rtol=1e-6):
            break
        levels = moved
    return levels


def seed_lloyd_max_in_a_loop(values: np.ndarray, bits: int) -> np.ndarray:
    """The same, level by level, as the seed has it."""
    levels = start(values, bits)
    for _ in range(ITERATIONS):
        index = assign(values, levels)
        cells = [values[index == k] for k in range(len(levels))]
        moved = np.array([c.mean() if len(c) else level for c, level in zip(cells, levels, strict=True)])
        if np.allclose(levels, moved, rtol=1e-6):
            break
        levels = moved
    return levels


def mse(values: np.ndarray, levels: np.ndarray) -> float:
    """Mean squared error of rounding to the nearest level."""
    return float(np.mean((values - levels[assign(values, levels)]) ** 2, dtype=np.float64))


def histogram_mse(histogram: Histogram, levels: np.ndarray) -> float:
    """The same, from the histogram."""
    return histogram.mean_of((histogram.values - levels[assign(histogram.values, levels)]) ** 2)


def clock(function: object, *arguments: object) -> tuple[float, object]:
    """Seconds and result of a call."""
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def ours(W: np.ndarray) -> tuple[Histogram, dict[int, np.ndarray]]:
    """The histogram and the optimal levels for every number of bits."""
    histogram = Histogram.of(W)
    return histogram, lloyd_max_curve(histogram, [2**b for b in BITS])


def main() -> None:
    """Print the table and, where a path is given, write it as JSON; exit 1 where the limit is missed."""
    W = (np.random.default_rng(0).standard_t(5, (2048, 8192)) * 0.02).astype(ml_dtypes.bfloat16)
    part, values = W[:32].astype(np.float64).ravel(), W.astype(np.float64).ravel()
    loop, vectorised = (mse(part, f(part, 4)) for f in (seed_lloyd_max_in_a_loop, seed_lloyd_max))
    assert abs(loop / vectorised - 1) < 1e-9, "the vectorised seed is the seed"

    ours(W[:8])  # compile
    seconds = min(clock(ours, W)[0] for _ in range(3))
    histogram, optimum = ours(W)
    rows = [{"method": "exact", "bits": b, "mse": histogram_mse(histogram, optimum[2**b])} for b in BITS]
    seed_seconds, levels = clock(seed_lloyd_max, values, 4)
    seed = {"method": "seed", "bits": 4, "mse": histogram_mse(histogram, levels)}
    seed["over_optimum"] = seed["mse"] / rows[3]["mse"]
    table = {
        "rows": [*rows, seed],
        "exact_all_seconds": seconds,
        "seed_4_bits_seconds": seed_seconds,
        "ratio": seconds / seed_seconds,
        "limit": LIMIT,
    }
    for row in table["rows"]:
        print(f"{row['method']:8} {row['bits']} bits  MSE {row['mse']:.3e}  ", end="")
        print(f"{row.get('over_optimum', 1):.3f} × the optimum")
    print(f"exact, 1 … 8 bits: {seconds:.3f} s; seed, 4 bits: {seed_seconds:.1f} s")
    print(f"ratio {table['ratio']:.5f}, limit {LIMIT}")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)
    sys.exit(table["ratio"] > LIMIT)


if __name__ == "__main__":
    main()
