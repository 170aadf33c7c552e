"""ŵ = a·v[q] − m: what all block types of GGUF have in common.

A block has a few hundred bytes: indices q into a public table v of numbers or of vectors, and what the scales a and the
minima m of its stretches are computed from.  Types differ in where the fields lie, in the table, and in how a
and m follow; each is one :class:`BlockType`.

Arithmetic is in float32 in the order of the package ``gguf``, so that weights are equal to the last bit.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from rdlib.models.gguf.fields import Field

Fields = Mapping[str, np.ndarray]  # name → symbols of every block, (blocks, n)
CHUNK = 1 << 15  # weights decoded at a time: what is on the way stays in the cache


class TensorType(ABC):
    """How a tensor of a GGUF file is stored.

    Attributes:
        method: name of the type.
        size: weights in a block.
        bytes: of a block.
        fields: name of a field → where it lies in a block.
    """

    size: int
    bytes: int
    fields: Mapping[str, Field]

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of so many weights.

        Raises:
            ValueError: they are no whole blocks.
        """
        if columns % self.size:
            raise ValueError(
                f"Rows of {columns} weights are no whole blocks of {self.method}, of {self.size}."
            )
        return columns // self.size * self.bytes

    def read(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The symbols of every field, (out, symbols in a row), of the bytes of rows, uint8 (out, bytes of a row)."""
        blocks = rows.reshape(-1, self.bytes)
        return {name: field.read(blocks).reshape(len(rows), -1) for name, field in self.fields.items()}

    def weights(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Ŵ, float32 (out, in), straight from the bytes; NaN and Inf pass.

        Args:
            rows: uint8, (out, bytes of a row).
            out: where it goes; a new array where None.
        """
        blocks = rows.reshape(-1, self.bytes)
        if out is None:
            out = np.empty((len(rows), rows.shape[1] // self.bytes * self.size), np.float32)
        flat, step = out.reshape(-1, self.size), max(1, CHUNK // self.size)
        with np.errstate(all="ignore"):
            for i in range(0, len(blocks), step):
                chunk = blocks[i : i + step]
                self.compute({n: f.read(chunk) for n, f in self.fields.items()}, flat[i : i + step])
        return out

    @abstractmethod
    def compute(self, fields: Fields, out: np.ndarray) -> None:
        """Fill ``out``, float32 (blocks, size), from the symbols of blocks."""

    def __reduce__(self) -> tuple:
        from rdlib.models.gguf.types import named_type  # which names all types, so it imports this module

        return named_type, (self.method,)


@dataclass(frozen=True, eq=False)
class BlockType(TensorType):
    """ŵ = a·v[q] − m.

    Args:
        method: name of the type.
        size: weights in a block.
        bytes: of a block.
        fields: ``index`` (q), ``sign`` (of eight weights) where there is one, and what a and m follow from.
        scale: a of the fields, float32 (blocks, stretches).
        table: v, float32 (symbols, numbers in a vector).
        minimum: m of the fields, likewise; zero where None.
        symbols: q of the fields, where it is not ``index`` itself.
    """

    method: str
    size: int
    bytes: int
    fields: Mapping[str, Field]
    scale: Callable[[Fields], np.ndarray]
    table: Callable[[], np.ndarray]
    minimum: Callable[[Fields], np.ndarray] | None = None
    symbols: Callable[[Fields], np.ndarray] | None = None

    def compute(self, fields: Fields, out: np.ndarray) -> None:
        a = self.scale(fields)
        m = self.minimum(fields) if self.minimum else np.zeros_like(a)
        q = self.symbols(fields) if self.symbols else fields["index"]
        table = self.table()
        if table.shape[1] == 1:
            _affine(q, table[:, 0], a, m, out)
        else:
            _affine_vectors(q, table, a, m, out)
        if "sign" in fields:
            octets = out.reshape(len(out), -1, 8)
            octets *= SIGNS[fields["sign"]] if self.fields["sign"].bits == 8 else EVEN_SIGNS[fields["sign"]]


@njit(cache=True, error_model="numpy")
def _affine(q: np.ndarray, table: np.ndarray, a: np.ndarray, m: np.ndarray, out: np.ndarray) -> None:
    """Out = a·table[q] − m, a and m constant on stretches of equal length."""
    blocks, stretches = a.shape
    run = q.shape[1] // stretches
    for b in range(blocks):
        for s in range(stretches):
            scale, minimum, index, W = a[b, s], m[b, s], q[b], out[b]
            for i in range(s * run, (s + 1) * run):
                W[i] = scale * table[index[i]] - minimum


@njit(cache=True, error_model="numpy")
def _affine_vectors(q: np.ndarray, table: np.ndarray, a: np.ndarray, m: np.ndarray, out: np.ndarray) -> None:
    """The same where a symbol stands for several numbers, one after the other."""
    blocks, stretches = a.shape
    run, dimension = q.shape[1] // stretches, table.shape[1]
    for b in range(blocks):
        k = 0
        for s in range(stretches):
            scale, minimum = a[b, s], m[b, s]
            for i in range(s * run, (s + 1) * run):
                for j in range(dimension):
                    out[b, k] = scale * table[q[b, i], j] - minimum
                    k += 1


def levels(*numbers: float) -> Callable[[], np.ndarray]:
    """A table of numbers."""
    table = np.array(numbers, np.float32)[:, None]
    return lambda: table


def _sign_table(octets: np.ndarray) -> np.ndarray:
    """±1 of the bits of bytes, the lowest first; a bit that is set is −1."""
    return (1 - 2 * (octets[:, None] >> np.arange(8) & 1)).astype(np.float32)


SIGNS = _sign_table(np.arange(256))
EVEN_SIGNS = SIGNS[[i | i.bit_count() % 2 << 7 for i in range(128)]]  # the eighth makes the number of −1 even
