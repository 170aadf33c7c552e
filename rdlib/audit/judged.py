"""A file judged by what it does to the model: output errors under H, and how far its predictions stray (KL).

The model is run layer by layer (:mod:`rdlib.engine`) with the tensors of the file in place of its own: all of them, and
those of each group alone.  H of calibration text and of other text, by which the output is judged as well, weigh the
errors of every matrix.  KL of a single tensor is an estimate: that of its group alone, shared out by relative errors of
output.  The limit of the model is that of :mod:`rdlib.theory.whole_model`, by H, G and α of the calibration text.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rdlib.audit.pair import Pair, opened
from rdlib.audit.rows import OUTPUT
from rdlib.extras import extra
from rdlib.models.checkpoint import Checkpoint, open_checkpoint

with extra("models", "rdlib audit --run"):
    from rdlib.engine import InBfloat16, Variant, bar, bias_of_limits, walk
    from rdlib.engine.law import ENOUGH, law, widest
    from rdlib.network.texts import load_tokenizer
    from rdlib.network.windows import Windows, cut_windows, read_tokens

WINDOW = 512  # tokens
KLS = np.geomspace(1e-5, 3, 160)  # nats, at which the limit is computed


@dataclass(frozen=True)
class Judge:
    """What a file is judged by.

    Args:
        tokens: of the text; H is measured on four times as many.
        text: in the box, or a file.
        calibration: text for H.
        device: see :class:`rdlib.engine.layers.Layers`.
    """

    tokens: int = 8192
    text: str = "books-evaluation"
    calibration: str = "books-calibration"
    device: str | None = None

    def windows(self, model: Checkpoint) -> tuple[Windows, Windows]:
        """Of the text, and of the calibration text.

        Raises:
            ValueError: there is no tokenizer, no such text, or it is too short.
        """
        tokenizer = load_tokenizer(model.folder)
        length = min(WINDOW, model.config.get("max_position_embeddings", WINDOW), self.tokens)
        texts = ((self.text, self.tokens), (self.calibration, 4 * self.tokens))
        both = [cut_windows(read_tokens(t, tokenizer), length).take(max(n // length, 1)) for t, n in texts]
        return both[0], both[1]


@dataclass(frozen=True)
class InFile:
    """Tensors as a file has them, in the coordinates of the original.

    Args:
        pair: file and original.
        version: what the file's tensors depend on, the same in every process.
        method: of the file.
        bits: nominal rate.
    """

    pair: Pair = field(repr=False, compare=False)
    version: str
    method: str
    bits: float

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return self.pair.layer(name).weight.reshape(W.shape), {}


def limit_rows(model: Path, judge: Judge) -> list[dict]:
    """Points of the limit of a model: the least bits per weight of the matrices of its layers for a KL.

    None where the calibration text is too short for H and G of the widest matrix.

    Raises:
        ValueError: the model cannot be run.
    """
    original = open_checkpoint(model)
    _, text = judge.windows(original)
    if text.tokens < ENOUGH * widest(original):
        return []
    _, limit = law(original, text, judge.device)
    return [{"kl": float(kl), "rate": limit.rate(kl)} for kl in KLS]


def judged_rows(
    label: str, where: tuple[Path, Path, str], names: list[str], judge: Judge, state: Path
) -> list[dict]:
    """A row for every matrix of a file, and one for the file, whose ``kl_windows`` are means of windows.

    Args:
        label: of the file.
        where: see :func:`rdlib.audit.pair.opened`.
        names: of the tensors in which the file differs from the original.
        judge: text and device.
        state: folder from which a run that was stopped goes on, layer by layer; the caller's to remove.

    Raises:
        ValueError: the original cannot be run.
    """
    pair = opened(*where)
    text, calibration = judge.windows(pair.original)
    source = InFile(pair, where[2], pair.quantized.method, pair.quantized.bits)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(pair.original.tensors[name].group, []).append(name)
    groups.pop("other", None)
    floor = InBfloat16("floor", pair.original)
    variants = [Variant.by("all", names, source), floor]
    variants += [Variant.by(group, some, source) for group, some in groups.items()]
    how = {"limits": True, "device": judge.device, "folder": state, "progress": bar(label)}
    found = walk(pair.original, variants, text, calibration, **how)
    kl = {group: found.outputs[group].kl.mean for group in groups}
    whole = {key: value for key, value in found.outputs["all"].row.items() if key in OUTPUT}
    whole |= {"name": "", "group": "all", "kl_floor": found.outputs["floor"].kl.mean}
    whole["kl_windows"] = found.outputs["all"].kl.values.mean(axis=1).tolist()
    inputs = widest(pair.original)
    whole["protocol"] = " ".join(
        f"{what} {Path(name).name}: {windows.protocol}; {bias_of_limits(inputs, windows.tokens)}."
        for what, name, windows in (
            ("KL and held-out H on", judge.text, text),
            ("H on", judge.calibration, calibration),
        )
    )
    by_group = [{"name": "", "group": group, "kl": value} for group, value in kl.items()]
    rows = [row for group, some in groups.items() for row in _tensors(found.rows["all"], some, kl[group])]
    tokens = {"held_out_limit": text.tokens, "output_limit": calibration.tokens}
    for row in rows:  # H of fewer tokens than inputs is singular
        inputs = pair.original.tensors[row["name"]].shape[1]
        row |= {limit: float("nan") for limit, count in tokens.items() if count < inputs}
    return [{"file": label} | row for row in [whole, *by_group, *rows]]


def _tensors(found: Mapping[str, dict], names: list[str], kl: float) -> list[dict]:
    """Rows of the matrices of a group, whose KL is shared out by relative errors of output."""
    sizes = np.array([found[name].get("relative_output", 1.0) for name in names])
    shares = kl * sizes / (sizes.sum() or 1)
    measured = [{key: found[name][key] for key in OUTPUT if key in found[name]} for name in names]
    return [{"name": n, "kl": float(k)} | row for n, k, row in zip(names, shares, measured, strict=True)]
