"""ECSQ + feedback: error feedback around one evenly spaced grid for all columns, entropy-coded."""

from dataclasses import dataclass

import numpy as np

from rdlib.quantizers.feedback.watersic import WaterSIC


@dataclass(frozen=True)
class FeedbackEcsq(WaterSIC):
    """z_j = round(column / Δ), one Δ for all columns: GPTQ on a grid without end, its index entropy-coded.

    Column j leaves an error of R_jj²·Δ²/12 in the output, so that at high rate this is ½·log₂ of the arithmetic over
    the geometric mean of the R_jj² above :class:`WaterSIC`, whose spacings make all of them equal.  ``spacing`` takes
    no bits; for the other streams, see :class:`rdlib.quantizers.feedback.watersic.SuccessiveCancellation`.

    References:
        Lifar, Savkin, Ordentlich and Polyanskiy 2026, arXiv:2603.04956, where it is called Huffman-GPTQ.
    """

    @property
    def method(self) -> str:
        return "ECSQ + feedback"

    def _spacing(self, U: np.ndarray) -> np.ndarray:
        return np.zeros(len(U))
