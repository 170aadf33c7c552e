"""LLM.int8: 8-bit integers with one scale a row."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.blocks.blocks import as_indices, block_peaks, reciprocal, steps_in_blocks, table_weights
from rdlib.weights import as_float32

LAST = 127
INTEGERS = np.arange(-128, 128, dtype=np.float32)  # −128 has a code, but no weight takes it


@dataclass(frozen=True)
class LLMInt8(Quantizer):
    """ŵ = s·q/127, q = round(127·w/s), s the largest magnitude of a row: 8 bits and 32 / in for the scale.

    Ŵ equals that of bitsandbytes (its ``int8_vectorwise_quant`` and ``int8_vectorwise_dequant``) on the same
    weights, bit for bit.  Streams: ``index`` (q + 128, 8 bits), ``scale`` (s, a float32 a row).

    Args:
        bits: 8.

    Raises:
        ValueError: ``bits`` is not 8.  When encoding: 127·s does not fit float32.

    References:
        Dettmers, Lewis, Belkada and Zettlemoyer 2022, arXiv:2208.07339, section 2.
    """

    bits: int = 8
    bits_allowed: ClassVar[range] = range(8, 9)

    @property
    def method(self) -> str:
        return "LLM.int8 channel"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        width = max(values.shape[1], 1)
        scale = np.abs(block_peaks(values, width).ravel())
        if scale.size and scale.max() > np.finfo(np.float32).max / LAST:
            raise ValueError(f"{LAST} times the weight {scale.max():.3g} does not fit float32: scale W down.")
        steps = np.rint(steps_in_blocks(values, reciprocal(scale, LAST)[:, None], width))
        streams = {
            "index": as_indices(steps + len(INTEGERS) // 2, len(INTEGERS)),
            "scale": Stream.floats(scale, "float32"),
        }
        return Code(values.shape, streams)

    def reconstruct(self, code: Code) -> np.ndarray:
        weights = table_weights(code["index"], code["scale"], INTEGERS, max(code.shape[1], 1))
        weights *= np.float32(1 / LAST)  # after s·q, as bitsandbytes does
        return weights
