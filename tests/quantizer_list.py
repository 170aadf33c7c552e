"""The list of all quantizers: a new class gets one line here, and every contract holds for it or fails.

``ALL`` has one instance of each class × granularity × clipping, at a nominal rate of 4 bits; a test takes it to other
rates with ``at``.  ``COVERED`` is the part of it that the contract is tested on: the uniform quantizers are the same
code in all combinations, so that each pair of family, granularity and clipping is enough.  A quantizer that is
exported and not listed fails ``test_contract.test_every_exported_quantizer_is_in_the_list``.
"""

from itertools import product

from rdlib.quantizers import (
    A2,
    AWQ,
    D4,
    E2M1,
    E8,
    E8P,
    FP4,
    GPTQ,
    HQQ,
    LDLQ,
    LEECH,
    MXFP4,
    NF4,
    NVFP4,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    ActOrder,
    BitshiftTrellis,
    ComputedTrellis,
    DoubleQuantized,
    EcsqCentroid,
    EcsqMidpoint,
    EcsqOptimal,
    EntropyCoded,
    EntropyCodedTrellis,
    FeedbackEcsq,
    FeedbackTrellis,
    LatticeBall,
    LatticeCoded,
    LeastSquares,
    LLMInt8,
    LloydMax,
    MinMax,
    MultiCodebook,
    PerChannel,
    PerGroup,
    PerTensor,
    ProductQuantizer,
    ResidualQuantizer,
    Rotated,
    RowClassified,
    Scaled,
    ShapeGain,
    Sigmas,
    TrellisCoded,
    Uniform,
    UniformAsymmetric,
    UniformMidTread,
    VectorQuantizer,
    WaterSIC,
)

FAMILIES = (Uniform, UniformMidTread, UniformAsymmetric)
GRANULARITIES = (PerTensor(), PerChannel(), PerGroup(size=128), PerGroup(size=32))
CLIPPINGS = (MinMax(), Sigmas(3.0), LeastSquares())
UNIFORM = [
    family(4, granularity, clipping)
    for family, granularity, clipping in product(FAMILIES, GRANULARITIES, CLIPPINGS)
]

# Of these 36 the 12 in which every family meets every granularity and clipping, and these meet each other.
COVER = [
    family(4, granularity, CLIPPINGS[(i + j) % len(CLIPPINGS)])
    for (i, family), (j, granularity) in product(enumerate(FAMILIES), enumerate(GRANULARITIES))
]

# One level a weight, whatever its neighbours are.
SCALAR = [
    *UNIFORM,
    LloydMax(4),
    EcsqMidpoint(4),
    EcsqCentroid(4),
    EcsqOptimal(4),
    EntropyCoded(Uniform(4)),
    EntropyCoded(UniformMidTread(4, PerGroup(size=32))),
    EntropyCoded(UniformAsymmetric(4, PerChannel(), LeastSquares())),
    EntropyCoded(LloydMax(4)),
    RowClassified(EcsqCentroid(4)),
    RowClassified(LloydMax(4), classes=3),
]

ALL = [
    *SCALAR,
    Scaled(LloydMax(4)),
    Scaled(LloydMax(4), PerChannel()),
    Scaled(EcsqOptimal(4), PerGroup(size=32)),
]

# Methods whose levels follow the weights write a constant without error.
EXACT_ON_CONSTANTS = list(ALL)


# Formats of other packages, most of them with one rate.
FORMATS = [
    NF4(),
    NF4(size=32),
    FP4(),
    E2M1(),
    DoubleQuantized(NF4()),
    DoubleQuantized(FP4(size=128)),
    EntropyCoded(NF4()),
    LLMInt8(),
    MXFP4(),
    NVFP4(),
    Q4_0(),
    Q4_0(size=64),
    Q4_1(),
    Q5_0(),
    Q5_1(),
    Q8_0(),
    HQQ(4),
    HQQ(4, size=128),
]
ALL += FORMATS
EXACT_ON_CONSTANTS += [q for q in FORMATS if not isinstance(q, (LLMInt8, MXFP4, NVFP4, Q8_0))]

# Codebooks of vectors.
VECTOR = [
    VectorQuantizer(2, 2),
    VectorQuantizer(2, 4),
    VectorQuantizer(1, 8),
    EntropyCoded(VectorQuantizer(2, 2)),
    Scaled(VectorQuantizer(2, 4)),
    MultiCodebook(1.5, 4),
    ProductQuantizer(1.5, 4),
    ResidualQuantizer(1, 8),
    ResidualQuantizer(3, 4, 3),
]
ALL += VECTOR
EXACT_ON_CONSTANTS += VECTOR

# Codes whose public levels are scaled, or mixed, to fit.
TRELLIS = [
    BitshiftTrellis(2, 8),
    BitshiftTrellis(3),
    ComputedTrellis(2, 8),
    TrellisCoded(4, 4),
    TrellisCoded(2),
    EntropyCodedTrellis(4, 8),
    EntropyCodedTrellis(2),
    Scaled(BitshiftTrellis(2)),
    Rotated(UniformMidTread(4)),
    Rotated(EcsqCentroid(4)),
    Rotated(BitshiftTrellis(2, 8), seed=7),
]
ALL += TRELLIS

# Runs of neighbours coded together; a constant run is not in general a point of a lattice.
LATTICES = [
    LatticeCoded(4, A2),
    LatticeCoded(4, D4),
    LatticeCoded(4, E8),
    LatticeCoded(4, LEECH),
    LatticeBall(4, A2),
    LatticeBall(4, D4),
    LatticeBall(2, E8),
    E8P(),
    ShapeGain(),
]
ALL += LATTICES

# Methods that feed errors back where H is known; without it they are what is inside, or a plain grid.
FEEDBACK = [
    GPTQ(UniformAsymmetric(4, PerGroup(size=32))),
    GPTQ(Uniform(4, PerChannel())),
    ActOrder(GPTQ(UniformMidTread(4, PerGroup(size=128)))),
    Rotated(GPTQ(Uniform(4, PerGroup(size=128)))),
    EntropyCoded(GPTQ(UniformMidTread(4))),
    AWQ(UniformAsymmetric(4, PerGroup(size=128))),
    LDLQ(BitshiftTrellis(2, 8)),
    LDLQ(E8P(), width=8),
    WaterSIC(4),
    FeedbackEcsq(4),
    FeedbackTrellis(4, states=8),
]
ALL += FEEDBACK

COVERED = [quantizer for quantizer in ALL if quantizer in COVER or quantizer not in UNIFORM]


def method(quantizer: object) -> str:
    """Readable id of a test: the name of the quantizer in tables."""
    return getattr(quantizer, "method", None)
