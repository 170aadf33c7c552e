"""Types with a table of sixteen levels that are not equally spaced: IQ4_NL, IQ4_XS, MXFP4 and NVFP4.

    IQ4_NL    ŵ = d·v[q], blocks of 32
    IQ4_XS    ŵ = d·s·v[q], stretches of 32 with an integer s of 6 bits
    MXFP4     ŵ = 2^(e − 128)·v[q], blocks of 32, v twice the values of FP4
    NVFP4     ŵ = s/2·v[q], stretches of 16, s in E4M3 without a sign

References:
    ggml-org/llama.cpp, ``ggml-common.h``; OCP Microscaling Formats 1.0; the package gguf 0.19, ``gguf.quants``.
"""

import numpy as np

from rdlib.models.gguf.blocks import BlockType, Fields, levels
from rdlib.models.gguf.fields import half, joined, strided, words
from rdlib.models.gguf.scalar import plain_scale, scale_less_32

IQ4_LEVELS = levels(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
FP4_LEVELS = levels(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)
POWERS = np.ldexp(np.float32(1), np.arange(256) - 128)


def _half_e4m3() -> np.ndarray:
    """s/2 of a byte, whose highest bit is ignored; what would be NaN is zero."""
    byte = np.arange(256)
    exponent, mantissa = byte >> 3 & 15, byte & 7
    values = np.where(exponent == 0, np.ldexp(mantissa, -10), np.ldexp(8 + mantissa, exponent - 11))
    values[0x7F] = 0
    return values.astype(np.float32)


HALF_E4M3 = _half_e4m3()


def _power(fields: Fields) -> np.ndarray:
    return POWERS[fields["scale"]]


def _half_s(fields: Fields) -> np.ndarray:
    return HALF_E4M3[fields["scale"]]


IQ4_NL = BlockType(
    "IQ4_NL", 32, 18, {"index": strided(2, 32, 4, 16), "scale": half(0)}, plain_scale, IQ4_LEVELS
)
IQ4_XS = BlockType(
    "IQ4_XS",
    256,
    136,
    {
        "index": strided(8, 256, 4, 16),
        "scale": joined(words(4, 8, 4), words(2, 8, 2)),
        "super_scale": half(0),
    },
    scale_less_32,
    IQ4_LEVELS,
)
MXFP4 = BlockType(
    "MXFP4", 32, 17, {"index": strided(1, 32, 4, 16), "scale": words(0, 1, 8)}, _power, FP4_LEVELS
)
NVFP4 = BlockType(
    "NVFP4", 64, 36, {"index": strided(4, 64, 4, 8), "scale": words(0, 4, 8)}, _half_s, FP4_LEVELS
)
