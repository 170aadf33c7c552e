"""Types whose levels are equally spaced, or three: Q4_0 … Q8_0, the K-quants Q2_K … Q6_K, TQ1_0 and TQ2_0.

    Q4_0, Q5_0, Q8_0       ŵ = d·(q − z), blocks of 32, d float16
    Q4_1, Q5_1             ŵ = d·q + m
    Q2_K, Q4_K, Q5_K       ŵ = d·s·q − d'·s', 256 weights: stretches of 16 or 32 with integers s and s' of 4 or 6 bits
    Q3_K, Q6_K             ŵ = d·s·(q − z), stretches of 16
    TQ1_0, TQ2_0           ŵ = d·t, t in {−1, 0, 1}; five t a byte, or four

References:
    ggml-org/llama.cpp, ``ggml-quants.c``; the package gguf 0.19, ``gguf.quants``.
"""

import numpy as np

from rdlib.models.gguf.blocks import BlockType, Fields, levels
from rdlib.models.gguf.fields import chained, half, joined, strided, words

INTEGERS = np.arange(256).astype(np.uint8).view(np.int8)  # what a byte is as a signed integer


def plain_scale(fields: Fields) -> np.ndarray:
    """a = d."""
    return fields["scale"].astype(np.float32)


def negative_minimum(fields: Fields) -> np.ndarray:
    """m of ŵ = d·q − m, where the file stores −m."""
    return -fields["minimum"].astype(np.float32)


def scale_of_integers(fields: Fields) -> np.ndarray:
    """a = d·s."""
    return fields["super_scale"].astype(np.float32) * fields["scale"].astype(np.float32)


def scale_less_32(fields: Fields) -> np.ndarray:
    """a = d·(s − 32)."""
    return fields["super_scale"].astype(np.float32) * (fields["scale"].astype(np.float32) - np.float32(32))


def scale_signed(fields: Fields) -> np.ndarray:
    """a = d·s, s a signed byte."""
    return fields["super_scale"].astype(np.float32) * INTEGERS[fields["scale"]].astype(np.float32)


def minimum_of_integers(fields: Fields) -> np.ndarray:
    """m = d'·s'."""
    return fields["super_minimum"].astype(np.float32) * fields["minimum"].astype(np.float32)


def _trits(fields: Fields) -> np.ndarray:
    """t + 1, the five digits of byte/256 in base 3: the first ones of a run of bytes, then the second ones."""
    octets = fields["index"].astype(np.uint16)
    digits = [((octets * 3**k & 255) * 3 >> 8).astype(np.uint8) for k in range(5)]
    runs = [(0, 32, 5), (32, 48, 5), (48, 52, 4)]
    return np.concatenate([digits[k][:, i:j] for i, j, count in runs for k in range(count)], axis=1)


_SIX_BIT_SCALES = {  # eight numbers of six bits, twice, in twelve bytes
    "scale": joined(
        chained(words(4, 4, 4, step=8), words(12, 4, 4, step=8)),
        chained(words(4, 4, 2, step=8, bit=4), words(4, 4, 2, step=8, bit=6)),
    ),
    "minimum": joined(
        chained(words(8, 4, 4, step=8), words(12, 4, 4, step=8, bit=4)),
        chained(words(8, 4, 2, step=8, bit=4), words(8, 4, 2, step=8, bit=6)),
    ),
    "super_scale": half(0),
    "super_minimum": half(2),
}

Q4_0 = BlockType(
    "Q4_0", 32, 18, {"index": strided(2, 32, 4, 16), "scale": half(0)}, plain_scale, levels(*range(-8, 8))
)
Q4_1 = BlockType(
    "Q4_1",
    32,
    20,
    {"index": strided(4, 32, 4, 16), "scale": half(0), "minimum": half(2)},
    plain_scale,
    levels(*range(16)),
    negative_minimum,
)
Q5_0 = BlockType(
    "Q5_0",
    32,
    22,
    {"index": joined(strided(6, 32, 4, 16), words(2, 32, 1)), "scale": half(0)},
    plain_scale,
    levels(*range(-16, 16)),
)
Q5_1 = BlockType(
    "Q5_1",
    32,
    24,
    {"index": joined(strided(8, 32, 4, 16), words(4, 32, 1)), "scale": half(0), "minimum": half(2)},
    plain_scale,
    levels(*range(32)),
    negative_minimum,
)
Q8_0 = BlockType("Q8_0", 32, 34, {"index": words(2, 32, 8), "scale": half(0)}, plain_scale, levels(*INTEGERS))

Q2_K = BlockType(
    "Q2_K",
    256,
    84,
    {
        "index": strided(16, 256, 2, 32),
        "scale": words(0, 16, 4, step=8),
        "minimum": words(0, 16, 4, step=8, bit=4),
        "super_scale": half(80),
        "super_minimum": half(82),
    },
    scale_of_integers,
    levels(*range(4)),
    minimum_of_integers,
)
Q3_K = BlockType(
    "Q3_K",
    256,
    110,
    {
        "index": joined(strided(32, 256, 2, 32), strided(0, 256, 1, 32)),
        "scale": joined(strided(96, 16, 4, 8), strided(104, 16, 2, 4)),
        "super_scale": half(108),
    },
    scale_less_32,
    levels(*range(-4, 4)),
)
Q4_K = BlockType(
    "Q4_K",
    256,
    144,
    {"index": strided(16, 256, 4, 32), **_SIX_BIT_SCALES},
    scale_of_integers,
    levels(*range(16)),
    minimum_of_integers,
)
Q5_K = BlockType(
    "Q5_K",
    256,
    176,
    {"index": joined(strided(48, 256, 4, 32), strided(16, 256, 1, 32)), **_SIX_BIT_SCALES},
    scale_of_integers,
    levels(*range(32)),
    minimum_of_integers,
)
Q6_K = BlockType(
    "Q6_K",
    256,
    210,
    {
        "index": joined(strided(0, 256, 4, 64), strided(128, 256, 2, 32)),
        "scale": words(192, 16, 8),
        "super_scale": half(208),
    },
    scale_signed,
    levels(*range(-32, 32)),
)

TQ1_0 = BlockType(
    "TQ1_0",
    256,
    54,
    {"index": words(0, 52, 8), "scale": half(52)},
    plain_scale,
    levels(-1, 0, 1),
    symbols=_trits,
)
TQ2_0 = BlockType(
    "TQ2_0", 256, 66, {"index": strided(0, 256, 2, 32), "scale": half(64)}, plain_scale, levels(-1, 0, 1, 2)
)
