"""Quantizers: each file is one idea."""

from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.clipping import LeastSquares, MinMax, Sigmas
from rdlib.quantizers.entropy import EcsqCentroid, EcsqMidpoint, EcsqOptimal
from rdlib.quantizers.granularity import PerChannel, PerGroup, PerTensor
from rdlib.quantizers.lloyd_max import LloydMax
from rdlib.quantizers.scalar import Uniform, UniformAsymmetric, UniformMidTread
from rdlib.quantizers.wrappers import EntropyCoded, RowClassified, Scaled

__all__ = [
    "EcsqCentroid",
    "EcsqMidpoint",
    "EcsqOptimal",
    "EntropyCoded",
    "LeastSquares",
    "LloydMax",
    "MinMax",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "Quantizer",
    "RowClassified",
    "Scaled",
    "Sigmas",
    "Uniform",
    "UniformAsymmetric",
    "UniformMidTread",
]
