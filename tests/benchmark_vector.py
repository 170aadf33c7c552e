"""Vector and trellis quantizers: k-means beside plain faiss and scikit-learn, and the price of a trellis state.

    python tests/benchmark_vector.py [table.json]

k-means: 256 entries for runs of 4 weights of a 2048 × 8192 Gaussian matrix, fit and assignment.  "Plain" is what a
user would write first.  The time limit compares with the fastest peer whose error is no larger than ours; the error
limit with full-batch Lloyd iterations until nothing moves any more (a relative gain below 1e-5).

Trellis: nanoseconds a weight of the Viterbi search, by states and by cores, on one million weights.
"""

import json
import sys
import time
from collections.abc import Callable

import faiss
import numba
import numpy as np
from sklearn.cluster import KMeans

from rdlib.measure import measure
from rdlib.quantizers import BitshiftTrellis, TrellisCoded, VectorQuantizer
from rdlib.quantizers.vector.kmeans import centroids
from rdlib.quantizers.vector.lloyd import nearest

SHAPE, DIMENSION, ENTRIES = (2048, 8192), 4, 256
MSE_LIMIT = 1.005  # of ours over converged Lloyd
STATE_LIMIT = 100.0  # ns a weight and core, 256 states
QUALITY_LIMIT = 0.0975  # D·4^(R−2) of k-means d = 4 at 2 bits, codebook counted
CORES_LIMIT = 1.8  # of two cores over one


def ours(vectors: np.ndarray) -> np.ndarray:
    return centroids(vectors, ENTRIES)


def plain_faiss(vectors: np.ndarray) -> np.ndarray:
    """With its defaults: 25 iterations on a sample of 256 vectors an entry."""
    kmeans = faiss.Kmeans(DIMENSION, ENTRIES)
    kmeans.train(vectors)
    return kmeans.centroids


def whole_faiss(vectors: np.ndarray) -> np.ndarray:
    """The same on all vectors."""
    kmeans = faiss.Kmeans(DIMENSION, ENTRIES, max_points_per_centroid=len(vectors))
    kmeans.train(vectors)
    return kmeans.centroids


def plain_sklearn(vectors: np.ndarray) -> np.ndarray:
    return KMeans(ENTRIES, n_init=1, random_state=0, max_iter=25).fit(vectors).cluster_centers_


def converged_lloyd(vectors: np.ndarray) -> np.ndarray:
    """Full-batch iterations until the error falls by less than 1e-5 of itself in ten of them."""
    found, before = None, np.inf
    while True:
        kmeans = faiss.Kmeans(
            DIMENSION, ENTRIES, niter=10, max_points_per_centroid=len(vectors), min_points_per_centroid=1
        )
        kmeans.train(vectors, init_centroids=found)
        found, error = kmeans.centroids, kmeans.obj[-1]
        if before - error < 1e-5 * error:
            return found
        before = error


def fitted(vectors: np.ndarray, fit: Callable[[np.ndarray], np.ndarray]) -> dict:
    """Seconds of fit and assignment, and the error on all vectors."""
    begin = time.perf_counter()
    book = fit(vectors).astype(np.float32)
    index = nearest(vectors, book)
    seconds = time.perf_counter() - begin
    return {"k-means": fit.__name__, "seconds": seconds, "mse": float(((vectors - book[index]) ** 2).mean())}


def kmeans_table(W: np.ndarray) -> list[dict]:
    vectors = W.reshape(-1, DIMENSION)
    fits = (ours, plain_faiss, whole_faiss, plain_sklearn, converged_lloyd)
    return [fitted(vectors, fit) for fit in fits]


def nanoseconds(quantizer: object, W: np.ndarray, threads: int) -> float:
    """A weight, of encoding; the least of three runs."""
    numba.set_num_threads(threads)
    quantizer.encode(W[:64])  # compile
    seconds = []
    for _ in range(3):
        begin = time.perf_counter()
        quantizer.encode(W)
        seconds.append(time.perf_counter() - begin)
    return 1e9 * min(seconds) / W.size


def trellis_table() -> list[dict]:
    W = np.random.default_rng(1).standard_normal((1024, 1024)).astype(np.float32)
    codes = [TrellisCoded(2, states) for states in (4, 16, 64, 256)]
    codes += [BitshiftTrellis(2, register) for register in (8, 10, 12)]
    rows = []
    for code in codes:
        states = getattr(code, "states", None) or 1 << code.register
        one, two = (nanoseconds(code, W, threads) for threads in (1, 2))
        row = {"trellis": code.method, "states": states, "ns_one_core": one, "cores_gain": one / two}
        rows.append(row | {"ns_a_state": one / states})
    return rows


def main() -> None:
    """Print the tables and, where a path is given, write them as JSON; exit 1 where a limit is missed."""
    W = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    means, trellises = kmeans_table(W), trellis_table()
    own, converged = means[0], means[-1]
    for row in means:
        print(f"{row['k-means']:16} {row['seconds']:7.1f} s   MSE {row['mse']:.5f}")
    peers = [row["seconds"] for row in means[1:-1] if row["mse"] <= own["mse"]]
    point = measure(W, VectorQuantizer(2, DIMENSION))
    checks = {
        "seconds over the fastest peer of no larger error": (
            own["seconds"] / min(peers, default=np.inf),
            1.0,
        ),
        "MSE over converged Lloyd": (own["mse"] / converged["mse"], MSE_LIMIT),
        "D·4^(R−2), codebook counted": (point.nmse * 4 ** (point.rate - 2), QUALITY_LIMIT),
    }
    for row in trellises:
        print(f"{row['trellis']:22} {row['ns_one_core']:7.1f} ns a weight on one core, ", end="")
        print(f"{row['ns_a_state']:.2f} a state, two cores {row['cores_gain']:.2f} × as fast")
    wide = {row["trellis"]: row for row in trellises}["bitshift trellis L=8"]
    checks["ns a weight and core, 256 states at 2 bits"] = (wide["ns_one_core"], STATE_LIMIT)
    checks["one core over two, inverse gain"] = (1 / wide["cores_gain"], 1 / CORES_LIMIT)
    for name, (value, limit) in checks.items():
        print(f"{name}: {value:.4f}, limit {limit:.4f}{'' if value <= limit else '  MISSED'}")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"k-means": means, "trellis": trellises, "checks": checks}, file, indent=1)
    sys.exit(any(value > limit for value, limit in checks.values()))


if __name__ == "__main__":
    main()
