"""The models of an entropy coder: a byte a symbol, and little for the symbols that do not occur."""

from dataclasses import dataclass

import numpy as np

from rdlib.code.ans import ABSENT
from rdlib.code.format import Format
from rdlib.code.varint import read_varint, varint


@dataclass(frozen=True)
class Table(Format):
    """Bytes of which a run of n ``ABSENT`` ones is written as one, and n − 1 as a varint.

    So an alphabet may be wide: one weight of 5,000 σ puts tens of thousands of symbols between it and the others,
    and costs two or three bytes.
    """

    def bits(self, array: np.ndarray) -> int:
        return 8 * len(self.pack(array))

    def pack(self, array: np.ndarray) -> bytes:
        flat = array.ravel()
        edges = np.flatnonzero(np.diff(flat == ABSENT, prepend=False, append=False))
        data, at = b"", 0
        for begin, end in edges.reshape(-1, 2):
            data += flat[at : begin + 1].tobytes() + varint(int(end - begin - 1))
            at = end
        return data + flat[at:].tobytes()

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> np.ndarray:
        array = np.full(shape, ABSENT, np.uint8)
        flat, count, at = array.reshape(-1), 0, 0
        while at < len(data):
            end = data.find(ABSENT, at)
            end = len(data) if end < 0 else end
            if count + end - at > len(flat):
                break
            flat[count : count + end - at] = np.frombuffer(data, np.uint8, end - at, at)
            count, at = count + end - at, end
            if at < len(data):
                run, at = read_varint(data, at + 1)
                count += run + 1
        if count != len(flat) or self.pack(array) != data:
            raise ValueError(f"These {len(data)} bytes are not a table of shape {shape}.")
        return array
