"""Checkpoints by gptqmodel 7.6.0, the maintained successor of auto-gptq and autoawq."""

import sys
from contextlib import chdir
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from gptqmodel import BACKEND, GPTQModel, QuantizeConfig
from gptqmodel.nn_modules.qlinear.torch import TorchLinear
from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module
from safetensors.torch import load_file

from rdlib.tools.producers.calibration import MODEL, MULTI_HEAD, byte_windows, token_windows
from rdlib.tools.producers.record import layers, read_config, record

PACKAGES = ("gptqmodel", "transformers", "torch")
CHECKPOINTS = {
    "gptqmodel": (MODEL, dict(bits=4, group_size=128, sym=True, format="gptq_v2")),
    "multi-head-gptqmodel-3bit": (MULTI_HEAD, dict(bits=3, group_size=32, sym=False, format="gptq")),
}


def quantize(model: Path, folder: Path, options: dict) -> None:
    """Quantize a model and save it as the package does."""
    windows = torch.from_numpy(token_windows() if model == MODEL else byte_windows())
    config = QuantizeConfig(**options, offload_to_disk=False)  # else a random path gets into config.json
    samples = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in windows]
    with TemporaryDirectory() as elsewhere:  # the package writes logs into the current folder
        target = folder.absolute()
        with chdir(elsewhere):
            llama = GPTQModel.load(str(model), config, dtype=torch.float16, device="cpu")
            llama.quantize(samples, batch_size=1, backend=BACKEND.GPTQ_TORCH)
            llama.save(str(target))
    for extra in ("quant_log.csv", "tokenizer.json", "tokenizer_config.json"):  # times; copies of the model's
        (folder / extra).unlink()


def dequantize(folder: Path) -> dict[str, np.ndarray]:
    """The weights (out, in) of a checkpoint as the package's own layer decodes them."""
    config = read_config(folder)
    found = {}
    for name, parts in layers(load_file(folder / "model.safetensors")).items():
        layer = TorchLinear(
            bits=config["bits"],
            group_size=config["group_size"],
            sym=config["sym"],
            desc_act=config["desc_act"],
            in_features=len(parts["g_idx"]),
            out_features=parts["scales"].shape[1],
            bias=False,
            pack_dtype=torch.int32,
        )
        layer.load_state_dict(parts, strict=False)
        if config["format"] == "gptq":
            convert_gptq_v1_to_v2_format_module(layer, config["bits"], torch.int32)
        layer.post_init()
        found[name] = layer.dequantize_weight().T.float().numpy()
    return found


if __name__ == "__main__":
    record(Path(sys.argv[1]), "gptqmodel", PACKAGES, CHECKPOINTS, quantize, dequantize)
