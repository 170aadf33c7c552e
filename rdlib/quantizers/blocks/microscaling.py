"""Microscaling formats: E2M1 floats with a one-byte scale for a few neighbours.

Ŵ of both equals that of torchao's ``prototype.mx_formats`` on the same weights.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.quantizers.blocks.blocks import BlockFormat, block_peaks, reciprocal, table_indices, table_weights
from rdlib.weights import as_float32, ratio

MAGNITUDES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)  # of E2M1, in the order of its bits
TABLE = np.concatenate([-MAGNITUDES[::-1], MAGNITUDES])  # with both zeros of the format
LARGEST_E2M1, LARGEST_E4M3, SMALLEST_E4M3 = np.float32(6), np.float32(448), np.float32(2**-6)


def _bounds() -> np.ndarray:
    """Between the levels of the table, so that a weight half-way between two takes the one of even mantissa."""
    middle = (MAGNITUDES[:-1] + MAGNITUDES[1:]) / 2
    odd = np.arange(len(middle)) % 2 == 1
    above = np.where(odd, np.nextafter(middle, np.float32(0)), middle)  # |w| > above is the next magnitude
    just_below = np.nextafter(np.append(-above[::-1], np.float32(0)), np.float32(-np.inf))
    return np.concatenate([just_below, above])


BOUNDS = _bounds()


@dataclass(frozen=True)
class MXFP4(BlockFormat):
    """ŵ = 2^e·t_q, e = ⌊log₂ max |w|⌋ − 2 for each block, t the 16 floats E2M1; 4.25 bits at block 32.

    A largest weight between 6 and 8 times 2^e is cut to 6.  Blocks run along a row, and the last one of a row may
    be shorter.  Streams: ``index`` (4 bits), ``scale`` (2^e, E8M0: 8 / size bits a weight).

    References:
        Open Compute Project, Microscaling Formats (MX) Specification 1.0 (2023), sections 5.3.3 and 6.3;
        Rouhani et al. 2023, arXiv:2310.10537.
    """

    family: ClassVar[str] = "MXFP4"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        largest = np.abs(block_peaks(values, self.size))
        exponent = np.where(largest > 0, np.frexp(largest)[1] - 3, -127)  # frexp: largest = m·2^e, ½ ≤ m < 1
        scale = Stream.floats(np.ldexp(np.float32(1), np.maximum(exponent, -127)), "float8_e8m0fnu")
        index = table_indices(values, reciprocal(scale.array), BOUNDS, self.size)
        return Code(values.shape, {"index": Stream.fixed(index, len(TABLE)), "scale": scale})

    def reconstruct(self, code: Code) -> np.ndarray:
        return table_weights(code["index"], code["scale"], TABLE, self.size)


@dataclass(frozen=True)
class NVFP4(BlockFormat):
    """ŵ = (s·s_g)·t_q: s_g an E4M3 for each block, s a float32 for all, t the 16 floats E2M1; 4.5 bits at block 16.

    s = max |w| / (448·6), so that the largest block has the largest s_g; a block far below the others has an s_g of
    no less than 2⁻⁶.  Blocks run along a row, and the last one of a row may be shorter.  Weights below about 10⁻³⁵
    become zero.  Streams: ``index`` (4 bits), ``scale`` (s_g, E4M3: 8 / size bits a weight), ``tensor_scale`` (s).

    References:
        NVIDIA 2025, arXiv:2509.25149, section 2 and appendix C.
    """

    size: int = 16
    family: ClassVar[str] = "NVFP4"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        largest = np.abs(block_peaks(values, self.size))
        tensor_scale = largest.max(initial=0, keepdims=True).reshape(1) / (LARGEST_E4M3 * LARGEST_E2M1)
        relative = ratio(largest / LARGEST_E2M1, tensor_scale)
        scale = Stream.floats(np.clip(relative, SMALLEST_E4M3, LARGEST_E4M3), "float8_e4m3fn")
        inverse = reciprocal(tensor_scale) / scale.array.astype(np.float32)
        streams = {
            "index": Stream.fixed(table_indices(values, inverse, BOUNDS, self.size), len(TABLE)),
            "scale": scale,
            "tensor_scale": Stream.floats(tensor_scale, "float32"),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        scale = code.number("tensor_scale") * code["scale"].astype(np.float32)
        return table_weights(code["index"], scale, TABLE, self.size)
