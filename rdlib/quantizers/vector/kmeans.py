"""k-means on ever larger samples of the vectors."""

from collections.abc import Iterator

import numpy as np

from rdlib.quantizers.vector.lloyd import lloyd

WORK = 8_000_000_000  # distances that a stage may compute
ENOUGH = 10  # iterations, below which a larger sample does not pay
STAGES = (1 << 16, 1 << 18, 1 << 20)  # vectors of each stage
STARTS = 8  # random beginnings at most
TRIED = 12  # iterations after which the best beginning is known well enough
FEWEST = 39  # vectors a centroid, as faiss advises


def centroids(vectors: np.ndarray, entries: int) -> np.ndarray:
    """At most ``entries`` vectors of (nearly) least mean squared distance to the given ones, float32 (n, d).

    The first stage begins at random vectors, several times where that is cheap, and the best goes on, on ever
    larger samples.  A codebook has no more entries than there are different vectors.

    Args:
        vectors: float32 (n, d).
        entries: wanted of the codebook.

    References:
        Lloyd 1982, doi:10.1109/TIT.1982.1056489.
    """
    rng, found = np.random.default_rng(0), None
    order = rng.permutation(len(vectors))
    for count, iterations in _stages(len(vectors), entries):
        sample = vectors[order[:count]]
        if found is not None:
            found, _ = lloyd(sample, found, iterations)
            continue
        different = np.unique(sample, axis=0) if len(sample) <= 4 * entries else _some_of(sample, entries)
        if len(different) <= entries:
            return different
        begun = [
            lloyd(sample, sample[rng.choice(count, entries, replace=False)], iterations)
            for _ in range(_starts(count * entries * iterations))
        ]
        found = min(begun, key=lambda tried: tried[1])[0]
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
