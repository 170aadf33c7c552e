"""How long the explorer takes from a moved slider to new numbers and a new figure.

    python tests/benchmark_explorer.py [table.json]

A matrix of 2048 × 8192 in bfloat16.  Every family with one scale for the tensor, 20 updates each: the bits slider to
and fro, and the clip slider to values never seen before; the limit is 100 ms.  Groups need the matrix itself: their
first answer, at each size never seen before, is from a sample of its rows; the limit is 300 ms, and what the exact
numbers take, which follow, is printed beside it.  So is the first answer of the lattice and of the trellis, without a
limit.
"""

import json
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from statistics import median

import ml_dtypes
import numpy as np

from rdlib.explorer import CHOICES, Picture, Subject, with_clip, with_group
from rdlib.explorer.controls import group
from rdlib.explorer.widget import GROUPS, table_of
from rdlib.quantizers import Quantizer
from rdlib.quantizers.scalar.level_table import has_level_table

UPDATES = 20
AT_ONCE, AT_FIRST = 0.1, 0.3  # seconds, the median: of an update, and of one from a sample
SHAPE = (2048, 8192)


def seconds_of(act: Callable, *arguments: object) -> float:
    """Seconds that a call takes."""
    begin = time.perf_counter()
    act(*arguments)
    return time.perf_counter() - begin


def update(subject: Subject, picture: Picture, quantizer: Quantizer) -> None:
    """From a quantizer to its numbers and its figure, as the widget is given them."""
    picture.png(quantizer)
    table_of({"now": subject.readout(quantizer)})


def moves(quantizer: Quantizer) -> list[Quantizer]:
    """The quantizer at 20 positions of the bits slider."""
    bits = islice(cycle([5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1, 2, 3, 4]), UPDATES)
    return [quantizer.at(b) for b in bits]


def first_moves(quantizer: Quantizer) -> list[Quantizer]:
    """The quantizer where nothing is at hand: at every size of groups, or once."""
    return [quantizer] if group(quantizer) is None else [with_group(quantizer, size) for size in GROUPS]


def main() -> None:
    """Print the table and, where a path is given, write it as JSON; exit 1 where a limit is missed."""
    W = (np.random.default_rng(0).standard_t(5, SHAPE) * 0.02).astype(ml_dtypes.bfloat16)
    at_once = {name: quantizer for name, quantizer in CHOICES.items() if has_level_table(quantizer)}
    warm = Subject("warm", W[:8])
    for quantizer in CHOICES.values():  # compile
        warm.curve(quantizer)
    Picture(warm)

    opened, rows = time.perf_counter(), []
    subject = Subject("t5", W)
    subject.prepare(at_once.values())
    picture = Picture(subject)
    print(f"opening the matrix: {(opened := time.perf_counter() - opened):.1f} s")

    rounds = {name: moves(quantizer) for name, quantizer in at_once.items()}
    clipped = CHOICES["uniform, clipped at kσ"]
    rounds["  its clip slider"] = [with_clip(clipped, 1.05 + 0.3 * k) for k in range(UPDATES)]
    rounds |= {name: first_moves(q) for name, q in CHOICES.items() if name not in at_once}
    for name, quantizers in rounds.items():
        took = [seconds_of(update, subject, picture, q) for q in quantizers]
        grouped, exact = group(quantizers[0]) is not None, ""
        limit = AT_FIRST if grouped else AT_ONCE if has_level_table(quantizers[0]) else np.inf
        row = {"family": name, "median": median(took), "worst": max(took), "ratio": median(took) / limit}
        if grouped:
            row["exact"] = seconds_of(subject.read, quantizers[-1])
            exact = f", exactly {row['exact']:5.1f} s"
        rows.append(row)
        print(f"{name:36} median {1e3 * row['median']:5.1f} ms, worst {1e3 * row['worst']:5.1f} ms{exact}")
    ratio = max(row["ratio"] for row in rows)
    print(
        f"slowest median {ratio:.2f} of its limit, {1e3 * AT_ONCE:.0f} ms or {1e3 * AT_FIRST:.0f} ms from a sample"
    )
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"rows": rows, "opened": opened, "ratio": ratio}, file, indent=1)
    sys.exit(ratio > 1)


if __name__ == "__main__":
    main()
