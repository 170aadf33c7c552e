"""What llama.cpp writes for a weight matrix, through libgguf, which is its code as a package.

K- and IQ-quants search for scales, minima and points of their grids: hundreds of lines whose result depends on every
detail, so that they are called and not written again.  What they wrote is read as from a file.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from rdlib.checkpoints.readers.gguf import GGUFDecoder
from rdlib.code.code import Code
from rdlib.models.gguf.floats import FloatType
from rdlib.models.gguf.types import named_type
from rdlib.quantizers.base import Quantizer
from rdlib.weights import as_float32

WITH = "written by libgguf: pip install 'rdlib[gguf]'"


@dataclass(frozen=True)
class LlamaCpp(Quantizer):
    """Ŵ of a type of GGUF, as llama.cpp quantizes without importance.

    Streams are the fields of the type, see :mod:`rdlib.models.gguf.scalar`, ``tables`` and ``grids``; the rate is that
    of the file, 4.5 bits for Q4_K.

    Args:
        kind: Q2_K … Q6_K, IQ2_XXS … IQ4_XS, Q4_0 and its neighbours.

    Raises:
        ValueError: there is no such type of blocks.
    """

    kind: str = "Q4_K"

    def __post_init__(self) -> None:
        if isinstance(named_type(self.kind), FloatType):
            raise ValueError(f"{self.kind} is a float type, which quantizes nothing.")

    @property
    def _decoder(self) -> GGUFDecoder:
        return GGUFDecoder(named_type(self.kind))

    @property
    def bits(self) -> float:
        """That of the type, side information and all."""
        return self._decoder.bits

    @property
    def method(self) -> str:
        return f"llama.cpp {self.kind}"

    def at(self, bits: float) -> Self:
        if bits != self.bits:
            raise ValueError(f"{self.kind} has {self.bits:g} bits and no other rate, not {bits!r}.")
        return self

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        """See :meth:`rdlib.quantizers.base.Quantizer.quantize`.

        Raises:
            ValueError: rows are no whole blocks, or libgguf is not installed.
        """
        return self._decoder.encoded(self.blocks(W, H))

    def blocks(self, W: np.ndarray, H: np.ndarray | None = None) -> np.ndarray:
        """The bytes of a file, uint8 (out, bytes of a row); raises as :meth:`quantize` does."""
        return self._blocks(W, None)

    def _blocks(self, W: np.ndarray, importance: np.ndarray | None) -> np.ndarray:
        values, kind = as_float32(W), named_type(self.kind)
        kind.row_bytes(values.shape[1])
        try:
            import libgguf
        except ImportError:
            raise ValueError(f"{self.method} is {WITH}") from None
        number = libgguf.GGMLQuantizationType[self.kind]
        if importance is None and libgguf.quantize_requires_imatrix(number):
            raise ValueError(f"llama.cpp writes {self.kind} only with importance: use LlamaCppImportance.")
        return libgguf.quantize_rows(values, number, importance)

    def decoded(self, rows: np.ndarray) -> np.ndarray:
        """Ŵ, float32 (out, in), of the bytes of a file."""
        return self._decoder.decode(self._decoder.encoded(rows))

    def reconstruct(self, code: Code) -> np.ndarray:
        return self._decoder.reconstruct(code)


@dataclass(frozen=True)
class LlamaCppImportance(LlamaCpp):
    """The same with importance diag H, as nearly all published files have it (``--imatrix``).

    Scales, minima and indices are chosen to lessen Σ H_ii (w_i − ŵ_i)², weighted by a function of w as well.  The
    layout is the same: importance costs no bit.
    """

    @property
    def method(self) -> str:
        return f"llama.cpp {self.kind}, importance"

    uses_H: ClassVar[bool] = True

    def blocks(self, W: np.ndarray, H: np.ndarray | None = None) -> np.ndarray:
        """See :meth:`LlamaCpp.blocks`; without H all inputs are as important."""
        importance = np.ones(np.shape(W)[-1]) if H is None else np.diagonal(H)
        return self._blocks(W, np.ascontiguousarray(importance, np.float32))


def writable(kinds: Iterable[str], widths: Iterable[int] = ()) -> tuple[list[str], str]:
    """Which of some types can be written here for rows of these lengths, and a sentence on the others.

    The sentence is empty where there are none.
    """
    kinds, widths = list(kinds), sorted(widths)
    try:
        import libgguf  # noqa: F401
    except ImportError:
        return [], f"Left out: {', '.join(kinds)}, {WITH}"
    for n in widths:
        if others := [kind for kind in kinds if n % named_type(kind).size]:
            found, _ = writable([kind for kind in kinds if kind not in others], widths)
            return found, f"Left out: {', '.join(others)}, whose blocks do not divide rows of {n} weights."
    return kinds, ""
