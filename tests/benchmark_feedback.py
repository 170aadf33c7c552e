"""Feedback on a real layer: rate and distance to the limit held out, every bit counted; and what a second side takes.

    python tests/benchmark_feedback.py [model] [layer]

The model is ``embedded`` or ``smollm2-135m``.  H comes from one text, errors and the limit from another.
"""

import sys
import time

import numpy as np

from rdlib.engine import second_moments
from rdlib.measure import output_error
from rdlib.models import open_checkpoint
from rdlib.network import cut_windows, load_tokenizer, read_tokens
from rdlib.quantizers import FeedbackEcsq, FeedbackTrellis, WaterSIC
from rdlib.theory import output_rate, spectrum
from rdlib.weights import mean_square

TEXTS = {
    "embedded": ("calibration", "sample", 128),
    "smollm2-135m": ("books-calibration", "books-evaluation", 512),
}
TOKENS = 32768


def main(model: str, layer: int) -> None:
    """Print a row for each matrix and code, and the time of one side and of two."""
    checkpoint, (known, judged, window) = open_checkpoint(model), TEXTS[model]
    tokenizer = load_tokenizer(model)
    H, J = (
        second_moments(
            checkpoint, cut_windows(read_tokens(t, tokenizer), window).take(TOKENS // window), [layer]
        )
        for t in (known, judged)
    )
    print("| matrix | code | rate | above the limit | side information |\n|---|---|---|---|---|")
    for weight in checkpoint.layer(layer):
        W = checkpoint.tensor(weight.name)
        for code in (q(bits) for bits in (2, 3, 4) for q in (FeedbackEcsq, WaterSIC, FeedbackTrellis)):
            written = code.encode(W, H[weight.name])
            error = output_error(W - code.decode(written), J[weight.name])
            gap = written.rate - output_rate(spectrum(J[weight.name]), error, mean_square(W))
            name, side = f"{weight.group} {W.shape[0]} × {W.shape[1]}", written.side_rate
            print(f"| {name} | {code.method} {code.bits} | {written.rate:.3f} | {gap:.3f} | {side:.3f} |")
        spent = []
        for G in (None, np.eye(len(W)) + 0.1):
            WaterSIC(3).encode(W, H[weight.name], G)  # compiled, and factored
            start = time.process_time()
            WaterSIC(3).encode(W, H[weight.name], G)
            spent.append(time.process_time() - start)
        ratio, most = spent[1] / spent[0], 1.3 * (1 + W.shape[0] / W.shape[1])
        print(f"{weight.group}: two sides take {ratio:.2f} times one; 1.3·(1 + out/in) = {most:.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "embedded", int(sys.argv[2]) if len(sys.argv) > 2 else 1)
