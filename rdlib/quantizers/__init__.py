"""Quantizers: each file is one idea."""

from rdlib.quantizers.act_order import ActOrder
from rdlib.quantizers.awq import AWQ
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.clipping import LeastSquares, MinMax, Sigmas
from rdlib.quantizers.double_quantized import DoubleQuantized
from rdlib.quantizers.e8p import E8P
from rdlib.quantizers.entropy import EcsqCentroid, EcsqMidpoint, EcsqOptimal
from rdlib.quantizers.feedback_trellis import FeedbackTrellis
from rdlib.quantizers.gguf import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from rdlib.quantizers.gptq import GPTQ
from rdlib.quantizers.granularity import PerChannel, PerGroup, PerTensor
from rdlib.quantizers.hqq import HQQ
from rdlib.quantizers.lattice import A2, D4, E8
from rdlib.quantizers.lattice_ball import LatticeBall
from rdlib.quantizers.lattice_coded import LatticeCoded
from rdlib.quantizers.ldlq import LDLQ
from rdlib.quantizers.llm_int8 import LLMInt8
from rdlib.quantizers.lloyd_max import LloydMax
from rdlib.quantizers.microscaling import MXFP4, NVFP4
from rdlib.quantizers.rotated import Rotated
from rdlib.quantizers.scalar import Uniform, UniformAsymmetric, UniformMidTread
from rdlib.quantizers.tables import E2M1, FP4, NF4
from rdlib.quantizers.trellis import BitshiftTrellis
from rdlib.quantizers.ungerboeck import EntropyCodedTrellis, TrellisCoded
from rdlib.quantizers.vector import MultiCodebook, ProductQuantizer, ResidualQuantizer, VectorQuantizer
from rdlib.quantizers.watersic import WaterSIC
from rdlib.quantizers.wrappers import EntropyCoded, RowClassified, Scaled

__all__ = [
    "A2",
    "ActOrder",
    "AWQ",
    "FeedbackTrellis",
    "GPTQ",
    "LDLQ",
    "WaterSIC",
    "D4",
    "VectorQuantizer",
    "TrellisCoded",
    "Rotated",
    "ResidualQuantizer",
    "ProductQuantizer",
    "MultiCodebook",
    "EntropyCodedTrellis",
    "BitshiftTrellis",
    "DoubleQuantized",
    "E2M1",
    "E8",
    "E8P",
    "EcsqCentroid",
    "EcsqMidpoint",
    "EcsqOptimal",
    "EntropyCoded",
    "FP4",
    "HQQ",
    "LatticeBall",
    "LatticeCoded",
    "LeastSquares",
    "LLMInt8",
    "LloydMax",
    "MinMax",
    "MXFP4",
    "NF4",
    "NVFP4",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Quantizer",
    "RowClassified",
    "Scaled",
    "Sigmas",
    "Uniform",
    "UniformAsymmetric",
    "UniformMidTread",
]
