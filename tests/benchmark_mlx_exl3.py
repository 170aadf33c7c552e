"""How fast layers of MLX and EXL3 are decoded, beside mlx and gptqmodel on the CPU, where they are installed.

    python tests/benchmark_mlx_exl3.py

From the stored arrays to Ŵ in float32, one thread, the best of some runs.  A ratio below 1 is a failure.
"""

import os
import sys
import time
from collections.abc import Callable

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[threads] = "1"

import ml_dtypes  # noqa: E402
import numpy as np  # noqa: E402

from rdlib.checkpoints.parts import LayerTensors  # noqa: E402
from rdlib.checkpoints.readers.exl3 import Exl3  # noqa: E402
from rdlib.checkpoints.readers.mlx import Layout, Mlx  # noqa: E402

ROWS, COLUMNS, RUNS = 512, 2048, 5
MODES = [
    ("affine", 4, 64),
    ("affine", 3, 64),
    ("affine", 8, 64),
    ("mxfp4", 4, 32),
    ("mxfp8", 8, 32),
    ("nvfp4", 4, 16),
]


def best(run: Callable[[], object]) -> float:
    """Million weights a second."""
    run()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return ROWS * COLUMNS / min(times) / 1e6


def layer(tensors: dict[str, np.ndarray]) -> LayerTensors:
    """Tensors in memory, as those of a checkpoint."""
    return LayerTensors("layer", list(tensors), tensors.__getitem__, lambda name: tensors[name].shape)


def mlx_rows() -> list[tuple[str, float, float]]:
    """Name, ours and mlx's."""
    import mlx.core as mx

    rows = []
    for mode, bits, size in MODES:
        W = mx.random.normal((ROWS, COLUMNS)).astype(mx.bfloat16)
        stored = mx.quantize(W, group_size=size, bits=bits, mode=mode)
        mx.eval(stored)
        options = {"group_size": size, "bits": bits, "mode": mode}
        theirs = best(lambda s=stored, o=options: mx.eval(mx.dequantize(*s, **o).astype(mx.float32)))
        arrays = [
            np.array(a.view(mx.uint16)).view(ml_dtypes.bfloat16) if a.dtype == mx.bfloat16 else np.array(a)
            for a in stored
        ]
        parts = layer(dict(zip(("weight", "scales", "biases"), arrays, strict=False)))
        reader = object.__new__(Mlx)
        reader._own, reader._usual = {}, Layout(mode, bits, size)
        rows.append((f"MLX {mode} {bits} bits", best(lambda r=reader, p=parts: r.read(p).weight), theirs))
    return rows


def exl3_rows() -> list[tuple[str, float, float]]:
    """Name, ours and gptqmodel's."""
    import torch
    from gptqmodel.nn_modules.exllamav3_torch import ExllamaV3TorchLinear

    torch.set_num_threads(1)
    random, rows = np.random.default_rng(0), []
    for bits in (2, 3, 4):
        tensors = {
            "trellis": random.integers(-(1 << 15), 1 << 15, (COLUMNS // 16, ROWS // 16, 16 * bits), np.int16),
            "suh": np.ones(COLUMNS, np.float16),
            "svh": np.ones(ROWS, np.float16),
        }
        given = {name: torch.from_numpy(array) for name, array in tensors.items()}

        def theirs(given: dict = given) -> None:
            ExllamaV3TorchLinear.from_tensors(
                in_features=COLUMNS, out_features=ROWS, name="layer", tensors=given
            ).get_weight_tensor()

        reader = object.__new__(Exl3)
        reader._sizes = {}
        parts = layer(tensors)
        rows.append((f"EXL3 {bits} bits", best(lambda r=reader, p=parts: r.read(p).weight), best(theirs)))
    return rows


def main() -> None:
    """Print a row for each format; fail where ours is slower."""
    slower = False
    for rows in (mlx_rows, exl3_rows):
        try:
            found = rows()
        except ImportError as error:
            print(f"not installed: {error}")
            continue
        for name, ours, theirs in found:
            print(f"{name:20s} {ours:6.0f} M weights/s, {ours / theirs:5.1f} × the package's")
            slower |= ours < theirs
    sys.exit(slower)


if __name__ == "__main__":
    main()
