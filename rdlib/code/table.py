"""The models of an entropy coder: a byte a symbol, and little for the symbols that do not occur."""

from dataclasses import dataclass

import numpy as np

from rdlib.code.format import Format

ABSENT = 255  # a symbol that does not occur


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
            raise ValueError(f"A table of shape {shape} is not what these {len(data)} bytes stand for.")
        return array


def varint(n: int) -> bytes:
    """Seven bits a byte, the lowest first, the highest bit of each byte set but for the last (LEB128)."""
    data = b""
    while n > 127:
        data += bytes([n & 127 | 128])
        n >>= 7
    return data + bytes([n])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it.

    Raises:
        ValueError: the bytes end within it, or it is no number of symbols.
    """
    n = shift = 0
    while True:
        if at >= len(data) or shift > 49:
            raise ValueError("A number has no end.")
        byte = data[at]
        n |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return n, at
