"""Checkpoints by autoawq 0.2.9."""

import sys
from pathlib import Path

import numpy as np
import torch
from awq import AutoAWQForCausalLM
from awq.modules.linear import gemm
from awq.quantize.quantizer import AwqQuantizer
from safetensors.torch import load_file

from rdlib.tools.producers.calibration import MODEL, MULTI_HEAD, byte_windows, token_windows
from rdlib.tools.producers.record import layers, read_config, record

PACKAGES = ("autoawq", "transformers", "torch")
CHECKPOINTS = {
    "autoawq": (MODEL, dict(w_bit=4, q_group_size=128, zero_point=True, version="GEMM")),
    "multi-head-autoawq": (MULTI_HEAD, dict(w_bit=4, q_group_size=32, zero_point=True, version="GEMM")),
}


class CpuQuantizer(AwqQuantizer):
    """The package's search with the weights that it means to search with.

    It keeps the weights of a module by ``.cpu()``, which copies from a GPU but on the CPU is the weights themselves:
    the first step of the search then scales them for good, and nothing undoes it.  The checkpoint that comes
    out computes another function, without an error (relative error of down_proj 0.2 instead of 0.01 here).
    """

    def _compute_best_scale(self, x, w_mean, x_mean, module2inspect, *rest):
        kept = {name: tensor.clone() for name, tensor in module2inspect.state_dict().items()}
        module2inspect.state_dict = lambda: kept
        try:
            return super()._compute_best_scale(x, w_mean, x_mean, module2inspect, *rest)
        finally:
            del module2inspect.state_dict


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does."""
    windows = token_windows() if model == MODEL else byte_windows()
    llama = AutoAWQForCausalLM.from_pretrained(str(model), torch_dtype=torch.float16, device_map="cpu")
    llama.quantize(
        None,
        quant_config=options,
        calib_data=windows.tolist(),
        max_calib_seq_len=windows.shape[1],
        quantizer_cls=CpuQuantizer,
    )
    llama.save_quantized(str(folder))


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package's own layer multiplies with them."""
    gemm.TRITON_AVAILABLE = False  # its kernels are for GPUs
    config = read_config(folder)
    found = {}
    for name, parts in layers(load_file(folder / "model.safetensors")).items():
        rows, columns = parts["qweight"].shape[0], parts["scales"].shape[1]
        layer = gemm.WQLinear_GEMM(config["bits"], config["group_size"], rows, columns, False, "cpu")
        layer.load_state_dict(parts)
        found[name] = layer(torch.eye(rows, dtype=torch.float16)).T.float().numpy()
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "autoawq", PACKAGES, CHECKPOINTS, quantize, dequantize)
