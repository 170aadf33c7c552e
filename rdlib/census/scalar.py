"""Scalar quantizers with one table of levels for the tensor: what they do follows from its histogram."""

import numpy as np

from rdlib.census.grouped import as_row
from rdlib.census.tensors import widened
from rdlib.code.ans import Ans
from rdlib.histogram import Histogram
from rdlib.measure import measure, measure_values
from rdlib.quantizers import (
    EcsqCentroid,
    LeastSquares,
    LloydMax,
    Sigmas,
    Uniform,
    UniformAsymmetric,
)
from rdlib.quantizers.scalar.level_table import LevelTable

SCALAR: tuple[LevelTable, ...] = (
    Uniform(4),
    UniformAsymmetric(4),
    Uniform(4, clipping=Sigmas(3)),
    Uniform(4, clipping=LeastSquares()),
    LloydMax(4),
    EcsqCentroid(4),
)


def scalar_points(W: np.ndarray, histogram: Histogram, coded: bool, bits: range = range(1, 9)) -> list[dict]:
    """Method, bits, rate, side_rate and mse of every quantizer of ``SCALAR`` at every rate.

    Args:
        W: (out, in), of any type of :data:`rdlib.census.tensors.DTYPES`.
        histogram: of W.
        coded: whether an entropy-coded index is really coded, as :func:`rdlib.measure.measure` does; its price is
            the ideal length otherwise (:func:`rdlib.measure.measure_values`).
        bits: nominal rates.
    """
    return [_point(W, histogram, method.at(b), coded) for method in SCALAR for b in bits]


def _point(W: np.ndarray, histogram: Histogram, quantizer: LevelTable, coded: bool) -> dict:
    code = quantizer.encode_values(histogram)
    if coded and isinstance(code.streams["index"].format, Ans):
        return as_row(measure(widened(W), quantizer))
    return as_row(measure_values(histogram, W.shape, quantizer, code))
