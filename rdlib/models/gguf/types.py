"""The types of tensors that a GGUF file names by number."""

from collections.abc import Mapping

from rdlib.models.gguf import floats, grids, scalar, tables
from rdlib.models.gguf.blocks import TensorType

TYPES: Mapping[int, TensorType] = {
    0: floats.F32,
    1: floats.F16,
    2: scalar.Q4_0,
    3: scalar.Q4_1,
    6: scalar.Q5_0,
    7: scalar.Q5_1,
    8: scalar.Q8_0,
    10: scalar.Q2_K,
    11: scalar.Q3_K,
    12: scalar.Q4_K,
    13: scalar.Q5_K,
    14: scalar.Q6_K,
    16: grids.IQ2_XXS,
    17: grids.IQ2_XS,
    18: grids.IQ3_XXS,
    19: grids.IQ1_S,
    20: tables.IQ4_NL,
    21: grids.IQ3_S,
    22: grids.IQ2_S,
    23: tables.IQ4_XS,
    29: grids.IQ1_M,
    30: floats.BF16,
    34: scalar.TQ1_0,
    35: scalar.TQ2_0,
    39: tables.MXFP4,
    40: tables.NVFP4,
}


def tensor_type(number: int) -> TensorType:
    """The type of a number.

    Raises:
        ValueError: it is of integers, of activations, or not known.
    """
    if number not in TYPES:
        known = ", ".join(kind.method for kind in TYPES.values())
        raise ValueError(f"GGUF's type {number} is not read; those that are: {known}.")
    return TYPES[number]


def named_type(name: str) -> TensorType:
    """The type of a name, such as ``Q4_K``.

    Raises:
        ValueError: there is none.
    """
    for kind in TYPES.values():
        if kind.method == name:
            return kind
    raise ValueError(f"GGUF's type {name!r} is not read.")
