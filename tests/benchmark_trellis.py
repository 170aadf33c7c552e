"""Trellises of many states: bits above D(R) on N(0, 1) by the length of the file, and time: a table in Markdown.

python tests/benchmark_trellis.py [weights] [states …]
"""

import sys
import time

import numpy as np
from test_trellis import excess_decibels, shuffled_quantiles

from rdlib.measure import measure
from rdlib.quantizers import EntropyCodedTrellis, FeedbackTrellis

BITS = (2, 3, 4)


def main(weights: int, states: list[int]) -> None:
    """Print a row for each code."""
    W = shuffled_quantiles((weights // 512, 512)).astype(np.float32)
    heads = " | ".join(f"{bits} bits" for bits in BITS)
    print(f"| code | {heads} | µs a weight |\n|---|{'---|' * (len(BITS) + 1)}")
    for count in states:
        for code in EntropyCodedTrellis(2, count), FeedbackTrellis(2, states=count):
            measure(W[:2], code)  # compiled
            start = time.perf_counter()
            excess = [excess_decibels(measure(W, code.at(bits))) / 6.0206 for bits in BITS]
            spent = (time.perf_counter() - start) / len(BITS) / W.size * 1e6
            print(f"| {code.method} | {' | '.join(f'{x:.4f}' for x in excess)} | {spent:.2f} |", flush=True)


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 19,
        [int(s) for s in sys.argv[2:]] or [256, 1024, 4096],
    )
