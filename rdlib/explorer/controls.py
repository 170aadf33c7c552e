"""What the controls change: a quantizer is its own state, and every control gives another quantizer."""

import re
from dataclasses import MISSING, fields, is_dataclass, replace

import rdlib.quantizers
from rdlib.quantizers import (
    E8,
    NF4,
    EcsqCentroid,
    EcsqMidpoint,
    EcsqOptimal,
    EntropyCodedTrellis,
    LatticeCoded,
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
    "entropy-coded uniform, centroids": EcsqCentroid(4),
    "entropy-coded optimum": EcsqOptimal(4),
    "uniform in groups": Uniform(4, PerGroup(size=64)),
    "uniform in groups, best clip": Uniform(4, PerGroup(size=64), LeastSquares()),
    "NF4": NF4(),
    "lattice E8, entropy-coded": LatticeCoded(4, E8),
    "trellis of 64 states, entropy-coded": EntropyCodedTrellis(4, 64),
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


def python_of(value: object) -> str:
    """A quantizer, or one of its hyper-parameters, as one writes it: what is at its default is left out.

    >>> python_of(Uniform(4, PerGroup(size=64)))
    'Uniform(4, PerGroup(size=64))'
    """
    for name in rdlib.quantizers.__all__:  # a public object, as the lattice E8
        if getattr(rdlib.quantizers, name) is value:
            return name
    if not is_dataclass(value):
        return repr(value)
    given, in_order = [], True
    for field in fields(value):
        its = getattr(value, field.name)
        if field.default is not MISSING and its == field.default:
            in_order = False
            continue
        plain = in_order and not field.kw_only and (field.name == "bits" or is_dataclass(its))
        given.append(python_of(its) if plain else f"{field.name}={python_of(its)}")
        in_order = plain
    return f"{type(value).__name__}({', '.join(given)})"


def names_in(written: str) -> str:
    """What an expression needs of :mod:`rdlib.quantizers`, as an import lists it."""
    names = [name for name in rdlib.quantizers.__all__ if re.search(rf"\b{name}\b", written)]
    return ", ".join(sorted(names))


def maker_of(weights: str) -> str:
    """The import that an expression for weights needs: of ``open_checkpoint``, or of a source."""
    maker = weights.partition("(")[0]
    return f"from rdlib.{'models' if maker == 'open_checkpoint' else 'explorer.sources'} import {maker}"


def program(weights: str, quantizer: Quantizer) -> str:
    """A program that measures a state.

    Args:
        weights: an expression, with ``open_checkpoint`` or with a source.
        quantizer: of the state.
    """
    written = python_of(quantizer)
    return (
        f"{maker_of(weights)}\nfrom rdlib.measure import measure\n"
        f"from rdlib.quantizers import {names_in(written)}\n\n"
        f"W = {weights}\nprint(measure(W, {written}))\n"
    )
