"""Public tables of 16 levels, scaled to the largest weight of a block: NF4, FP4 and E2M1.

A table costs nothing, because every decoder has it; each block pays for its scale in float32.  Ŵ of NF4 and FP4
equals that of bitsandbytes (its ``quantize_4bit`` and ``dequantize_4bit``) on the same weights, bit for bit.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.quantizers.blocks.blocks import BlockFormat, block_peaks, reciprocal, table_indices, table_weights
from rdlib.weights import as_float32

SMALLEST = np.float32(1e-38)  # bitsandbytes divides by no less


def _public(levels: list[float], largest: float = 1) -> np.ndarray:
    """Levels over the largest of them, float32, for everybody to read."""
    table = np.array(levels, np.float32) / np.float32(largest)
    table.setflags(write=False)
    return table


@dataclass(frozen=True)
class _Table(BlockFormat):
    """ŵ = s·t_q, s the largest magnitude of a block, t a rising table of 16 levels from −1 to 1.

    Blocks run over the whole matrix, row after row; the last one may be shorter.  Streams: ``index`` (4 bits),
    ``scale`` (s, float32: 32 / size bits a weight).
    """

    size: int = 64
    table: ClassVar[np.ndarray]

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        scale, index = nearest_in_blocks(values.ravel(), self.table, self.size)
        streams = {
            "index": Stream.fixed(index.reshape(values.shape), len(self.table)),
            "scale": Stream.floats(scale, "float32"),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        flat = table_weights(code["index"].reshape(1, -1), code["scale"], self.table, self.size)
        return flat.reshape(code.shape)


@dataclass(frozen=True)
class NF4(_Table):
    """ŵ = s·t_q: NormalFloat, 16 levels between quantiles of N(0, 1), zero among them; 4.5 bits at block 64.

    Streams: ``index`` (4 bits), ``scale`` (s, the largest magnitude of a block, float32).

    References:
        Dettmers, Pagnoni, Holtzman and Zettlemoyer 2023, arXiv:2305.14314, appendix E.
    """

    family: ClassVar[str] = "NF4"
    table: ClassVar[np.ndarray] = _public(
        [
            *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
            *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
            *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
            *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
        ]
    )


@dataclass(frozen=True)
class FP4(_Table):
    """ŵ = s·t_q: bitsandbytes' 4-bit float, magnitudes 0, 1/192, 1/6, 1/4, 1/3, 1/2, 2/3, 1; 4.5 bits at block 64.

    It spends 4 bits on 15 levels: there are two zeros.  Streams: ``index`` (4 bits), ``scale`` (s, the largest
    magnitude of a block, float32).

    References:
        bitsandbytes 0.50, ``functional.get_4bit_type``; arXiv:2305.14314, section 2.
    """

    family: ClassVar[str] = "FP4"
    table: ClassVar[np.ndarray] = _public(  # weights a little above zero become −0, as they do there
        [-12, -8, -6, -4, -3, -2, -1 / 16, 0.0, -0.0, 1 / 16, 2, 3, 4, 6, 8, 12], 12
    )


@dataclass(frozen=True)
class E2M1(_Table):
    """ŵ = s·t_q: magnitudes 0, ½, 1, 1½, 2, 3, 4, 6 over 6, a float of 2 exponent bits and 1 mantissa bit.

    MXFP4 and NVFP4 have the same levels with cheaper scales (:class:`rdlib.quantizers.MXFP4`); here the scale is
    exact, so that the difference is what their scales cost.  It spends 4 bits on 15 levels: there are two zeros.
    Streams: ``index`` (4 bits), ``scale`` (s, the largest magnitude of a block, float32).

    References:
        Open Compute Project, Microscaling Formats (MX) Specification 1.0 (2023), section 5.3.3.
    """

    family: ClassVar[str] = "E2M1"
    table: ClassVar[np.ndarray] = _public([-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0, 0.5, 1, 1.5, 2, 3, 4, 6], 6)


def nearest_in_blocks(flat: np.ndarray, table: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest magnitude s of each block of a vector, and the index of the level nearest to each w / s.

    A weight half-way between two levels takes the lower one.  As in bitsandbytes, whole blocks are multiplied
    by 1 / s and a shorter last one is divided by s, which may fall on the other side of a threshold.

    Args:
        flat: float32 (n,).
        table: rising levels, float32.
        size: of a block.

    Returns:
        s, float32 (⌈n / size⌉,), and the index, uint8 (n,).
    """
    bounds = (table[:-1] + table[1:]) / 2
    scale = np.abs(block_peaks(flat[None], size))
    index = table_indices(flat[None], reciprocal(np.maximum(scale, SMALLEST)), bounds, size)[0]
    whole = len(flat) // size * size
    if whole < len(flat):
        index[whole:] = np.searchsorted(bounds, flat[whole:] / np.maximum(scale[0, -1], SMALLEST))
    return scale[0], index
