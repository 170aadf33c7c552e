"""Search for convolutional codes of many states whose trellises quantize well: the parity checks in ``ungerboeck.py``.

    python -m rdlib.tools.trellis_search 1024

Ungerboeck's tables end at 256 states, and are made for channels.  Of random pairs h⁰ = 1…1, h¹ = 0…0 (so that two
subsets two apart leave and reach every state), those of least error on a uniform source win; no structure is known that
does better than chance.
"""

import sys

import numpy as np

from rdlib.quantizers.trellis.ungerboeck import subsets_of_checks
from rdlib.quantizers.trellis.viterbi import LANES, best_paths

CANDIDATES, SHORT, FINALISTS, LONG = (
    200,
    512,
    8,
    8192,
)  # pairs and steps of the first round, and of the second


def loss(h0: int, h1: int, steps: int, seed: int = 0) -> float:
    """Bits above D(R) at high rate: ½·log₂(2πe·D / cell²), of a code on a uniform source of 32 sequences."""
    subset = subsets_of_checks(h0, h1)
    x = np.random.default_rng(seed).uniform(0, 64, (LANES, steps, 1)) - np.arange(4)
    errors = x - 4 * np.rint(x / 4)
    paths = best_paths(errors, subset, np.zeros(len(subset)), 1)
    chosen = np.take_along_axis(errors, subset[paths][..., None], axis=2)
    return float(np.log2(2 * np.pi * np.e * (chosen**2).mean() / 4) / 2)


def search(states: int, seed: int = 0) -> tuple[float, int, int]:
    """The least loss, and the checks h⁰ and h¹ that have it."""
    random = np.random.default_rng(seed)
    inner = random.integers(0, states >> 1, (CANDIDATES, 2))
    pairs = [(states | int(a) << 1 | 1, int(b) << 1) for a, b in inner]
    best = sorted((loss(*pair, SHORT), *pair) for pair in pairs)[:FINALISTS]
    return min((loss(*pair, LONG, seed=1), *pair) for _, *pair in best)


if __name__ == "__main__":
    found, h0, h1 = search(int(sys.argv[1]))
    print(f"{sys.argv[1]} states: {found:.4f} bit above D(R), h0 = 0o{h0:o}, h1 = 0o{h1:o}")
