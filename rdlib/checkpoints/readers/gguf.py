"""GGUF files as quantized checkpoints: their tensors as codes: the fields of the format are the streams.

The price of the streams is what the file pays, but for their last bytes.  What a lossless coder of each field alone
would save is the difference to its entropy, see :func:`rdlib.checkpoints.lossless.entropies`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.gguf.blocks import TensorType
from rdlib.models.gguf.fields import Field, Half
from rdlib.models.gguf.model import GGUFContainer, GGUFTensor
from rdlib.models.gguf.names import unpermuted
from rdlib.models.weight import Kind


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


class GGUFReader(Reader):
    """The quantized matrices of a GGUF file, each of a type of its own; the embedding and the head are among them."""

    marks: ClassVar[tuple[str, ...]] = ("weight",)
    streams: ClassVar[Mapping[str, str]] = {"weight": "blocks"}

    def __init__(self, checkpoint: Checkpoint):
        container = checkpoint.container
        self._tensors: dict[str, GGUFTensor] = {
            t.name: t for t in container.tensors.values() if t.kind is Kind.WEIGHT and t.quantized
        }
        if not self._tensors:
            raise ValueError(f"{container.path.name} holds floats alone: it is not quantized.")
        weights = Counter()
        for tensor in self._tensors.values():
            weights[tensor.type] += tensor.size
        most = GGUFDecoder(weights.most_common(1)[0][0])
        self.bits, self.method = most.bits, most.method

    @classmethod
    def reads(cls, checkpoint: Checkpoint) -> bool:
        return isinstance(checkpoint.container, GGUFContainer)

    def stems(self, names: Iterable[str]) -> list[str]:
        return [name.removesuffix(".weight") for name in names if name in self._tensors]

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        return self._tensors[parts.name("weight")].shape

    def read(self, parts: LayerTensors) -> EncodedLayer:
        decoder = GGUFDecoder(self._tensors[parts.name("weight")].type)
        return EncodedLayer(
            decoder.encoded(parts.octets("weight").reshape(self.shape(parts)[0], -1)), decoder
        )

    def other_readings(self, name: str, code: Code) -> Mapping[str, Code]:
        """Rows of q and k as they lie in the file, and put in order twice: mistakes that converters make."""
        heads = self._tensors[name].heads
        if heads is None:
            return {}
        twice = _rows_in_order(code, unpermuted(np.arange(code.shape[0]), heads))
        once = _rows_in_order(code, np.argsort(unpermuted(np.arange(code.shape[0]), heads)))
        return {"its rows as they lie in the file": once, "its rows put in order twice": twice}


def _rows_in_order(code: Code, order: np.ndarray) -> Code:
    """The code of the same rows in another order."""
    streams = {name: Stream(s.array[order], s.format) for name, s in code.streams.items()}
    return Code(code.shape, streams)
