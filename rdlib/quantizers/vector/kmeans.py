"""k-means on ever larger samples of the vectors, by faiss, and in the plane by a search of our own."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss
import numpy as np

from rdlib.quantizers.vector.plane import lloyd_in_plane, nearest_in_plane

WORK = 8_000_000_000  # distances that a stage may compute
ENOUGH = 10  # iterations, below which a larger sample does not pay
STAGES = (1 << 16, 1 << 18, 1 << 20)  # vectors of each stage
STARTS = 8  # random beginnings at most
TRIED = 12  # iterations after which the best beginning is known well enough
SMALL = 1 << 22  # distances, below which one thread is faster than many
FEWEST = 39  # vectors a centroid, faiss's own advice


def centroids(vectors: np.ndarray, entries: int) -> np.ndarray:
    """At most ``entries`` vectors of (nearly) least mean squared distance to the given ones, float32 (n, d).

    The first stage begins at random vectors, several times where that is cheap, and the best goes on, on ever
    larger samples.  A codebook has no more entries than there are different vectors.

    Args:
        vectors: float32 (n, d).
        entries: wanted of the codebook.

    References:
        Lloyd 1982, doi:10.1109/TIT.1982.1056489; faiss: Douze et al. 2024, arXiv:2401.08281.
    """
    order = np.random.default_rng(0).permutation(len(vectors))
    found = None
    for count, iterations in _stages(len(vectors), entries):
        sample = vectors[order[:count]]
        if found is None:
            different = np.unique(sample, axis=0) if len(sample) <= 4 * entries else _some_of(sample, entries)
            if len(different) <= entries:
                return different
        elif vectors.shape[1] == 2:
            found = lloyd_in_plane(sample, found, iterations)
            continue
        kmeans = faiss.Kmeans(
            vectors.shape[1],
            entries,
            niter=iterations,
            nredo=_starts(count * entries * iterations) if found is None else 1,
            seed=0,
            min_points_per_centroid=1,
            max_points_per_centroid=len(vectors),
        )
        with _threads(len(sample) * entries):
            kmeans.train(sample, init_centroids=found)
        found = kmeans.centroids
    return found if found is not None else vectors[:0]


def _stages(count: int, entries: int) -> Iterator[tuple[int, int]]:
    """Size of the sample and number of iterations of each stage."""
    first = min(max(min(STAGES[0], WORK // (ENOUGH * entries)), FEWEST * entries), count)
    if count:
        yield first, TRIED
    for size in sorted({first, *(min(size, count) for size in STAGES[1:])}):
        iterations = min(WORK // (size * entries or 1), 100)
        if count and (size == first or (size > first and iterations >= ENOUGH)):
            yield size, max(iterations, ENOUGH)


def _starts(distances: int) -> int:
    """How often to begin anew: as often as a part of the work of one stage allows."""
    return int(np.clip(WORK // (8 * distances), 1, STARTS))


def _some_of(vectors: np.ndarray, entries: int) -> np.ndarray:
    """All different vectors if they are no more than ``entries``, else more than that."""
    first = np.unique(vectors[: 4 * entries], axis=0)
    return first if len(first) > entries else np.unique(vectors, axis=0)


def nearest(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """Index of the entry of least squared distance to each vector, int64 (n,).

    Args:
        vectors: float32 (n, d).
        codebook: float32 (k, d).
    """
    if vectors.shape[1] == 2:
        return nearest_in_plane(np.ascontiguousarray(vectors), codebook)
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(codebook)
    if not len(vectors):
        return np.empty(0, np.int64)
    with _threads(len(vectors) * len(codebook)):
        return index.search(vectors, 1)[1][:, 0]


@contextmanager
def _threads(distances: int) -> Iterator[None]:
    """On small problems faiss's threads only wait for each other: one is faster."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before if distances > SMALL else 1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
