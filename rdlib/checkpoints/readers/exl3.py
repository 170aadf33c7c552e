"""EXL3 checkpoints: exllamav3 and gptqmodel write them; QTIP in practice.

A layer is stored as ``trellis`` (int16, in / 16 × out / 16 × 16·K), ``suh`` and ``svh`` (float16, a scale with a sign
for each input and output), and ``mcg`` or ``mul1`` (the multiplier of its code; 3inst where there is neither).  They
are decoded as :mod:`rdlib.checkpoints.rings` has it.  Early files have signs alone, ``su`` and ``sv``, packed into
int16, a one for −1.  Each matrix has a K of its own.  The head is a layer, also where it is tied to the embedding,
which stays as it is.

Matrices are filled up with zeros to whole blocks of 128; they are paid for, and cut off at the sizes that config.json
gives.

References:
    Tseng et al. 2024 (QTIP), arXiv:2406.11235; turboderp 2025, exllamav3, ``LinearEXL3``.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader, stored
from rdlib.checkpoints.rings import BLOCK, TILE, RingDecoder, symbols_of
from rdlib.code.code import Code, Stream
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import layer_and_group
from rdlib.quantizers.trellis.computed import MULTIPLIERS


class Exl3(Reader):
    """Layers of 1 to 8 bits; config.json gives the sizes of matrices, and the nominal rate."""

    quant_methods: ClassVar[tuple[str, ...]] = ("exl3",)
    marks: ClassVar[tuple[str, ...]] = ("trellis", "suh", "svh", "su", "sv")
    streams: ClassVar[Mapping[str, str]] = {
        "trellis": "index",
        **dict.fromkeys(("suh", "su"), "input_scale"),
        **dict.fromkeys(("svh", "sv"), "output_scale"),
        **dict.fromkeys(("mcg", "mul1"), "table"),
    }
    method = "EXL3"

    def __init__(self, checkpoint: Checkpoint):
        bits = checkpoint.settings.get("bits")
        if type(bits) not in (int, float) or not 1 <= bits <= 8:
            raise ValueError(
                f"config.json of {checkpoint.folder.name} says bits = {bits!r}, which is not 1 … 8."
            )
        self.bits = bits
        self._sizes = _sizes(checkpoint.config)

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        rows, columns, _ = parts.shape("trellis", 3)
        whole = TILE * columns, TILE * rows
        sizes = self._sizes.get(layer_and_group(parts.name("weight"))[1], whole)
        cut = tuple(-(-n // BLOCK) * BLOCK for n in sizes) == whole
        return sizes if cut else whole

    def read(self, parts: LayerTensors) -> EncodedLayer:
        trellis = parts.integers("trellis", "int16", dimensions=3)
        rows, columns, length = trellis.shape
        bits = length // TILE
        if rows * TILE % BLOCK or columns * TILE % BLOCK or length % TILE or not 1 <= bits <= 8:
            raise ValueError(
                f"{parts.name('trellis')} has the shape {trellis.shape}, which is not that of whole blocks of 128 "
                "with 1 to 8 bits a weight."
            )
        streams = {
            "index": Stream.fixed(symbols_of(trellis.view("<u4"), bits), 1 << bits),
            "input_scale": self._scale(parts, "su", TILE * rows),
            "output_scale": self._scale(parts, "sv", TILE * columns),
        }
        return EncodedLayer(Code(self.shape(parts), streams), RingDecoder(bits, self._codebook(parts)))

    def _scale(self, parts: LayerTensors, name: str, count: int) -> Stream:
        """Scales of one side, or the signs of early files."""
        if name not in parts:
            scale = parts.floats(f"{name}h", dimensions=1)
            parts.expect(f"{name}h", scale, (count,), "trellis")
            return stored(scale)
        signs = parts.integers(name, "int16", dimensions=1)
        parts.expect(name, signs, (count // 16,), "trellis")
        return Stream.fixed(np.unpackbits(signs.view(np.uint8), bitorder="little"), 2)

    def _codebook(self, parts: LayerTensors) -> str:
        """The code of a layer, by the tensor of its name."""
        named = [name for name in ("mcg", "mul1") if name in parts]
        for name in named:
            multiplier = parts.integers(name, "int32", "uint32", dimensions=0).view(np.uint32)
            if multiplier != MULTIPLIERS[name] or len(named) > 1:
                raise ValueError(
                    f"{parts.name(name)} holds {multiplier:#x}; rdlib knows {MULTIPLIERS[name]:#x}"
                )
        return named[0] if named else "3inst"


def _sizes(config: Mapping[str, object]) -> dict[str, tuple[int, int]]:
    """(out, in) of the matrices of each group, as far as config.json gives them."""
    named = (
        "hidden_size",
        "intermediate_size",
        "vocab_size",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
    )
    n = {name: size if type(size := config.get(name)) is int and size > 0 else 0 for name in named}
    hidden, inner, heads = n["hidden_size"], n["intermediate_size"], n["num_attention_heads"]
    head = n["head_dim"] or hidden // max(heads, 1)
    query, key = heads * head, (n["num_key_value_heads"] or heads) * head
    sizes = {"q": (query, hidden), "k": (key, hidden), "v": (key, hidden), "o": (hidden, query)}
    sizes |= {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    return sizes | {"lm_head": (n["vocab_size"], hidden)}
