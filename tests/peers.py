"""What the packages that our block formats come from make of the same weights: Ŵ as float32.

bitsandbytes and gguf come with the extra ``test``, torchao and hqq with the extra ``peers``; each is imported when
it is first asked.
"""

import contextlib
import io
import warnings

import ml_dtypes
import numpy as np
import torch


def as_tensor(W: np.ndarray) -> torch.Tensor:
    """The same weights in the same type and memory."""
    if W.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(W.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(W)


def bitsandbytes_4bit(W: np.ndarray, kind: str, size: int, double: bool = False) -> tuple[np.ndarray, float]:
    """Ŵ of ``quantize_4bit``, and the mean of the scales where they are double-quantized."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(as_tensor(W), blocksize=size, quant_type=kind, compress_statistics=double)
    state.dtype = torch.float32
    with torch.compiler.set_stance("force_eager"):  # odd rows would be compiled for each shape
        return dequantize_4bit(packed, state).numpy().reshape(W.shape), float(state.offset or 0)


def bitsandbytes_int8(W: np.ndarray) -> np.ndarray:
    """Ŵ of ``int8_vectorwise_quant``."""
    from bitsandbytes.functional import int8_vectorwise_dequant, int8_vectorwise_quant

    integers, scale, _ = int8_vectorwise_quant(as_tensor(W))
    return int8_vectorwise_dequant(integers, scale).numpy()


def torchao_mxfp4(W: np.ndarray) -> np.ndarray:
    """Ŵ of ``MXTensor`` in its default mode, the rule of the specification; bfloat16 or float32."""
    from torchao.prototype.mx_formats.mx_tensor import MXTensor

    return MXTensor.to_mx(as_tensor(W), torch.float4_e2m1fn_x2, 32).dequantize(torch.float32).numpy()


def torchao_nvfp4(W: np.ndarray) -> np.ndarray:
    """Ŵ of ``NVFP4Tensor`` with a scale for the tensor."""
    from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale

    tensor = as_tensor(W).to(torch.bfloat16 if W.dtype == ml_dtypes.bfloat16 else torch.float32)
    scale = per_tensor_amax_to_scale(tensor.abs().max())
    return NVFP4Tensor.to_nvfp4(tensor, per_tensor_scale=scale).dequantize(torch.float32).numpy()


def gguf_weights(W: np.ndarray, name: str) -> np.ndarray:
    """Ŵ of one of the plain formats of ``gguf.quants``."""
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    kind = GGMLQuantizationType[name]
    return dequantize(quantize(W, kind), kind)


def hqq_code(W: np.ndarray, bits: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Index of each weight, scale and zero of each group, as hqq's base configuration with ``axis=1`` finds them."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):  # its import
        from hqq.core.quantize import Quantizer

    index, meta = Quantizer.quantize(
        as_tensor(W),
        nbits=bits,
        group_size=size,
        optimize=True,
        round_zero=bits == 4,
        axis=1,
        bitpack=False,
        device="cpu",
    )
    groups = (len(W), -1)
    return (
        index.float().numpy().astype(np.uint8).reshape(W.shape),
        meta["scale"].numpy().reshape(groups),
        meta["zero"].numpy().reshape(groups),
    )


def hqq_weights(W: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Ŵ of hqq with its scale and zero stored as float16, computed in float32."""
    index, scale, zero = hqq_code(W, bits, size)
    scale, zero = (np.repeat(x.astype(np.float16).astype(np.float32), size, axis=1) for x in (scale, zero))
    return (index - zero) * scale
