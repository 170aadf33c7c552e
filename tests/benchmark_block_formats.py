"""Our block formats against the packages that they come from: time to quantize and dequantize, in one run.

    python tests/benchmark_block_formats.py [table.json]

Ŵ of both is compared first.  bitsandbytes and gguf come with the extra ``test``; torchao and hqq, of the extra
``peers``, are left out where they are not installed.
"""

import json
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import ml_dtypes
import numpy as np
from peers import (
    bitsandbytes_4bit,
    bitsandbytes_int8,
    gguf_weights,
    hqq_weights,
    torchao_mxfp4,
    torchao_nvfp4,
)

from rdlib.quantizers import FP4, HQQ, MXFP4, NF4, NVFP4, Q4_0, Q4_1, Q8_0, LLMInt8, Quantizer

ROUNDS = 3
LIMIT = 1  # of the time of bitsandbytes, for each of its formats

Case = tuple[str, Quantizer, Callable[[np.ndarray], np.ndarray], type]

CASES: list[Case] = [
    ("bitsandbytes", NF4(), lambda W: bitsandbytes_4bit(W, "nf4", 64)[0], np.float32),
    ("bitsandbytes", NF4(), lambda W: bitsandbytes_4bit(W, "nf4", 64)[0], ml_dtypes.bfloat16),
    ("bitsandbytes", FP4(), lambda W: bitsandbytes_4bit(W, "fp4", 64)[0], np.float32),
    ("bitsandbytes", LLMInt8(), bitsandbytes_int8, np.float32),
    ("gguf", Q4_0(), lambda W: gguf_weights(W, "Q4_0"), np.float32),
    ("gguf", Q4_1(), lambda W: gguf_weights(W, "Q4_1"), np.float32),
    ("gguf", Q8_0(), lambda W: gguf_weights(W, "Q8_0"), np.float32),
    ("torchao", MXFP4(), torchao_mxfp4, np.float32),
    ("torchao", NVFP4(), torchao_nvfp4, np.float32),
    ("hqq", HQQ(4), lambda W: hqq_weights(W, 4, 64), np.float32),
]


def ours(quantizer: Quantizer, W: np.ndarray) -> np.ndarray:
    """Ŵ of one of our quantizers."""
    return quantizer.decode(quantizer.encode(W))


def seconds(function: Callable[[np.ndarray], np.ndarray], W: np.ndarray, rounds: int) -> float:
    """Shortest time of a call."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        function(W)
        times.append(time.perf_counter() - begin)
    return min(times)


def row(case: Case, W: np.ndarray) -> dict:
    """One row of the table: both times, their ratio, and how many weights differ."""
    package, quantizer, theirs, dtype = case
    few = W[:64].astype(dtype)
    differ = float(np.mean(ours(quantizer, few) != theirs(few)))  # also compiles, and imports the package
    assert differ <= (1e-3 if package == "hqq" else 0), f"{quantizer.method} is not that of {package}"
    W, rounds = W.astype(dtype), 1 if package == "hqq" else ROUNDS
    own, other = seconds(lambda W: ours(quantizer, W), W, rounds), seconds(theirs, W, rounds)
    return {
        "method": quantizer.method,
        "dtype": np.dtype(dtype).name,
        "package": package,
        "seconds": own,
        "package_seconds": other,
        "ratio": own / other,
    }


def main() -> None:
    """Print the table and, where a path is given, write it as JSON; exit 1 where bitsandbytes is faster."""
    W = (np.random.default_rng(0).standard_t(5, (2048, 8192)) * 0.02).astype(np.float32)
    table = []
    print(f"{'2048 × 8192 weights':25} {'ours':>8} {'package':>8}  ratio")
    for case in CASES:
        if find_spec(case[0]):
            table.append(row(case, W))
            shown = table[-1]
            print(
                f"{shown['method']:16} {shown['dtype']:8} {shown['seconds']:8.3f} "
                f"{shown['package_seconds']:8.3f}  {shown['ratio']:5.2f}  {shown['package']}"
            )
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump({"rows": table, "limit": LIMIT}, file, indent=1)
    sys.exit(any(r["ratio"] > LIMIT for r in table if r["package"] == "bitsandbytes"))


if __name__ == "__main__":
    main()
