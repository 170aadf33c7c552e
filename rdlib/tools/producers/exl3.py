"""A checkpoint in the format EXL3, decoded by gptqmodel 7.6.0.

What writes EXL3 does so on GPUs alone.  So this one is written by rdlib's own Viterbi search, in the layout of
exllamav3's ``pack_trellis`` and ``tensor_core_perm``: 1 to 8 bits, each code, matrices that are filled up to blocks.
What is recorded is not of rdlib: codes and places are those that gptqmodel decodes, rounded to float16 as exllamav3's
kernels have them, and the transforms are products of matrices in float64, where they are exact.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from gptqmodel.nn_modules.exllamav3_torch import ExllamaV3TorchLinear
from safetensors.torch import load_file, save_file
from scipy.linalg import block_diag, hadamard

from rdlib.quantizers.trellis.computed import MULTIPLIERS, computed_code
from rdlib.quantizers.trellis.viterbi import tail_biting_paths
from rdlib.tools.producers.calibration import MULTI_HEAD
from rdlib.tools.producers.record import SEED, layers, record

PACKAGES = ("gptqmodel", "torch")
LAYERS = {  # K and code by the end of the name
    "q_proj": (1, "mul1"),
    "k_proj": (2, "mcg"),
    "v_proj": (3, "3inst"),
    "o_proj": (4, "mul1"),
    "gate_proj": (5, "mcg"),
    "up_proj": (7, "3inst"),
    "down_proj": (8, "mul1"),
    "lm_head": (6, "mcg"),
}
CHECKPOINTS = {"multi-head-exl3": (MULTI_HEAD, {"layers": LAYERS})}
BLOCK, TILE = 128, 16


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Write the layers with signs drawn at random, and all other tensors in float16."""
    random = np.random.default_rng(SEED)
    stored = {}
    tensors = load_file(model / "model.safetensors")
    for name, tensor in [*tensors.items(), ("lm_head.weight", tensors["model.embed_tokens.weight"])]:
        stem = name.removesuffix(".weight")
        if stem.rpartition(".")[2] in options["layers"]:
            bits, codebook = options["layers"][stem.rpartition(".")[2]]
            coded = _coded(tensor.float().numpy().T.astype(np.float64), bits, codebook, random)
            stored |= {f"{stem}.{part}": torch.from_numpy(array) for part, array in coded.items()}
        else:
            stored[name] = tensor.half()
    save_file(stored, folder / "model.safetensors")
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    settings = {"quant_method": "exl3", "version": "0.0.43", "bits": 4.0, "head_bits": 6, "codebook": "mul1"}
    config["quantization_config"] = settings
    (folder / "config.json").write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint, the codes of which the package decodes."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found = {}
    for name, parts in layers(load_file(folder / "model.safetensors"), "trellis").items():
        inputs, outputs = len(parts["suh"]), len(parts["svh"])
        layer = ExllamaV3TorchLinear.from_tensors(
            in_features=inputs, out_features=outputs, name=name, tensors=parts
        )
        C = layer.get_inner_weight_tensor().half().double().numpy()
        W = _blocks(inputs) @ C @ _blocks(outputs) / BLOCK
        W = W * parts["suh"].double().numpy()[:, None] * parts["svh"].double().numpy()
        found[name] = W.astype(np.float32).T[: _size(config, name, 0), : _size(config, name, 1)]
    return found


def _size(config: dict, name: str, axis: int) -> int:
    """Outputs or inputs of a layer of the model with multi-head attention."""
    wide = {"gate_proj": 0, "up_proj": 0, "down_proj": 1}.get(name.split(".")[-2]) == axis
    if name.startswith("lm_head") and axis == 0:
        return config["vocab_size"]
    return config["intermediate_size" if wide else "hidden_size"]


def _coded(W: np.ndarray, bits: int, codebook: str, random: np.random.Generator) -> dict[str, np.ndarray]:
    """The tensors of W (in, out), the nearest code of each tile without feedback of errors."""
    whole = np.pad(W, [(0, -n % BLOCK) for n in W.shape])
    suh, svh = (random.choice([-1.0, 1.0], n) for n in whole.shape)
    rotated = _blocks(len(suh)) @ (whole * suh[:, None] * svh) @ _blocks(len(svh)) / BLOCK
    blocks = rotated.reshape(len(suh), -1, BLOCK)
    sigma = np.repeat(np.sqrt((blocks**2).mean(axis=(0, 2))), BLOCK)  # of each block of outputs
    rotated /= sigma
    tiles = rotated.reshape(len(suh) // TILE, TILE, len(svh) // TILE, TILE).swapaxes(1, 2)
    x = (tiles.reshape(-1, TILE * TILE)[:, _order()]).astype(np.float32)
    code = computed_code(codebook).astype(np.float32)
    scale = (
        np.abs(x).max() / code.max() if bits > 4 else 1 / code.std()
    )  # with many bits nothing may be cut off
    code *= scale
    states = tail_biting_paths(x[:, ::-1, None], np.zeros(len(code)), code, bits, 128)[:, ::-1]
    ring = (states[..., None] >> np.arange(bits)[::-1] & 1).reshape(
        len(x), -1
    )  # the highest bit of each symbol first
    words = np.packbits(ring.astype(np.uint8), axis=1).view(">u4").astype("<u4")
    coded = {
        "trellis": words.view("<i2").reshape(len(suh) // TILE, len(svh) // TILE, TILE * bits),
        "suh": suh.astype(np.float16),
        "svh": (svh * sigma * scale).astype(np.float16),
    }
    if codebook != "3inst":
        coded[codebook] = np.array(MULTIPLIERS[codebook], np.uint32).view(np.int32)
    return coded


def _blocks(n: int) -> np.ndarray:
    """Hadamard's matrix of 128 along the diagonal."""
    return block_diag(*[hadamard(BLOCK).astype(np.float64)] * (n // BLOCK))


def _order() -> list[int]:
    """Place in a tile, row after row, of each weight in the order of a tensor core."""
    order = []
    for thread in range(32):
        rows = [2 * (thread % 4) + r for r in (0, 1, 8, 9)]
        order += [TILE * r + c for c in (thread // 4, thread // 4 + 8) for r in rows]
    return order


if __name__ == "__main__":
    record(Path(sys.argv[1]), "exl3", PACKAGES, CHECKPOINTS, quantize, dequantize)
