"""A sensitivity sweep against running the whole network for every changed tensor: time and output, in one run.

    python tests/benchmark_sensitivity.py [table.json]

All tensors of the embedded model × 3 methods × 3 bit widths, on 16 windows of 256 tokens.  The whole network is
run once for every tensor in between, so that both see the same machine, and must give the same bits.  The
*limit* is what replaying from a layer on can save at most: (layers before the tensor) of the time of a run,
where a layer's time is that of a run less embedding, head and comparison, over the number of layers.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
from rdlib.functional.sensitivity import Replay
from tqdm import tqdm

from rdlib.functional.divergence import Reference, compare
from rdlib.models.checkpoint import open_checkpoint
from rdlib.network.network import load_network, replaced
from rdlib.network.texts import load_tokenizer
from rdlib.network.windows import cut_windows, read_tokens
from rdlib.quantizers import LeastSquares, LloydMax, PerGroup, Uniform, UniformAsymmetric

METHODS = (
    LloydMax(4),
    Uniform(4, PerGroup(size=128), LeastSquares()),
    UniformAsymmetric(4, PerGroup(size=128)),
)
BITS = (2, 3, 4)
SECONDS = 120  # for the sweep, quantization included
SHARE = 0.8  # of the speed-up that the number of layers permits


def clock(function: Callable, *arguments: object) -> tuple[float, object]:
    """Seconds and result of a call."""
    begin = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin, result


def main() -> None:
    """Print the table and, where a path is given, write it as JSON; exit 1 where a target is missed."""
    checkpoint = open_checkpoint("embedded")
    network, tokenizer = load_network(checkpoint, "cpu"), load_tokenizer("embedded")
    windows = cut_windows(read_tokens("evaluation", tokenizer), 256).take(16)
    reference = Reference(network, windows)
    compare(network, reference)  # what is compiled or allocated once is not measured
    setup, replay = clock(Replay, network, reference)

    quantizing, ours, whole, ends = 0.0, [], [], []
    for weight in tqdm(checkpoint.weights, desc="tensors"):
        W, seconds = checkpoint.tensor(weight), []
        for quantizer in (method.at(b) for method in METHODS for b in BITS):
            spent, W_hat = clock(lambda q=quantizer, W=W: q.decode(q.encode(W)))
            quantizing += spent
            spent, functional = clock(replay.compare, {weight.name: W_hat})
            seconds.append(spent)
        with replaced(network, {weight.name: W_hat}):
            spent, expected = clock(compare, network, reference)
        assert (functional.kl.values == expected.kl.values).all(), "the same output, to the last bit"
        ours.append(sum(seconds))
        whole.append(spent * len(seconds))
        ends.append(clock(replay.compare, {"model.norm.weight": network.model.norm.weight.numpy()})[0])

    layers = checkpoint.config["num_hidden_layers"]
    run, end = np.median(whole) / len(METHODS) / len(BITS), np.median(ends)
    layer = (run - end) / layers
    ideal = [run if w.layer < 0 else (layers - w.layer) * layer + end for w in checkpoint.weights]
    limit = len(ideal) * run / sum(ideal)
    total = setup + quantizing + sum(ours)
    ratio = sum(whole) / (setup + sum(ours))
    print(
        f"{windows.protocol}; {len(ours) * 9} runs; whole network {run:.3f} s, head and comparison {end:.3f} s"
    )
    print("group   ours (s a run)   whole network (s a run)")
    for group in dict.fromkeys(w.group for w in checkpoint.weights):
        chosen = [k for k, w in enumerate(checkpoint.weights) if w.group == group]
        a, b = (sum(x[k] for k in chosen) / len(chosen) / 9 for x in (ours, whole))
        print(f"{group:7} {a:14.3f} {b:25.3f}")
    print(f"sweep {total:.1f} s, of which quantization {quantizing:.1f} s (limit {SECONDS} s)")
    print(f"speed-up {ratio:.2f}; the layers permit {limit:.2f}; share {ratio / limit:.2f} (limit {SHARE})")
    if len(sys.argv) > 1:
        table = {
            "runs": len(ours) * 9,
            "sweep_seconds": total,
            "quantizing_seconds": quantizing,
            "whole_run_seconds": run,
            "speed_up": ratio,
            "speed_up_limit": limit,
            "share": ratio / limit,
        }
        with open(sys.argv[1], "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)
    sys.exit(total > SECONDS or ratio < SHARE * limit)


if __name__ == "__main__":
    main()
