"""Quantizers: each file is one idea."""

from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.blocks.double_quantized import DoubleQuantized
from rdlib.quantizers.blocks.gguf import Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from rdlib.quantizers.blocks.hqq import HQQ
from rdlib.quantizers.blocks.llm_int8 import LLMInt8
from rdlib.quantizers.blocks.microscaling import MXFP4, NVFP4
from rdlib.quantizers.blocks.tables import E2M1, FP4, NF4
from rdlib.quantizers.clipping import LeastSquares, MinMax, Sigmas
from rdlib.quantizers.feedback.act_order import ActOrder
from rdlib.quantizers.feedback.ecsq import FeedbackEcsq
from rdlib.quantizers.feedback.gptq import GPTQ
from rdlib.quantizers.feedback.ldlq import LDLQ
from rdlib.quantizers.feedback.trellis import FeedbackTrellis
from rdlib.quantizers.feedback.watersic import WaterSIC
from rdlib.quantizers.granularity import PerChannel, PerGroup, PerTensor
from rdlib.quantizers.lattice.ball import LatticeBall
from rdlib.quantizers.lattice.coded import LatticeCoded
from rdlib.quantizers.lattice.e8p import E8P
from rdlib.quantizers.lattice.lattice import A2, D4, E8, LEECH
from rdlib.quantizers.lattice.shape_gain import ShapeGain
from rdlib.quantizers.scalar.entropy import EcsqCentroid, EcsqMidpoint, EcsqOptimal
from rdlib.quantizers.scalar.lloyd_max import LloydMax
from rdlib.quantizers.scalar.uniform import Uniform, UniformAsymmetric, UniformMidTread
from rdlib.quantizers.transform.awq import AWQ
from rdlib.quantizers.transform.rotated import Rotated
from rdlib.quantizers.trellis.bitshift import BitshiftTrellis
from rdlib.quantizers.trellis.computed import ComputedTrellis
from rdlib.quantizers.trellis.ungerboeck import EntropyCodedTrellis, TrellisCoded
from rdlib.quantizers.vector.vector import MultiCodebook, ProductQuantizer, ResidualQuantizer, VectorQuantizer
from rdlib.quantizers.wrappers import EntropyCoded, RowClassified, Scaled

__all__ = [
    "A2",
    "ActOrder",
    "AWQ",
    "FeedbackEcsq",
    "FeedbackTrellis",
    "GPTQ",
    "LDLQ",
    "LEECH",
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
    "ComputedTrellis",
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
    "ShapeGain",
    "Sigmas",
    "Uniform",
    "UniformAsymmetric",
    "UniformMidTread",
]
