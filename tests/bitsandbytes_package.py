"""bitsandbytes itself, on the CPU: what it makes of a weight matrix, without a model around it."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer
from rdlib.checkpoints.readers.bitsandbytes import BitsAndBytes4
from rdlib.checkpoints.readers.llm_int8 import BitsAndBytes8
from rdlib.models.settings import Settings
from rdlib.weights import BFLOAT16, as_matrix, refuse_non_finite


def quantize_by_package(W: np.ndarray, kind: str, double_quantized: bool = False) -> EncodedLayer:
    """The code that bitsandbytes writes for a weight matrix: NF4 or FP4 in blocks of 64, or int8 by rows.

    It is read from the very tensors that a checkpoint would hold.  The matrix is quantized as it is, not as part
    of a model: a forward pass may repack the weights of a model in place, after which they decode to garbage.

    Args:
        W: (out, in), float16, bfloat16 or float32; int8 rounds it to float16 first, as the package does.
        kind: nf4, fp4 or int8.
        double_quantized: whether the scales of 4-bit blocks are quantized to 8 bits once more.

    Raises:
        ValueError: ``kind`` is unknown, or ``W`` is no weight matrix or holds NaN or Inf.
    """
    from bitsandbytes.functional import int8_vectorwise_quant, quantize_4bit  # two seconds, when it is needed

    refuse_non_finite(as_matrix(W))
    tensor = _to_torch(W)
    match kind:
        case "int8":
            weight, scale, _ = int8_vectorwise_quant(tensor.to(torch.float16))
            return BitsAndBytes8(None).read(_parts({"weight": weight, "SCB": scale}))
        case "nf4" | "fp4":
            weight, state = quantize_4bit(tensor, quant_type=kind, compress_statistics=double_quantized)
            stored = {f"weight.{name}": part for name, part in state.as_dict(packed=True).items()}
            settings = Settings(Path("W"), {"quantization_config": {"bnb_4bit_quant_type": kind}})
            return BitsAndBytes4(SimpleNamespace(settings=settings)).read(_parts({"weight": weight} | stored))
    raise ValueError(f"bitsandbytes has the kinds nf4, fp4 and int8, not {kind!r}.")


def _to_torch(W: np.ndarray) -> torch.Tensor:
    """A copy, since torch may write to what it is given."""
    if W.dtype == BFLOAT16:
        return torch.from_numpy(W.view(np.uint16).copy()).view(torch.bfloat16)
    return torch.from_numpy(W.copy())


def _parts(tensors: Mapping[str, torch.Tensor]) -> LayerTensors:
    return LayerTensors(
        "W", tensors, lambda suffix: tensors[suffix].numpy(), lambda suffix: tuple(tensors[suffix].shape)
    )
