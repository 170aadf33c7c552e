"""A layer that a quantizer left as it was, in a checkpoint whose other layers are quantized."""

from dataclasses import dataclass

import numpy as np

from rdlib.checkpoints.reader import EncodedLayer
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.code.floats import FLOATS

HALF = 1 << 16


@dataclass(frozen=True)
class Unquantized(Decoder):
    """Ŵ = W: the index of a weight is its bit pattern.

    Streams: ``index``, 16 bits a weight, of float32 the upper ones; ``low``, the lower 16 bits of float32.

    Args:
        bits: nominal rate of the file, by which tables put its layers together; the price is that of the streams.
        method: of the file.
        dtype: float16, bfloat16 or float32.
    """

    bits: int
    method: str
    dtype: str

    def reconstruct(self, code: Code) -> np.ndarray:
        pattern = code["index"].astype(np.uint16)
        if self.dtype == "float32":
            return (pattern.astype(np.uint32) << 16 | code["low"].astype(np.uint32)).view(np.float32)
        return pattern.view(FLOATS[self.dtype]).astype(np.float32)


def left_alone(W: np.ndarray, bits: int, method: str) -> EncodedLayer:
    """The code of a layer that is stored as it is.

    Args:
        W: (out, in), float16, bfloat16 or float32.
        bits: nominal rate of the file.
        method: of the file.
    """
    W = np.ascontiguousarray(W)
    if W.dtype == np.float32:
        pattern = W.view(np.uint32)
        halves = {"index": pattern >> 16, "low": pattern & 0xFFFF}
    else:
        halves = {"index": W.view(np.uint16)}
    streams = {name: Stream.fixed(half.astype(np.uint16), HALF) for name, half in halves.items()}
    return EncodedLayer(Code(W.shape, streams), Unquantized(bits, method, W.dtype.name))
