"""How long the explorer takes from a moved slider to new numbers and a new figure.

    python tests/benchmark_explorer.py [table.json]

A matrix of 2048 × 8192 in bfloat16, every family with one scale for the tensor, 20 updates each: the bits slider
to and fro, and the clip slider to values never seen before.  The limit is that of the issue, 100 ms.
"""

import json
import sys
import time
from itertools import cycle, islice
from statistics import median

import ml_dtypes
import numpy as np

from rdlib.explorer import CHOICES, Picture, Subject, with_clip
from rdlib.explorer.widget import table_of
from rdlib.quantizers import Quantizer
from rdlib.quantizers.scalar.level_table import has_level_table

UPDATES = 20
LIMIT = 0.1  # seconds, the median
SHAPE = (2048, 8192)


def update(subject: Subject, picture: Picture, quantizer: Quantizer) -> float:
    """Seconds from a quantizer to its numbers and its figure, as the widget is given them."""
    begin = time.perf_counter()
    picture.png(quantizer)
    table_of(subject.readout(quantizer))
    return time.perf_counter() - begin


def moves(quantizer: Quantizer) -> list[Quantizer]:
    """The quantizer at 20 positions of the bits slider."""
    bits = islice(cycle([5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 4]), UPDATES)
    return [quantizer.at(b) for b in bits]


def main() -> None:
    """Print the table and, where a path is given, write it as JSON; exit 1 where the limit is missed."""
    W = (np.random.default_rng(0).standard_t(5, SHAPE) * 0.02).astype(ml_dtypes.bfloat16)
    families = {name: quantizer for name, quantizer in CHOICES.items() if has_level_table(quantizer)}
    warm = Subject("warm", W[:8])
    warm.prepare(families.values())  # compile
    Picture(warm)

    begin = time.perf_counter()
    subject = Subject("t5", W)
    subject.prepare(families.values())
    picture = Picture(subject)
    opened = time.perf_counter() - begin

    rounds = {name: moves(quantizer) for name, quantizer in families.items()}
    clipped = CHOICES["uniform, clipped at kσ"]
    rounds["  its clip slider"] = [with_clip(clipped, 1.05 + 0.3 * k) for k in range(UPDATES)]
    rows = []
    for name, quantizers in rounds.items():
        seconds = [update(subject, picture, quantizer) for quantizer in quantizers]
        rows.append({"family": name, "median": median(seconds), "worst": max(seconds)})
        print(f"{name:26} median {1e3 * rows[-1]['median']:5.1f} ms, worst {1e3 * rows[-1]['worst']:5.1f} ms")
    ours = max(row["median"] for row in rows)
    print(f"opening the matrix: {opened:.1f} s")
    print(f"slowest median {1e3 * ours:.0f} ms, limit {1e3 * LIMIT:.0f} ms, ratio {ours / LIMIT:.2f}")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"rows": rows, "opened": opened, "limit": LIMIT, "ratio": ours / LIMIT}, file, indent=1)
    sys.exit(ours > LIMIT)


if __name__ == "__main__":
    main()
