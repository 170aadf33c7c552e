"""Types whose index names a vector of four or eight weights: IQ1_S … IQ3_S.

    IQ2_XXS, IQ2_XS, IQ2_S    ŵ = d·(s + ½)/4 · ±g[q], g eight magnitudes, a sign for each
    IQ3_XXS                   ŵ = d·(s + ½)/2 · ±g[q], g four magnitudes
    IQ3_S                     ŵ = d·(2s + 1) · ±g[q]
    IQ1_S, IQ1_M              ŵ = d·(2s + 1) · (g[q] ± ⅛), g eight of −1, 0, 1

The XXS and XS types write seven of eight signs: the number of −1 is even.  The grids g were found by a search, so that
they are tables and not formulas; the package ``gguf`` holds them.

References:
    ggml-org/llama.cpp, ``ggml-quants.c`` and ``ggml-common.h``; the package gguf 0.19, ``gguf.quants``.
"""

from collections.abc import Callable
from functools import cache, partial

import numpy as np

from rdlib.models.gguf.blocks import BlockType, Fields
from rdlib.models.gguf.fields import Half, every, half, joined, words

DELTA = np.float32(0.125)


@cache
def grid(name: str) -> np.ndarray:
    """The vectors g of a type, float32 (vectors, 4 or 8).

    Raises:
        ValueError: the package gguf is not installed.
    """
    try:
        from gguf import quants
    except ImportError:
        raise ValueError(
            f"{name} is decoded with a table that the package gguf holds: pip install 'rdlib[gguf]', or gguf."
        ) from None
    holder = getattr(quants, name)
    holder.init_grid()
    return np.ascontiguousarray(holder.grid[0, 0])


@cache
def shifted_grid(name: str) -> np.ndarray:
    """g + ⅛, then g − ⅛."""
    return np.concatenate([grid(name) + DELTA, grid(name) - DELTA])


def _shifted_index(fields: Fields) -> np.ndarray:
    index, shift = fields["index"], fields["shift"].astype(np.uint16)
    return index + np.repeat(shift << np.uint16(11), index.shape[1] // shift.shape[1], axis=1)


def _half_odd(part: float, fields: Fields) -> np.ndarray:
    d, s = fields["super_scale"].astype(np.float32), fields["scale"].astype(np.float32)
    return d * (np.float32(0.5) + s) * np.float32(part)


def _odd(fields: Fields) -> np.ndarray:
    d, s = fields["super_scale"].astype(np.float32), fields["scale"].astype(np.float32)
    return d * (np.float32(1) + np.float32(2) * s)


def _magnitudes(name: str, bytes: int, fields: dict, scale: Callable[[Fields], np.ndarray]) -> BlockType:
    return BlockType(name, 256, bytes, fields | {"super_scale": half(0)}, scale, partial(grid, name))


IQ2_XXS = _magnitudes(
    "IQ2_XXS",
    66,
    {
        "index": every(words(2, 4, 8), 8, 8),
        "sign": every(words(6, 4, 7), 8, 8),
        "scale": words(6, 8, 4, step=64, bit=28),
    },
    partial(_half_odd, 0.25),
)
IQ2_XS = _magnitudes(
    "IQ2_XS",
    74,
    {
        "index": words(2, 32, 9, step=16),
        "sign": words(2, 32, 7, step=16, bit=9),
        "scale": words(66, 16, 4),
    },
    partial(_half_odd, 0.25),
)
IQ2_S = _magnitudes(
    "IQ2_S",
    82,
    {
        "index": joined(words(2, 32, 8), words(66, 32, 2)),
        "sign": words(34, 32, 8),
        "scale": words(74, 16, 4),
    },
    partial(_half_odd, 0.25),
)
IQ3_XXS = _magnitudes(
    "IQ3_XXS",
    98,
    {
        "index": words(2, 64, 8),
        "sign": every(words(66, 4, 7), 4, 8),
        "scale": words(66, 8, 4, step=32, bit=28),
    },
    partial(_half_odd, 0.5),
)
IQ3_S = _magnitudes(
    "IQ3_S",
    110,
    {
        "index": joined(words(2, 64, 8), words(66, 64, 1)),
        "sign": words(74, 32, 8),
        "scale": words(106, 8, 4),
    },
    _odd,
)
IQ1_S = BlockType(
    "IQ1_S",
    256,
    50,
    {
        "index": joined(words(2, 32, 8), every(words(34, 4, 3), 2, 8)),
        "shift": words(34, 8, 1, step=16, bit=15),
        "scale": words(34, 8, 3, step=16, bit=12),
        "super_scale": half(0),
    },
    _odd,
    partial(shifted_grid, "IQ1_S"),
    symbols=_shifted_index,
)
IQ1_M = BlockType(
    "IQ1_M",
    256,
    56,
    {
        "index": joined(words(0, 32, 8), words(32, 32, 3, step=4)),
        "shift": words(32, 32, 1, step=4, bit=3),
        "scale": every(words(48, 4, 3), 2, 4),
        "super_scale": Half(joined(*(words(byte, 1, 4, bit=12) for byte in (48, 50, 52, 54))).parts),
    },
    _odd,
    partial(shifted_grid, "IQ1_M"),
    symbols=_shifted_index,
)
