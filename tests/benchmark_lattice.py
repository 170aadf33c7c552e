"""Lattice codes: how fast the nearest point is found on one core, beside peers, and what the codes reach.

    python tests/benchmark_lattice.py [table.json]

The peer of the E8 decoder is the algorithm of Conway and Sloane (1982) in vectorised NumPy: the nearest points of D8
and of D8 + ½, and the better of them.  The peers of the search of a codebook are a product of matrices with all
65,536 codewords, and scipy's k-d tree.  The codes are measured on a million samples of N(0, 1), all bits counted.
"""

import json
import os
import sys
import time

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[threads] = "1"

import numpy as np  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402

from rdlib.measure import measure  # noqa: E402
from rdlib.quantizers import A2, D4, E8, E8P, LEECH, LatticeBall, LatticeCoded, ShapeGain  # noqa: E402
from rdlib.quantizers.lattice.e8p import e8p_codebook  # noqa: E402
from rdlib.theory.gaussian import to_db  # noqa: E402
from rdlib.theory.high_resolution import NORMALIZED_SECOND_MOMENTS, space_filling_loss_db  # noqa: E402

LIMITS = {"E8": 20.0, "Leech": 3.0}  # million weights a second of processor time
E8P_SCALE = 0.97  # about the best on N(0, 1)


def nearest_d8(points: np.ndarray) -> np.ndarray:
    """Of integers with an even sum, in NumPy: round, and where the sum is odd round the worst the other way."""
    x = np.rint(points)
    odd = np.flatnonzero(x.sum(axis=1) % 2)
    error = points[odd] - x[odd]
    worst = np.abs(error).argmax(axis=1)
    x[odd, worst] += np.where(error[np.arange(len(odd)), worst] > 0, 1, -1)
    return x


def conway_sloane(points: np.ndarray) -> np.ndarray:
    """The nearest point of E8 = D8 ∪ (D8 + ½), in NumPy."""
    a, b = nearest_d8(points), nearest_d8(points - 0.5) + 0.5
    better = ((points - b) ** 2).sum(axis=1) < ((points - a) ** 2).sum(axis=1)
    return np.where(better[:, None], b, a)


def by_force(points: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Index of the nearest codeword, from the products with all of them."""
    half = (words**2).sum(axis=1) / 2
    return np.concatenate([(half - block @ words.T).argmin(axis=1) for block in np.split(points, 20)])


def best_of(runs: int, function: object, *arguments: object) -> float:
    """Least seconds of processor time of several calls."""
    seconds = []
    for _ in range(runs):
        begin = time.process_time()
        function(*arguments)
        seconds.append(time.process_time() - begin)
    return min(seconds)


def decoder_table() -> list[dict]:
    """Million weights a second of each decoder."""
    rows = []
    for lattice in (LEECH, A2, D4, E8):
        points = 3 * np.random.default_rng(0).standard_normal(
            (960_000 // lattice.dimension, lattice.dimension)
        )
        lattice.nearest(points[:8])  # compile
        seconds = best_of(7, lattice.nearest, points)
        rows.append({"decoder": lattice.name, "million_weights_per_second": points.size / seconds / 1e6})
    seconds = best_of(3, conway_sloane, points)
    rows.append({"decoder": "E8 in NumPy", "million_weights_per_second": points.size / seconds / 1e6})
    return rows


def search_table() -> list[dict]:
    """Microseconds a run of 8 weights for the nearest of the 65,536 codewords of E8P."""
    book = e8p_codebook()
    points = np.random.default_rng(0).standard_normal((2000, 8)) / E8P_SCALE
    tree = cKDTree(book.vectors)
    book.nearest(points[:8])  # compile
    ways = {
        "tree of coordinates": book.nearest,
        "k-d tree": lambda p: tree.query(p)[1],
        "matrix product": lambda p: by_force(p, book.vectors),
    }
    distances = [((points - book.vectors[way(points)]) ** 2).sum(axis=1) for way in ways.values()]
    assert all(np.allclose(found, distances[0], atol=1e-9) for found in distances), "all are exact"
    return [
        {"search": name, "microseconds": 1e6 * best_of(3, way, points) / len(points)}
        for name, way in ways.items()
    ]


def ladder() -> list[dict]:
    """What each code reaches on a million samples: D·4^(R − 2), the gap to D(R), and what theory says of it."""
    W = np.random.default_rng(0).standard_normal((1000, 1008)).astype(np.float32)
    codes = [LatticeCoded(bits, lattice) for lattice in (A2, D4, E8, LEECH) for bits in (2, 3, 4)]
    codes += [
        E8P(),
        *(ShapeGain(gain_bits=b) for b in (0, 1, 2, 4)),
        *(LatticeBall(bits, E8) for bits in (1, 2)),
    ]
    codes += [LatticeBall(bits, D4) for bits in range(1, 5)] + [LatticeBall(bits, A2) for bits in range(1, 9)]
    rows = []
    for quantizer in codes:
        point = measure(W, quantizer)
        row = {"method": point.method, "rate": point.rate, "mse": point.mse}
        row["mse_at_2_bits"] = point.mse * 4 ** (point.rate - 2)
        row["gap_db"] = float(to_db(point.nmse * 4**point.rate))
        if isinstance(quantizer, LatticeCoded):
            row["theory_db"] = float(space_filling_loss_db(NORMALIZED_SECOND_MOMENTS[quantizer.lattice.name]))
        rows.append(row)
    return rows


def main() -> None:
    """Print the tables and, where a path is given, write them as JSON; exit 1 where the limit is missed."""
    table = {"decoders": decoder_table(), "searches": search_table(), "ladder": ladder(), "limits": LIMITS}
    speeds = {row["decoder"]: row["million_weights_per_second"] for row in table["decoders"]}
    table["ratio"] = speeds["E8"] / speeds["E8 in NumPy"]
    for row in table["decoders"]:
        print(f"{row['decoder']:20} {row['million_weights_per_second']:7.1f} million weights/s on one core")
    print(f"E8 is {table['ratio']:.0f} times as fast as NumPy; limits {LIMITS} million weights/s")
    for row in table["searches"]:
        print(f"{row['search']:20} {row['microseconds']:7.1f} µs a run of 8, nearest of 65,536")
    for row in table["ladder"]:
        theory = f", theory {row['theory_db']:.3f}" if "theory_db" in row else ""
        print(f"{row['method']:20} R {row['rate']:.4f}  D {row['mse']:.5f}  ", end="")
        print(f"D·4^(R−2) {row['mse_at_2_bits']:.5f}  {row['gap_db']:.3f} dB from D(R){theory}")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)
    sys.exit(any(speeds[name] < limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    main()
