"""The slower methods on some rows of a matrix: trellises and lattices, for which a histogram is not enough."""

import numpy as np

from rdlib.census.grouped import as_row
from rdlib.measure import measure
from rdlib.quantizers import E8, E8P, BitshiftTrellis, EntropyCodedTrellis, LatticeCoded, Quantizer

SLOW: tuple[Quantizer, ...] = (
    E8P(),
    *(BitshiftTrellis(bits) for bits in (2, 3, 4)),
    *(LatticeCoded(bits, E8) for bits in (2, 3, 4)),
    *(EntropyCodedTrellis(bits) for bits in (2, 3, 4)),
)


def some_rows(W: np.ndarray, rows: int) -> np.ndarray:
    """At most so many rows of W, evenly spaced from the first."""
    return W[:: max(-(-len(W) // rows), 1)]


def sampled_points(W: np.ndarray) -> list[dict]:
    """Method, bits, rate, side_rate and mse of every quantizer in ``SLOW`` on these rows."""
    return [as_row(measure(W, quantizer)) for quantizer in SLOW]
