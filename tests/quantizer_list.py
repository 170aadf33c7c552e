"""The list of all quantizers: a new class gets one line here, and every contract holds for it or fails.

``ALL`` holds one instance of each class × granularity × clipping, at a nominal rate of 4 bits; a test takes it
to other rates with ``at``.  Whoever exports a quantizer without a line here is told so by
``test_contract.test_every_exported_quantizer_is_in_the_list``.
"""

from itertools import product

from rdlib.quantizers import (
    EcsqCentroid,
    EcsqMidpoint,
    EcsqOptimal,
    EntropyCoded,
    LeastSquares,
    LloydMax,
    MinMax,
    PerChannel,
    PerGroup,
    PerTensor,
    RowClassified,
    Scaled,
    Sigmas,
    Uniform,
    UniformAsymmetric,
    UniformMidTread,
)

GRANULARITIES = (PerTensor(), PerChannel(), PerGroup(size=128), PerGroup(size=32))
CLIPPINGS = (MinMax(), Sigmas(3.0), LeastSquares())
UNIFORM = [
    family(4, granularity, clipping)
    for family, granularity, clipping in product(
        (Uniform, UniformMidTread, UniformAsymmetric), GRANULARITIES, CLIPPINGS
    )
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


def method(quantizer: object) -> str:
    """Readable id of a test: the name of the quantizer in tables."""
    return getattr(quantizer, "method", None)
