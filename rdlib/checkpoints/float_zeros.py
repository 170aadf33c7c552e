"""Zero points that are floats, as HQQ has them."""

from dataclasses import dataclass

import numpy as np

from rdlib.checkpoints.affine import round_to
from rdlib.code.code import Code
from rdlib.code.decoder import Decoder


@dataclass(frozen=True)
class FloatZeros(Decoder):
    """ŵ = s·(q − z), s and z floats for each row, or each column, of a matrix V: W in rows of another length.

    Difference and product are each rounded to the type of s and z.  Streams: ``index`` (q, (out, in)), ``scale`` and
    ``zero``, a float of one type for each group.

    Args:
        bits: of an index.
        size: weights of a group.
        axis: 1 where groups are the rows of V, 0 where they are its columns.
    """

    bits: int
    size: int
    axis: int

    @property
    def method(self) -> str:
        return f"HQQ g{self.size}{'' if self.axis else ' axis 0'}"

    def reconstruct(self, code: Code) -> np.ndarray:
        V = code["index"].astype(np.float32)
        V = V.reshape(-1, self.size) if self.axis else V.reshape(self.size, -1)
        dtype = code["scale"].dtype.name
        s, z = (np.expand_dims(code[name].astype(np.float32), self.axis) for name in ("scale", "zero"))
        V -= z
        round_to(dtype, V)
        V *= s
        round_to(dtype, V)
        return V.reshape(code.shape)
