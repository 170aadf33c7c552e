"""A file judged by what it does to the model: output errors under H, and how far its predictions stray (KL).

The model is run layer by layer (:mod:`rdlib.engine`) with the tensors of the file in place of its own: all of them, and
those of each group alone.  H of calibration text and of other text, by which the output is judged as well, weigh the
errors of every matrix.  KL of a single tensor is
an estimate: that of its group alone, shared out by relative errors of output.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rdlib.audit.pair import Pair, opened
from rdlib.audit.rows import OUTPUT
from rdlib.extras import extra
from rdlib.models.checkpoint import Checkpoint

with extra("models", "rdlib audit --run"):
    from rdlib.engine import InBfloat16, Variant, bias_of_limits, walk
    from rdlib.network.texts import load_tokenizer
    from rdlib.network.windows import Windows, cut_windows, read_tokens

WINDOW = 512  # tokens


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

    @property
    def depends(self) -> list[object]:
        """What results depend on."""
        return list(asdict(self).values())

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


@dataclass(frozen=True, eq=False)
class InFile:
    """Tensors as a file has them, in the coordinates of the original."""

    pair: Pair
    method: str
    bits: float

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        return self.pair.layer(name).weight.reshape(W.shape), {}


def judged_rows(label: str, where: tuple[Path, Path, str], names: list[str], judge: Judge) -> list[dict]:
    """A row for every matrix of a file, and one for the file, whose ``kl_windows`` are means of windows.

    Args:
        label: of the file.
        where: see :func:`rdlib.audit.pair.opened`.
        names: of the tensors in which the file differs from the original.
        judge: text and device.

    Raises:
        ValueError: the original cannot be run.
    """
    pair = opened(*where)
    text, calibration = judge.windows(pair.original)
    source = InFile(pair, pair.quantized.method, pair.quantized.bits)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(pair.original.tensors[name].group, []).append(name)
    groups.pop("other", None)
    floor = InBfloat16("floor", pair.original)
    variants = [Variant.by("all", names, source), floor]
    variants += [Variant.by(group, some, source) for group, some in groups.items()]
    found = walk(pair.original, variants, text, calibration, limits=True, device=judge.device)
    kl = {group: found.outputs[group].kl.mean for group in groups}
    whole = {key: value for key, value in found.outputs["all"].row.items() if key in OUTPUT}
    whole |= {"name": "", "group": "all", "kl_floor": found.outputs["floor"].kl.mean}
    whole["kl_windows"] = found.outputs["all"].kl.values.mean(axis=1).tolist()
    widest = max(w.shape[1] for w in pair.original.weights if w.layer >= 0)
    whole["protocol"] = " ".join(
        f"{what} {Path(name).name}: {windows.protocol}; {bias_of_limits(widest, windows.tokens)}."
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
