"""A layer that a quantizer left as it was, in a checkpoint whose other layers are quantized."""

from dataclasses import dataclass

import numpy as np

from rdlib.checkpoints.layout import EncodedLayer
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.code.floats import FLOATS


@dataclass(frozen=True)
class Unquantized(Decoder):
    """Ŵ = W at the width in which it is stored: stream ``weight``.

    Args:
        bits: nominal rate of the file, by which its layers are put together in tables; the price is that of the stream.
        method: of the file.
    """

    bits: int
    method: str

    def reconstruct(self, code: Code) -> np.ndarray:
        return code["weight"].astype(np.float32)


def left_alone(W: np.ndarray, bits: int, method: str) -> EncodedLayer:
    """The code of a layer that is stored as it is.

    Args:
        W: (out, in), of a float type; one that no stream has is widened to float32.
        bits: nominal rate of the file.
        method: of the file.
    """
    dtype = W.dtype.name if W.dtype.name in FLOATS else "float32"
    return EncodedLayer(Code(W.shape, {"weight": Stream.floats(W, dtype)}), Unquantized(bits, method))
