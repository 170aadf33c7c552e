"""ŵ = s·(v[q] − v[z]): how formats with one table of levels, and a scale for every tile of a matrix, are decoded."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numba import njit

from rdlib.code.code import Code
from rdlib.code.decoder import Decoder

FLOAT_ELEMENTS = {
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e4m3": ml_dtypes.float8_e4m3fn,
}


def _padded(levels: np.ndarray) -> np.ndarray:
    """A level for every byte: NaN for those that stand for none."""
    return np.concatenate([levels, np.full(256 - len(levels), np.nan, np.float32)], dtype=np.float32)


LEVELS = {f"int{bits}": _padded(np.arange(1 << bits) - (1 << bits - 1)) for bits in range(1, 9)} | {
    name: _padded(np.arange(1 << ml_dtypes.finfo(kind).bits, dtype=np.uint8).view(kind).astype(np.float32))
    for name, kind in FLOAT_ELEMENTS.items()
}

LEVELS["e2m1 with one zero"] = LEVELS["e2m1"] + np.float32(0)  # −0 + 0 is 0


@dataclass(frozen=True)
class Levels(Decoder):
    """ŵ = s·v[q] with a scale s for every tile of a matrix.

    The product is rounded to a narrow float type, as in the packages, whose arithmetic is in that type.  Streams:
    ``index`` (q, ``bits`` bits), ``scale`` (s, of a float type).

    Args:
        bits: of an index.
        method: name in tables and plots.
        element: v, a key of :data:`LEVELS`: ``int4`` are −8 … 7, ``e2m1`` the floats of two bits of exponent and one
            of mantissa.
        tile: how many outputs and inputs share a scale; tiles at the edges may be smaller.
        dtype: that products are rounded to; that of s where it is empty.
    """

    bits: int
    method: str
    element: str
    tile: tuple[int, int]
    dtype: str = ""

    def groups(self, code: Code) -> np.ndarray:
        """The tile of every input, (in,)."""
        return np.arange(code.shape[1]) // self.tile[1]

    def scales(self, code: Code) -> np.ndarray:
        """S, float32 (tiles of outputs, tiles of inputs)."""
        return code["scale"].astype(np.float32)

    def zeros(self, code: Code) -> np.ndarray:
        """Of every tile, the level that stands for 0, float32 likewise."""
        return np.zeros(code["scale"].shape, np.float32)

    def reconstruct(self, code: Code) -> np.ndarray:
        q, s, z, group = code["index"], self.scales(code), self.zeros(code), self.groups(code)
        rows, columns = code.shape
        if q.dtype != np.uint8 or q.shape != code.shape or group.shape != (columns,) or z.shape != s.shape:
            raise ValueError(f"index {q.dtype} {q.shape}, scale {s.shape} and zero {z.shape} do not fit")
        if s.shape[0] != -(-rows // self.tile[0]) or s.shape[1] <= group.max(initial=-1):
            raise ValueError(f"scale {s.shape} is not one for every tile of {self.tile}")
        if q.max(initial=0) >> self.bits:
            raise ValueError(f"index goes beyond {self.bits} bits")
        out = np.empty(code.shape, np.float32)
        starts = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
        if self.element.startswith("int"):
            _decode_integers(q, s, z - LEVELS[self.element][0], starts, group, self.tile[0], out)
        else:
            _decode(q, LEVELS[self.element], s, z, starts, group, self.tile[0], out)
        round_to(self.dtype or code["scale"].dtype.name, out)
        return out


@dataclass(frozen=True)
class Affine(Levels):
    """ŵ = s·(v[q] − v[z]) with a scale s and a zero point z for every tile.

    Streams: those of :class:`Levels`, and ``zero`` (z, ``bits`` bits).
    """

    def zeros(self, code: Code) -> np.ndarray:
        return LEVELS[self.element][code["zero"]]


class ActOrder:
    """Tiles are of inputs that were quantized one after the other, not of neighbours.

    GPTQ with ``desc_act`` takes inputs by falling H_ii.  There is a stream ``g_idx`` more: the tile of every input, at
    log₂ of the number of tiles.
    """

    def groups(self, code: Code) -> np.ndarray:
        return code["g_idx"].astype(np.int64)


class ActOrderedLevels(ActOrder, Levels):
    """:class:`Levels` of :class:`ActOrder`."""


class ActOrdered(ActOrder, Affine):
    """:class:`Affine` of :class:`ActOrder`."""


@dataclass(frozen=True)
class RoundedScale(Levels):
    """The same with s rounded to the type of the products before it multiplies, as ModelOpt decodes FP8."""

    def scales(self, code: Code) -> np.ndarray:
        s = super().scales(code)
        round_to(self.dtype, s)
        return s


@dataclass(frozen=True)
class TwoLevel(Levels):
    """ŵ = s·S·v[q]: scales s of few bits, times one S for the matrix, a stream ``scale_scale`` (float32)."""

    def scales(self, code: Code) -> np.ndarray:
        return super().scales(code) * code.number("scale_scale")


@dataclass(frozen=True)
class TwoLevelInverse(Levels):
    """The same with 1/S in the place of S, as compressed-tensors stores it: dividing rounds otherwise."""

    def scales(self, code: Code) -> np.ndarray:
        return super().scales(code) / code.number("scale_scale")


@dataclass(frozen=True)
class Shifted(Decoder):
    """ŵ = s·q + m with a scale s and a minimum m of one float type for every group of neighbours in a row.

    Product and sum are each rounded to that type, as in MLX, whose arithmetic is in it.  Streams: ``index`` (q,
    ``bits`` bits), ``scale``, ``minimum``.

    Args:
        bits: of an index.
        method: name in tables and plots.
        group_size: inputs that share a scale and a minimum.
    """

    bits: int
    method: str
    group_size: int

    def reconstruct(self, code: Code) -> np.ndarray:
        s, m = code["scale"], code["minimum"]
        W = code["index"].astype(np.float32)
        groups = W.reshape(*s.shape, self.group_size)
        groups *= s.astype(np.float32)[..., None]  # exact: 11 bits of s times 8 of q
        round_to(s.dtype.name, W)
        groups += m.astype(np.float32)[..., None]
        round_to(s.dtype.name, W)
        return W


@njit(cache=True, error_model="numpy")
def _decode(
    q: np.ndarray,
    v: np.ndarray,
    s: np.ndarray,
    z: np.ndarray,
    starts: np.ndarray,
    group: np.ndarray,
    height: int,
    out: np.ndarray,
) -> None:
    """Runs of inputs of one tile, from each of ``starts`` to the next: each is one loop of products."""
    for i in range(q.shape[0]):
        scale, zero, row, index = s[i // height], z[i // height], out[i], q[i]
        for k in range(len(starts) - 1):
            a, m = scale[group[starts[k]]], zero[group[starts[k]]]
            for j in range(starts[k], starts[k + 1]):
                row[j] = (v[index[j]] - m) * a


@njit(cache=True, error_model="numpy")
def _decode_integers(
    q: np.ndarray,
    s: np.ndarray,
    z: np.ndarray,
    starts: np.ndarray,
    group: np.ndarray,
    height: int,
    out: np.ndarray,
) -> None:
    """The same without a table, z counted from the lowest level: conversions take half the time of look-ups."""
    for i in range(q.shape[0]):
        scale, zero, row, index = s[i // height], z[i // height], out[i], q[i]
        for k in range(len(starts) - 1):
            a, m = scale[group[starts[k]]], zero[group[starts[k]]]
            for j in range(starts[k], starts[k + 1]):
                row[j] = (np.float32(index[j]) - m) * a


def round_to(dtype: str, W: np.ndarray) -> None:
    """Round float32 numbers (rows, n) to float16 or bfloat16, in place, to the nearest even."""
    if dtype == "bfloat16":
        _to_bfloat16(W.view(np.uint32))
    elif dtype == "float16":
        _to_float16(W, W.view(np.uint32))


@njit(cache=True)
def _to_bfloat16(patterns: np.ndarray) -> None:
    for row in patterns:
        for j in range(len(row)):
            row[j] = (row[j] + (np.uint32(0x7FFF) + (row[j] >> np.uint32(16) & np.uint32(1)))) & np.uint32(
                0xFFFF0000
            )


SIGN, LEAST, MOST = (
    np.uint32(1 << 31),
    np.uint32(0x38800000),
    np.uint32(0x477FF000),
)  # 2⁻¹⁴ and 65520, as patterns


@njit(cache=True)
def _to_float16(W: np.ndarray, patterns: np.ndarray) -> None:
    """Thirteen bits less; below 2⁻¹⁴ multiples of 2⁻²⁴, the unit in the last place of ¾; from 65520 on ∞."""
    for i in range(len(patterns)):
        row, special = patterns[i], False
        for j in range(len(row)):
            size = row[j] & ~SIGN
            special |= (size - np.uint32(1) < LEAST - np.uint32(1)) | (size >= MOST)
        if special:
            for j in range(len(row)):
                w = W[i, j]
                if abs(w) < np.float32(2.0**-14):
                    W[i, j] = np.copysign((w + np.float32(0.75)) - np.float32(0.75), w)
                elif abs(w) >= np.float32(65520):
                    W[i, j] = np.copysign(np.float32(np.inf), w)
        for j in range(len(row)):  # of what is rounded already nothing is lost
            row[j] = (row[j] + (np.uint32(0xFFF) + (row[j] >> np.uint32(13) & np.uint32(1)))) & np.uint32(
                0xFFFFE000
            )


def group_label(group_size: int) -> str:
    """Name of a granularity in tables and plots; −1 is a whole row."""
    return "channel" if group_size == -1 else f"g{group_size}"
