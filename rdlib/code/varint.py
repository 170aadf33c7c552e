"""Numbers of any size in a file: seven bits a byte (LEB128)."""


def varint(n: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit of each byte is set but for the last."""
    data = b""
    while n > 127:
        data += bytes([n & 127 | 128])
        n >>= 7
    return data + bytes([n])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it.

    Raises:
        ValueError: the bytes end within it, or it is longer than eight bytes.
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
