"""Decoding of quantized matrices, 2048 × 2048, one thread: million weights a second, beside the packages' own decoders.

    python tests/benchmark_readers.py [table.json]

What is timed begins with the tensors of the file and ends with Ŵ in float32: for GGUF into a buffer that is used again,
for the others through the code, whose streams have prices.  gguf is of the usual environment; compressed-tensors, mlx
and gptqmodel (the peer of EXL3) are of the extra ``producers``, and a row has no peer where it is not installed.
Seconds are those of the processor, the least of several runs, one thread.  Exit 1 where ours is slower than a peer.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[threads] = "1"

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402

from rdlib.checkpoints.narrow_floats import read_nvfp4  # noqa: E402
from rdlib.checkpoints.parts import LayerTensors  # noqa: E402
from rdlib.checkpoints.readers.exl3 import Exl3  # noqa: E402
from rdlib.checkpoints.readers.gptq import Gptq  # noqa: E402
from rdlib.checkpoints.readers.mlx import Layout, Mlx  # noqa: E402
from rdlib.models.gguf.types import named_type  # noqa: E402
from rdlib.models.settings import Settings  # noqa: E402

SIZE, RUNS, WANTED = 2048, 7, 150
MLX = (("affine", 4, 64), ("affine", 3, 64), ("affine", 8, 64))
MLX += (("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16))
TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q8_0")


def rate(work: Callable[[], object]) -> float:
    """Million weights a second."""
    work()  # compile
    seconds = []
    for _ in range(RUNS):
        begin = time.process_time()
        work()
        seconds.append(time.process_time() - begin)
    return SIZE * SIZE / min(seconds) / 1e6


def parts(tensors: dict[str, np.ndarray]) -> LayerTensors:
    return LayerTensors("layer", tensors, tensors.__getitem__, lambda name: tensors[name].shape)


def of_gguf(name: str) -> tuple[Callable, Callable]:
    """Ours and gguf's decoder of random blocks with finite scales."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    kind, rng = named_type(name), np.random.default_rng(0)
    rows = rng.integers(0, 60, (SIZE, kind.row_bytes(SIZE)), np.uint8)
    out, number = np.empty((SIZE, SIZE), np.float32), GGMLQuantizationType[name]
    return (lambda: kind.weights(rows, out)), (lambda: dequantize(rows, number))


def of_gptq(bits: int) -> tuple[Callable, Callable | None]:
    """Ours, and compressed-tensors' decoder of as many packed integers in groups of 128."""
    rng, groups = np.random.default_rng(0), SIZE // 128
    words, scales = SIZE * bits // 32, rng.uniform(0.01, 0.1, (groups, SIZE)).astype(np.float16)
    tensors = {
        "qweight": rng.integers(-(1 << 31), 1 << 31, (words, SIZE)).astype(np.int32),
        "qzeros": rng.integers(-(1 << 31), 1 << 31, (groups, words)).astype(np.int32),
        "scales": scales,
        "g_idx": np.arange(SIZE, dtype=np.int32) // 128,
    }
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 128}
    said = SimpleNamespace(settings=Settings(Path("none"), {"quantization_config": settings}))
    reader, given = Gptq(said), parts(tensors)
    theirs = {
        "weight_packed": tensors["qweight"].T,
        "weight_scale": scales.T,
        "weight_zero_point": tensors["qzeros"].T,
        "weight_shape": np.array([SIZE, SIZE]),
    }
    args = dict(num_bits=bits, strategy="group", group_size=128, symmetric=False)
    return (lambda: reader.read(given).weight), peer("pack-quantized", theirs, args)


def of_nvfp4() -> tuple[Callable, Callable | None]:
    """Ours and compressed-tensors'."""
    rng = np.random.default_rng(0)
    tensors = {
        "weight_packed": rng.integers(0, 256, (SIZE, SIZE // 2), np.uint8),
        "weight_scale": rng.uniform(1, 400, (SIZE, SIZE // 16)).astype(ml_dtypes.float8_e4m3fn),
        "weight_global_scale": np.float32([9000]),
    }
    given = parts(tensors)
    args = dict(num_bits=4, type="float", strategy="tensor_group", group_size=16)
    return (lambda: read_nvfp4(given, "NVFP4", tuple(tensors), 16).weight), peer(
        "nvfp4-pack-quantized", tensors, args
    )


def of_mlx(mode: str, bits: int, size: int) -> tuple[Callable, Callable | None]:
    """Ours and mlx's, of random fields without NaN."""
    rng, groups = np.random.default_rng(0), (SIZE, SIZE // size)
    fields = rng.integers(0, 127 if mode == "mxfp8" else 256, (SIZE, SIZE * bits // 8), np.uint8)
    tensors = {"weight": fields.view(np.uint32)}
    if mode == "affine":
        tensors |= {
            name: rng.uniform(0.1, 1, groups).astype(ml_dtypes.bfloat16) for name in ("scales", "biases")
        }
    else:
        tensors["scales"] = rng.integers(90, 120, groups, np.uint8)
    reader = object.__new__(Mlx)
    reader._own, reader._usual = {}, Layout(mode, bits, size)
    given = parts(tensors)
    try:
        import mlx.core as mx
    except ImportError:
        return (lambda: reader.read(given).weight), None
    narrow = ml_dtypes.bfloat16
    stored = [
        mx.array(a.view(np.uint16)).view(mx.bfloat16) if a.dtype == narrow else mx.array(a)
        for a in tensors.values()
    ]
    how = {"group_size": size, "bits": bits, "mode": mode}
    return (
        lambda: reader.read(given).weight,
        lambda: mx.eval(mx.dequantize(*stored, **how).astype(mx.float32)),
    )


def of_exl3(bits: int) -> tuple[Callable, Callable | None]:
    """Ours and gptqmodel's."""
    tensors = {
        "trellis": np.random.default_rng(0).integers(
            -(1 << 15), 1 << 15, (SIZE // 16, SIZE // 16, 16 * bits), np.int16
        ),
        "suh": np.ones(SIZE, np.float16),
        "svh": np.ones(SIZE, np.float16),
    }
    reader = object.__new__(Exl3)
    reader._sizes, layer = {}, parts(tensors)
    try:
        import torch
        from gptqmodel.nn_modules.exllamav3_torch import ExllamaV3TorchLinear
    except ImportError:
        return (lambda: reader.read(layer).weight), None
    torch.set_num_threads(1)
    given = {name: torch.from_numpy(array) for name, array in tensors.items()}
    how = {"in_features": SIZE, "out_features": SIZE, "name": "layer", "tensors": given}
    return (
        lambda: reader.read(layer).weight,
        lambda: ExllamaV3TorchLinear.from_tensors(**how).get_weight_tensor(),
    )


def peer(form: str, tensors: dict[str, np.ndarray], args: dict) -> Callable | None:
    """compressed-tensors' decoder; None where it is not installed."""
    try:
        import torch
        from compressed_tensors.compressors import BaseCompressor
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    except ImportError:
        return None
    torch.set_num_threads(1)
    state = {}
    for name, array in tensors.items():
        array = np.ascontiguousarray(array)
        if array.dtype == ml_dtypes.float8_e4m3fn:
            state[name] = torch.from_numpy(array.view(np.uint8)).view(torch.float8_e4m3fn)
        else:
            state[name] = torch.from_numpy(array)
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
    compressor = BaseCompressor.get_value_from_registry(form)
    return lambda: compressor.decompress(dict(state), scheme)["weight"].float()


def main() -> None:
    """Print a table; exit 1 where ours is slower than a peer."""
    cases = {name: lambda name=name: of_gguf(name) for name in TYPES}
    cases |= {f"GPTQ {bits} bits": lambda bits=bits: of_gptq(bits) for bits in (3, 4, 8)}
    cases |= {"NVFP4": of_nvfp4}
    cases |= {
        f"MLX {mode} {bits}": lambda m=mode, b=bits, s=size: of_mlx(m, b, s) for mode, bits, size in MLX
    }
    cases |= {f"EXL3 {bits} bits": lambda bits=bits: of_exl3(bits) for bits in (2, 3, 4)}
    rows, slower = [], []
    for name, case in cases.items():
        ours, theirs = (rate(work) if work else None for work in case())
        rows.append({"format": name, "ours": ours, "peer": theirs})
        beside = f"{theirs:8.0f} {ours / theirs:6.1f} times" if theirs else ""
        print(f"{name:14} {ours:6.0f} {beside}{'' if ours >= WANTED else f'  below {WANTED}'}", flush=True)
        slower += [name] if theirs and ours < theirs else []
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    if slower:
        sys.exit(f"Slower than the package: {', '.join(slower)}.")


if __name__ == "__main__":
    main()
