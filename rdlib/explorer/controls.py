"""What the controls change: a quantizer is its own state, and every control gives another quantizer."""

from dataclasses import replace

from rdlib.quantizers import (
    NF4,
    EcsqMidpoint,
    EcsqOptimal,
    LeastSquares,
    LloydMax,
    PerGroup,
    Quantizer,
    Sigmas,
    Uniform,
)

CHOICES: dict[str, Quantizer] = {
    "uniform": Uniform(4),
    "uniform, clipped at kσ": Uniform(4, clipping=Sigmas(3.0)),
    "uniform, best clip": Uniform(4, clipping=LeastSquares()),
    "Lloyd–Max": LloydMax(4),
    "entropy-coded uniform": EcsqMidpoint(4),
    "entropy-coded optimum": EcsqOptimal(4),
    "uniform in groups": Uniform(4, PerGroup(size=64)),
    "uniform in groups, best clip": Uniform(4, PerGroup(size=64), LeastSquares()),
    "NF4": NF4(),
}


def clip(quantizer: Quantizer) -> float | None:
    """Where a quantizer clips, in σ; None if it has no such setting."""
    clipping = getattr(quantizer, "clipping", None)
    return clipping.k if isinstance(clipping, Sigmas) else None


def with_clip(quantizer: Quantizer, k: float) -> Quantizer:
    """The same quantizer, clipped at ± k·σ; itself, if it has no such setting."""
    return quantizer if clip(quantizer) is None else replace(quantizer, clipping=Sigmas(k))


def group(quantizer: Quantizer) -> int | None:
    """How many weights share a scale; None if all do."""
    if isinstance(quantizer, NF4):
        return quantizer.size
    granularity = getattr(quantizer, "granularity", None)
    return granularity.size if isinstance(granularity, PerGroup) else None


def with_group(quantizer: Quantizer, size: int) -> Quantizer:
    """The same quantizer with groups of another size; itself, if it has no groups."""
    if group(quantizer) is None:
        return quantizer
    if isinstance(quantizer, NF4):
        return replace(quantizer, size=size)
    return replace(quantizer, granularity=PerGroup(size=size))
