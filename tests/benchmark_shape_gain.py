"""Why the shape–gain code of LLVQ has the lower perplexity and a trellis the lower error: norms, rotation, feedback.

    python tests/benchmark_shape_gain.py                     # D on N(0, 1)
    python tests/benchmark_shape_gain.py smollm2-135m 1 k v  # errors of outputs on other text, of every rung
    python tests/benchmark_shape_gain.py smollm2-135m        # and KL of the whole model, of the rungs that matter

Codes of 2 bits, with a scale for every row, run in blocks of 24 columns; rungs differ in one thing each.  *Norms* are
as coded; or that of each block is as in W, by a float32 a block; or that of every run of 24 weights is, as if the
decoder knew it.  What it would have to be told for that, 16 bits a run or ⅔ bit a weight, is *not* in the rate.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from rdlib.code import Code, Stream
from rdlib.engine import Quantized, Variant, bar, walk
from rdlib.models import open_checkpoint
from rdlib.network import cut_windows, load_tokenizer, read_tokens
from rdlib.quantizers import (
    E8P,
    LDLQ,
    BitshiftTrellis,
    PerChannel,
    Quantizer,
    Rotated,
    Scaled,
    ShapeGain,
)
from rdlib.quantizers.wrappers import Wrapper
from rdlib.theory.gaussian import to_db
from rdlib.weights import as_float32, ratio

WIDTH = 24  # columns of a block, and weights of a run
CODES = {
    "shape–gain 48+0": ShapeGain(gain_bits=0),
    "shape–gain 47+1": ShapeGain(),
    "trellis, 1024": BitshiftTrellis(2, 10),
    "trellis, 4096": BitshiftTrellis(2, 12),
    "E8P": E8P(),
}
NORMS = ("coded", "of blocks", "of runs")
TEXTS = {
    "embedded": ("calibration", "sample", 128),
    "smollm2-135m": ("books-calibration", "books-evaluation", 512),
}
TOKENS, JUDGED = 32768, 4096  # of the calibration text, and of the other


@dataclass(frozen=True)
class Restored(Wrapper):
    """Ŵ of the inner quantizer, stretched to the norms of W.

    Streams: those of the inner code, and ``norm`` (the factors, float32).

    Args:
        inner: the quantizer of a block of columns.
        runs: whether every row of the block has a factor of its own.
    """

    runs: bool = True

    @property
    def method(self) -> str:
        return f"{self.inner.method}, norms of {'runs' if self.runs else 'blocks'}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        inner, axis = self.inner.quantize(W, None), 1 if self.runs else None
        norms = (
            np.linalg.norm(w, axis=axis, keepdims=True) for w in (as_float32(W), self.inner.decode(inner))
        )
        return self.wrapped(inner, norm=Stream.floats(ratio(*norms), "float32"))

    def reconstruct(self, code: Code) -> np.ndarray:
        return self.inner.decode(self.unwrapped(code, "norm")) * code["norm"]


class Rung(NamedTuple):
    """What one variant does."""

    code: str
    rotated: bool
    feedback: bool
    norms: str

    @property
    def quantizer(self) -> Quantizer:
        inner = CODES[self.code]
        if self.norms != "coded":
            inner = Restored(inner, self.norms == "of runs")
        around = Scaled(LDLQ(inner, WIDTH), PerChannel())
        return Rotated(around) if self.rotated else around

    def __str__(self) -> str:
        rotated, feedback = ("yes" if is_so else "no" for is_so in (self.rotated, self.feedback))
        return f"| {self.code} | {rotated} | {feedback} | {self.norms} |"


@dataclass(frozen=True)
class Made(Quantized):
    """By a quantizer, with or without H; the norms of runs are no part of its rate."""

    feedback: bool

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        code = self.quantizer.encode(W, H if self.feedback else None)
        norms = code.rates.get("norm", 0.0)
        return self.quantizer.decode(code), {"rate": code.rate - norms, "side_rate": code.side_rate - norms}


EVERY = [Rung(*choice) for choice in product(CODES, (False, True), (False, True), NORMS)]
OF_MODEL = [
    Rung("trellis, 1024", True, True, "coded"),
    Rung("trellis, 1024", True, True, "of runs"),
    Rung("trellis, 1024", False, True, "coded"),
    Rung("shape–gain 47+1", True, True, "coded"),
    Rung("shape–gain 47+1", False, True, "coded"),
    Rung("shape–gain 48+0", True, True, "of runs"),
    Rung("shape–gain 48+0", False, True, "of runs"),
]
HEAD = "| code | rotated | feedback | norms |"


def gaussian() -> None:
    """Rate, D, and its distance from D(R) on N(0, 1)."""
    W = np.random.default_rng(0).standard_normal((576, 576)).astype(np.float32)
    print("| code | norms | rate | D | above D(R) |\n|---|---|---|---|---|")
    for code, norms in product(CODES, NORMS):
        made, rates = Made(Rung(code, False, False, norms).quantizer, False).make("", W, None)
        rate, D = rates["rate"], float(((W - made) ** 2).mean())
        print(f"| {code} | {norms} | {rate:.4f} | {D:.5f} | {to_db(D * 4**rate):.2f} dB |", flush=True)


def of_model(model: str, layer: int | None = None, groups: Collection[str] = ()) -> None:
    """Errors of outputs in a layer by every rung, or with no layer in all, and KL, by those that matter."""
    checkpoint, (text, other, window) = open_checkpoint(model), TEXTS[model]
    known, judged = (
        cut_windows(read_tokens(name, load_tokenizer(model)), window).take(tokens // window)
        for name, tokens in ((text, TOKENS), (other, JUDGED))
    )
    weights = [w for w in checkpoint.weights if w.layer >= 0] if layer is None else checkpoint.layer(layer)
    names = [w.name for w in weights if not groups or w.group in groups]
    rungs = OF_MODEL if layer is None else EVERY
    variants = [Variant.by(rung, names, Made(rung.quantizer, rung.feedback)) for rung in rungs]
    found = walk(checkpoint, variants, judged, known, outputs=layer is None, progress=bar())
    print(
        f"{model}, {len(names)} matrices\n\n{HEAD} rate | error of outputs | KL, nats | less KL of the first |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for variant in variants:
        error = (10 ** (-found.of(variant).held_out_db / 10)).mean()
        line = f"{variant.label} {found.totals(variant)['rate']:.4f} | {to_db(error):.2f} dB |"
        if found.outputs:
            kl, first = (found.outputs[v.label].kl for v in (variant, variants[0]))
            line += f" {kl.mean:.4f} ± {kl.error:.4f} | {(kl - first).mean:+.4f} ± {(kl - first).error:.4f} |"
        print(line)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        of_model(sys.argv[1], *map(int, sys.argv[2:3]), groups=sys.argv[3:])
    else:
        gaussian()
