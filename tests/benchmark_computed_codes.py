"""How far EXL3's codes are from D(R) on a Gaussian source, in dB and in bits: a table in Markdown, line by line.

    python tests/benchmark_computed_codes.py [weights]

The rate is that of the index alone: in a file of EXL3 scales cost 16 bits a row and a column.
"""

import sys

import numpy as np
from test_trellis import shuffled_quantiles

from rdlib.quantizers import BitshiftTrellis, ComputedTrellis

CODES = ("3inst", "mcg", "mul1")


def excess(W: np.ndarray, quantizer: BitshiftTrellis) -> float:
    """10·log₁₀ of the distortion over D(R) = σ²·4^(−R) at the nominal rate R."""
    error = W - quantizer.decode(quantizer.encode(W))
    return 10 * np.log10((error.astype(np.float64) ** 2).mean() * 4.0**quantizer.bits / W.var())


def main(weights: int) -> None:
    """Print a row for each rate."""
    W = shuffled_quantiles((weights // 256, 256))
    print(f"| bits | {' | '.join(CODES)} | quantiles, L = 16 |\n|---|{'---|' * (len(CODES) + 1)}")
    for bits in range(1, 9):
        found = [excess(W, ComputedTrellis(bits, codebook=codebook)) for codebook in CODES]
        found += [excess(W, BitshiftTrellis(bits, 16))] if bits in BitshiftTrellis.bits_allowed else []
        cells = [f"{decibels:.2f} dB, {decibels / 6.0206:.3f} b" for decibels in found]
        print(f"| {bits} | {' | '.join(cells + [''] * (4 - len(cells)))} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 16)
