"""LDLQ: error feedback around codes that span several columns."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.code.fixed import Fixed
from rdlib.code.floats import Float
from rdlib.quantizers.feedback.feedback import feed_forward, feedback_factor
from rdlib.quantizers.feedback.gptq import check_damping
from rdlib.quantizers.wrappers import Wrapper
from rdlib.weights import as_float32


@dataclass(frozen=True)
class LDLQ(Wrapper):
    """Ŵ_B = Q(W_B + feedback of the errors in the blocks before B), every block a code of the inner quantizer.

    Vectors, lattices and trellises run within a block of columns; the errors of a block are fed to those after it.
    Without H, the blocks are coded without feedback.  Streams: those of the inner quantizer, one row a block; every
    block has scales or levels of its own.  Columns of zeros fill up the last block, and cost as much as others.

    Args:
        inner: a quantizer whose streams have a fixed length, of the weights of a block.
        width: columns of a block.
        damping: of H, in units of the mean power of the inputs.

    Raises:
        ValueError: the width is less than 1, the damping negative, or (by ``encode``) the inner quantizer
            writes some blocks with more bits than others: entropy coding, learned codebooks.

    References:
        Tseng et al. 2024 (QuIP#), arXiv:2402.04396, section 4.1 (block LDLQ); Tseng et al. 2024 (QTIP),
        arXiv:2406.11235, with a trellis inside.
    """

    width: int = 16
    damping: float = 0.01

    def __post_init__(self) -> None:
        check_damping(self.damping)
        if self.width < 1:
            raise ValueError(f"A block has at least 1 column, not {self.width}.")

    uses_H: ClassVar[bool] = True
    centred: ClassVar[bool] = True

    @property
    def method(self) -> str:
        return f"LDLQ {self.inner.method}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        columns = values.shape[1]
        missing = -columns % self.width
        padded = np.pad(values, ((0, 0), (0, missing)))
        U = np.eye(padded.shape[1])
        if H is not None:
            U[:columns, :columns] = feedback_factor(H, self.damping)
        blocks: list[Code] = []

        def quantize(start: int, target: np.ndarray) -> np.ndarray:
            blocks.append(self.inner.quantize(target, None))  # encode() might send the means of some
            return self.inner.decode(blocks[-1])

        feed_forward(padded, U, self.width, quantize)
        return Code(values.shape, self._stacked(blocks, len(values)))

    def _stacked(self, blocks: list[Code], rows: int) -> dict[str, Stream]:
        """The streams of all blocks, one row a block."""
        blank = self.inner.encode(np.zeros((rows, self.width), np.float32))
        first, stacked = (blocks[0] if blocks else blank).streams, {}
        for name in {name: None for block in blocks for name in block.streams} | dict(first):
            stream, parts = first.get(name), [block.streams.get(name) for block in blocks]
            fixed = stream and isinstance(stream.format, Fixed | Float)
            if not fixed or any(
                not p or p.format != stream.format or p.array.shape != stream.array.shape for p in parts
            ):
                raise ValueError(
                    f"The stream {name!r} of {self.inner.method!r} is longer for some blocks than for others: "
                    "LDLQ needs codes of a fixed length."
                )
            array = np.array([part.array for part in parts], stream.array.dtype)
            stacked[name] = Stream(array.reshape(len(blocks), *stream.array.shape), stream.format)
        return stacked

    def reconstruct(self, code: Code) -> np.ndarray:
        rows, columns = code.shape
        count = -(-columns // self.width)
        decoded = [np.zeros((rows, 0), np.float32)]
        for k in range(count):
            streams = {name: Stream(s.array[k], s.format) for name, s in code.streams.items()}
            decoded.append(self.inner.decode(Code((rows, self.width), streams)))
        return np.hstack(decoded)[:, :columns]
