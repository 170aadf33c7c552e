"""GPTQ of a 2048 × 2048 matrix, groups of 128, H given: seconds and output error, beside GPTQModel on the CPU.

    python tests/benchmark_gptq.py [table.json]

GPTQModel is not in the usual environment; `make checkpoints` makes one that has both:
``.venv-producers/bin/python tests/benchmark_gptq.py``.  Weights are Gaussian, inputs are correlated and of unequal
power; both get the same weights, the same 4,096 inputs, a damping of 0.01 and asymmetric levels, and keep the order
of the columns.  What is timed begins when H is there.  Exit 1 where ours is slower or worse than the peer's.
"""

import copy
import json
import sys
import time
from collections.abc import Callable

import numpy as np

from rdlib.measure import output_error
from rdlib.quantizers import GPTQ, PerGroup, UniformAsymmetric

SIZE, TOKENS, GROUP = 2048, 4096, 128
DAMPING = 0.01
RUNS = 3
LIMIT = 1.0  # ours over the peer's, seconds and output error
TOLERANCE = 0.01  # of the output error: float16 scales here, float32 there, and the order of sums


def problem() -> tuple[np.ndarray, np.ndarray]:
    """W (out, in) and X (tokens, in), float32."""
    rng = np.random.default_rng(0)
    W = 0.02 * rng.standard_normal((SIZE, SIZE))
    mixed = rng.standard_normal((TOKENS, 256)) @ rng.standard_normal((256, SIZE)) / 16
    X = (mixed + 0.5 * rng.standard_normal((TOKENS, SIZE))) * np.exp(0.5 * rng.standard_normal(SIZE))
    return W.astype(np.float32), X.astype(np.float32)


def best_of(runs: int, prepare: Callable[[], object], work: Callable[[object], np.ndarray]) -> tuple:
    """Least seconds of the work, without its preparation, and what it gives."""
    seconds = []
    for _ in range(runs):
        given = prepare()
        begin = time.perf_counter()
        result = work(given)
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result


def ours(W: np.ndarray, H: np.ndarray, bits: int) -> tuple[float, np.ndarray]:
    """Seconds of encoding, and Ŵ."""
    quantizer = GPTQ(UniformAsymmetric(bits, PerGroup(size=GROUP)), DAMPING)
    quantizer.encode(W[:8, :GROUP], H[:GROUP, :GROUP])  # compile
    seconds, code = best_of(RUNS, lambda: W, lambda w: quantizer.encode(w, H))
    return seconds, quantizer.decode(code)


def peer(W: np.ndarray, X: np.ndarray, bits: int) -> tuple[float, np.ndarray]:
    """Seconds of ``GPTQ.quantize``, once H is there, and Ŵ."""
    import torch
    from gptqmodel.quantization.config import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ as Peer

    layer = torch.nn.Linear(SIZE, SIZE, bias=False)
    layer.weight.data = torch.tensor(W)
    inputs = torch.tensor(X)[None]
    config = QuantizeConfig(
        bits=bits, group_size=GROUP, sym=False, desc_act=False, act_group_aware=False, damp_percent=DAMPING
    )

    def prepare() -> Peer:
        task = Peer(copy.deepcopy(layer), config)
        task.quantizer.configure(perchannel=True)
        task.add_batch(inputs, None)
        task.finalize_hessian()
        return task

    seconds, result = best_of(RUNS, prepare, lambda task: task.quantize())
    return seconds, result[0].detach().float().numpy()


def main() -> None:
    """Print the table and, where a path is given, write it as JSON."""
    W, X = problem()
    H = X.T.astype(np.float64) @ X / len(X)
    rows, missing = [], False
    for bits in (4, 3):
        seconds, decoded = ours(W, H, bits)
        row = {"bits": bits, "seconds": seconds, "error": output_error(W - decoded, H)}
        plain = UniformAsymmetric(bits, PerGroup(size=GROUP))
        row["rounding_error"] = output_error(W - plain.decode(plain.encode(W)), H)
        try:
            row["peer_seconds"], theirs = peer(W, X, bits)
            row["peer_error"] = output_error(W - theirs, H)
        except ModuleNotFoundError as error:
            if error.name != "gptqmodel":
                raise
            missing = True
        rows.append(row)
    print(f"GPTQ, {SIZE} × {SIZE}, group {GROUP}, H given          ours      peer     ratio     limit")
    passed = True
    for row in rows:
        for name, limit in (("seconds", LIMIT), ("error", LIMIT + TOLERANCE)):
            theirs = row.get(f"peer_{name}", float("nan"))
            ratio = row[name] / theirs
            passed &= missing or ratio <= limit
            print(f"{row['bits']} bits: {name:38} {row[name]:9.4f} {theirs:9.4f} {ratio:9.3f} {limit:9.2f}")
        print(f"{row['bits']} bits: error of rounding without feedback      {row['rounding_error']:9.4f}")
    if missing:
        print("GPTQModel is not installed here: only ours was measured.")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
