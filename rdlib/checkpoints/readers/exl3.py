"""EXL3 checkpoints: exllamav3 and gptqmodel write them; QTIP in practice.

With W (in, out) as EXL3 has it, 128 inputs and 128 outputs are a block, and H₁₂₈ is Hadamard's matrix over √128:

    Ŵ = diag(suh) · H₁₂₈ · C · H₁₂₈ · diag(svh)        in every block.

C consists of tiles of 16 × 16.  A tile is stored as one ring of 256·K bits, a row of ``trellis`` (int16, in / 16 × out /
16 × 16·K): 32-bit words, the highest bit of each first.  Weight t of a tile is the code, in float16, of the 16 bits of
the ring that end with bit (t + 1)·K, and its place in the tile is that which a tensor core has for it.  The code is one
of three that are computed: mcg or mul1 where there is a tensor of that name, which holds the multiplier, or else 3inst.
K is that of each matrix; the head has a K of its own, also where it is tied to the embedding, which is stored as it is.
suh and svh are float16; early files have signs in their place, su and sv, packed into int16, a one for −1.

Matrices are filled up with zeros to whole blocks; they are paid for, and cut off by the sizes that config.json gives.

H·C·H is computed in float64, where it is exact, since the entries of C are float16; so there is no other Ŵ, whatever the
order of the sums, before the product with the scales is rounded to float32.

References:
    Tseng et al. 2024 (QTIP), arXiv:2406.11235; turboderp 2025, exllamav3 0.0.x, ``LinearEXL3.get_weight_tensor``;
    gptqmodel 7.6.0, ``ExllamaV3TorchLinear``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numba import njit, prange

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.code.code import Code, Stream
from rdlib.code.decoder import Decoder
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import layer_and_group
from rdlib.quantizers.trellis.computed import MULTIPLIERS, REGISTER, computed_code

BLOCK, TILE, RING = 128, 16, 256


def _places() -> np.ndarray:
    """Place (16·input + output) of each weight of a tile: eight of each of 32 threads, in two rows and two halves."""
    thread, k = np.divmod(np.arange(RING), 8)
    inputs = 2 * (thread % 4) + k % 2 + 8 * (k // 2 % 2)
    return TILE * inputs + thread // 4 + 8 * (k // 4)


PLACES = _places()


@dataclass(frozen=True)
class Exl3Decoder(Decoder):
    """Ŵ of a layer of EXL3.

    Streams: ``index`` (K bits a weight, (in / 16, out / 16, 256)), ``input_scale`` and ``output_scale`` (suh and svh,
    float16, or signs of one bit).

    Args:
        bits: K, new bits of a weight.
        codebook: 3inst, mcg or mul1.
    """

    bits: int
    codebook: str

    @property
    def method(self) -> str:
        return f"EXL3 {self.codebook}"

    def reconstruct(self, code: Code) -> np.ndarray:
        index, (suh, svh) = code["index"], (_factors(code[f"{side}_scale"]) for side in ("input", "output"))
        whole = tuple(-(-n // BLOCK) * BLOCK for n in code.shape)
        if index.shape != (whole[1] // TILE, whole[0] // TILE, RING) or index.dtype != np.uint8:
            raise ValueError(f"index {index.dtype} {index.shape} is not that of {code.shape}")
        if (len(svh), len(suh)) != whole:
            raise ValueError(f"scales of {len(svh)} and {len(suh)} are not those of {whole}")
        table = computed_code(self.codebook).astype(np.float32)
        return _decoded(index, self.bits, table, PLACES, suh / BLOCK, svh)[: code.shape[0], : code.shape[1]].copy()


def _factors(scale: np.ndarray) -> np.ndarray:
    """Scales, or signs that are stored as bits, float64."""
    return 1.0 - 2.0 * scale if scale.dtype.kind == "u" else scale.astype(np.float64)


class Exl3(Reader):
    """Layers of 1 to 8 bits.

    Args:
        checkpoint: whose config.json gives the sizes of matrices, and the nominal rate.
    """

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
            raise ValueError(f"config.json of {checkpoint.folder.name} says bits = {bits!r}, which is not 1 … 8.")
        self.bits = bits
        self._sizes = _sizes(checkpoint.config)

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self | None:
        return cls(checkpoint) if checkpoint.settings.quant_method in cls.quant_methods else None

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
            raise ValueError(f"{parts.name('trellis')} has the shape {trellis.shape}, which is not of whole blocks of 128.")
        streams = {
            "index": Stream.fixed(_symbols(trellis.view("<u4"), bits), 1 << bits),
            "input_scale": self._scale(parts, "su", TILE * rows),
            "output_scale": self._scale(parts, "sv", TILE * columns),
        }
        return EncodedLayer(Code(self.shape(parts), streams), Exl3Decoder(bits, self._codebook(parts)))

    def _scale(self, parts: LayerTensors, name: str, count: int) -> Stream:
        """Scales of one side, or the signs of early files."""
        if name not in parts:
            scale = parts.floats(f"{name}h", dimensions=1)
            parts.expect(f"{name}h", scale, (count,), "trellis")
            return Stream.floats(scale, scale.dtype.name)
        signs = parts.integers(name, "int16", dimensions=1)
        parts.expect(name, signs, (count // 16,), "trellis")
        return Stream.fixed(np.unpackbits(signs.view(np.uint8), bitorder="little"), 2)

    def _codebook(self, parts: LayerTensors) -> str:
        """The code of a layer, by the tensor of its name."""
        named = [name for name in ("mcg", "mul1") if name in parts]
        for name in named:
            multiplier = parts.integers(name, "int32", "uint32", dimensions=0).view(np.uint32)
            if multiplier != MULTIPLIERS[name] or len(named) > 1:
                raise ValueError(f"{parts.name(name)} holds {multiplier:#x}; rdlib knows {MULTIPLIERS[name]:#x}")
        return named[0] if named else "3inst"


def _sizes(config: Mapping[str, object]) -> dict[str, tuple[int, int]]:
    """(out, in) of the matrices of each group, as far as config.json gives them."""
    named = ("hidden_size", "intermediate_size", "vocab_size", "num_attention_heads", "num_key_value_heads", "head_dim")
    n = {name: size if type(size := config.get(name)) is int and size > 0 else 0 for name in named}
    hidden, inner, heads = n["hidden_size"], n["intermediate_size"], n["num_attention_heads"]
    head = n["head_dim"] or hidden // max(heads, 1)
    query, key = heads * head, (n["num_key_value_heads"] or heads) * head
    sizes = {"q": (query, hidden), "k": (key, hidden), "v": (key, hidden), "o": (hidden, query)}
    sizes |= {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    return sizes | {"lm_head": (n["vocab_size"], hidden)}


@njit(parallel=True, cache=True)
def _symbols(words: np.ndarray, bits: int) -> np.ndarray:
    """The symbols of rings of bits, uint8 (…, 256), from words whose highest bit comes first."""
    rings = words.reshape(-1, words.shape[2])
    symbols, mask = np.empty((len(rings), RING), np.uint8), np.uint64((1 << bits) - 1)
    for i in prange(len(rings)):
        pending, held, w = np.uint64(0), 0, 0
        for t in range(RING):
            if held < bits:
                pending, held, w = pending << np.uint64(32) | np.uint64(rings[i, w]), held + 32, w + 1
            held -= bits
            symbols[i, t] = pending >> np.uint64(held) & mask
    return symbols.reshape(words.shape[0], words.shape[1], RING)


@njit(parallel=True, cache=True)
def _decoded(
    index: np.ndarray, bits: int, table: np.ndarray, places: np.ndarray, suh: np.ndarray, svh: np.ndarray
) -> np.ndarray:
    """Ŵ of whole blocks, float32 (out, in)."""
    W, across = np.empty((len(svh), len(suh)), np.float32), len(suh) // BLOCK
    for b in prange(W.size // BLOCK**2):
        row, column = BLOCK * (b // across), BLOCK * (b % across)  # outputs, inputs
        block, tile = np.empty((BLOCK, BLOCK)), np.empty(RING)
        for i in range(0, BLOCK, TILE):
            for j in range(0, BLOCK, TILE):
                _place(index[(column + i) // TILE, (row + j) // TILE], bits, table, places, tile)
                block[i : i + TILE, j : j + TILE] = tile.reshape(TILE, TILE)
        _hadamard(block)
        block = block.T.copy()
        _hadamard(block)
        for i in range(BLOCK):
            out, values, factor = W[row + i, column : column + BLOCK], block[i], svh[row + i]
            for j in range(BLOCK):
                out[j] = values[j] * suh[column + j] * factor
    return W


@njit(cache=True)
def _place(ring: np.ndarray, bits: int, table: np.ndarray, places: np.ndarray, tile: np.ndarray) -> None:
    """The weights of a ring of symbols, each in its place in a tile."""
    state, width, mask = np.uint32(0), np.uint32(bits), np.uint32(0xFFFF)
    for t in range(RING - REGISTER, RING):  # so many symbols fill the register, at the least
        state = np.uint32(state << width | ring[t])
    for t in range(RING):
        state = np.uint32(state << width | ring[t]) & mask
        tile[places[t]] = table[state]


@njit(cache=True)
def _hadamard(block: np.ndarray) -> None:
    """√128·H₁₂₈ times a block, in place: sums and differences of one, two, four, … rows and those after them."""
    numbers, run = block.reshape(-1), BLOCK
    while run < numbers.size:
        for i in range(0, numbers.size, 2 * run):
            upper, lower = numbers[i : i + run], numbers[i + run : i + 2 * run]
            for k in range(run):
                a, b = upper[k], lower[k]
                upper[k] = a + b
                lower[k] = a - b
        run *= 2
