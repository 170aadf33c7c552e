"""EXL3's layout: tiles of weights on rings of bits, between two Hadamard transforms.

With W (in, out) as EXL3 has it, 128 inputs and 128 outputs are a block, and H₁₂₈ is Hadamard's matrix over √128:

    Ŵ = diag(suh) · H₁₂₈ · C · H₁₂₈ · diag(svh)        in every block.

C consists of tiles of 16 × 16, and a tile is a ring of 256·K bits, in words of 32, the highest bit of each first.
Weight t is the code, in float16, of the 16 bits of the ring that end with bit (t + 1)·K; it lies in the tile where a
tensor core has it.

H·C·H is computed in float64, and exact there, since C is of float16: Ŵ does not depend on the order of the sums.  Its
product with the scales is rounded to float32.

References:
    turboderp 2025, exllamav3, ``exl3_dq.cuh``, ``pack.cu``, ``tensor_core_perm`` and ``LinearEXL3.get_weight_tensor``;
    gptqmodel 7.6.0, ``ExllamaV3TorchLinear``, which does not round the codes to float16.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from rdlib.code.code import Code
from rdlib.code.decoder import Decoder
from rdlib.quantizers.transform.hadamard import butterflies
from rdlib.quantizers.trellis.computed import REGISTER, computed_code

BLOCK, TILE, RING = 128, 16, 256


def _places() -> np.ndarray:
    """Place (16·input + output) of each weight of a tile: eight of each of 32 threads, in two rows and two halves."""
    thread, k = np.divmod(np.arange(RING), 8)
    inputs = 2 * (thread % 4) + k % 2 + 8 * (k // 2 % 2)
    return TILE * inputs + thread // 4 + 8 * (k // 4)


PLACES = _places()


@dataclass(frozen=True)
class RingDecoder(Decoder):
    """Ŵ of a layer of EXL3.

    Streams: ``index`` (the K bits of each weight, (in / 16, out / 16, 256)), ``input_scale`` and ``output_scale``
    (suh and svh, floats, or signs of one bit).

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
        return _decoded(index, self.bits, table, PLACES, suh / BLOCK, svh)[
            : code.shape[0], : code.shape[1]
        ].copy()


def _factors(scale: np.ndarray) -> np.ndarray:
    """Scales, or signs that are stored as bits, float64."""
    return 1.0 - 2.0 * scale if scale.dtype.kind == "u" else scale.astype(np.float64)


@njit(parallel=True, cache=True)
def symbols_of(words: np.ndarray, bits: int) -> np.ndarray:
    """The symbols of rings, uint8 (n, m, 256), from words (n, m, 8·bits) whose highest bit comes first."""
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
        butterflies(block.reshape(-1), BLOCK)
        block = block.T.copy()
        butterflies(block.reshape(-1), BLOCK)
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
