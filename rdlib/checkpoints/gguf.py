"""The tensors of GGUF files as codes: the fields of the format are the streams.

The price of the streams is what the file pays, but for their last bytes.  What a lossless coder of each field alone
would save is the difference to its entropy, see :func:`rdlib.checkpoints.lossless.entropies`.
"""

from dataclasses import dataclass

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.models.gguf.blocks import TensorType
from rdlib.models.gguf.fields import Field, Half


@dataclass(frozen=True)
class GGUFDecoder(Decoder):
    """Ŵ of the fields of blocks, as llama.cpp computes it.

    Args:
        kind: the type of the tensor.
    """

    kind: TensorType

    @property
    def bits(self) -> float:
        return 8 * self.kind.bytes / self.kind.size

    @property
    def method(self) -> str:
        return f"GGUF {self.kind.method}"

    def encoded(self, rows: np.ndarray) -> Code:
        """The code that bytes of a file are.

        Args:
            rows: uint8, (out, bytes of a row).
        """
        symbols, fields = self.kind.read(rows), self.kind.fields
        shape = (len(rows), rows.shape[1] // self.kind.bytes * self.kind.size)
        return Code(shape, {name: _stream(fields[name], array) for name, array in symbols.items()})

    def reconstruct(self, code: Code) -> np.ndarray:
        blocks = code.weights // self.kind.size
        symbols = {}
        for name, field in self.kind.fields.items():
            symbols[name] = code[name].reshape(blocks, field.count)
            if code.streams[name].format != _stream(field, symbols[name][:0]).format:
                raise ValueError(f"{name!r} is in the format {code.streams[name].format}")
        W = np.empty(code.shape, np.float32)
        self.kind.compute(symbols, W.reshape(blocks, self.kind.size))
        return W


def _stream(field: Field, symbols: np.ndarray) -> Stream:
    """The symbols of a field at as many bits as the file has for them."""
    if isinstance(field, Half):
        return Stream.floats(symbols, "float16")
    return Stream.fixed(symbols, 1 << field.bits)
