"""The explorer as one page for a browser: every number is computed here, the script draws and looks up.

A state is a source, a family of quantizers, a nominal rate, and the clip or the size of groups where the family has
such a knob.  The page holds what :meth:`rdlib.explorer.subject.Subject.numbers` says of every state.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from rdlib.engine import second_moments
from rdlib.explorer.controls import CHOICES, clip, group, maker_of, names_in, python_of, with_clip, with_group
from rdlib.explorer.sources import SOURCES, written
from rdlib.explorer.subject import RATES, UNITS, Subject
from rdlib.files import write_whole
from rdlib.models.checkpoint import open_checkpoint
from rdlib.network import cut_windows, load_tokenizer, read_tokens
from rdlib.plot import method_style
from rdlib.quantizers import Quantizer
from rdlib.runs.templating import templates
from rdlib.theory.gaussian import to_db

CLIPS = (1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)  # σ
GROUPS = (16, 32, 64, 128, 256)  # weights
MODEL, LAYER = "embedded", 1  # whose matrices are shown beside the synthetic sources
TEXT, WINDOWS, WINDOW = "evaluation", 16, 256  # that H is of: the quantizers here do not look at it
MOST = 64  # levels that are drawn
PART = 1 << 18  # weights of a large matrix that are taken, whole rows from the first


@dataclass(frozen=True)
class Choice:
    """A subject, and where the controls find it.

    Args:
        kind: a source, or the model.
        symbol: what its slider is called; empty where there is none.
        value: of the slider.
        subject: that is measured.
    """

    kind: str
    symbol: str
    value: str
    subject: Subject


def write(path: Path) -> Path:
    """Write the page of all sources, and of matrices of the small model."""
    write_whole(path, render([*synthetic(), *matrices()]))
    return path


def synthetic() -> Iterator[Choice]:
    """Every synthetic source at every place of its slider."""
    for source in SOURCES.values():
        for number in source.numbers:
            python, W = source.python(number), source.weights(number)
            subject = Subject(source.label(number), W, python=python)
            yield Choice(source.name, source.symbol, written(number), subject)


def matrices() -> Iterator[Choice]:
    """Matrices of one layer, with H of their inputs, and the embedding."""
    checkpoint = open_checkpoint(MODEL)
    windows = cut_windows(read_tokens(TEXT, load_tokenizer(MODEL)), WINDOW).take(WINDOWS)
    moments = second_moments(checkpoint, windows, [LAYER])
    chosen = [w for w in checkpoint.layer(LAYER) if w.group in ("q", "gate", "down")]
    for weight in [*chosen, *(w for w in checkpoint.weights if w.group == "embed")]:
        rows = PART // weight.shape[1]
        python = f"open_checkpoint({MODEL!r}).tensor({weight.name!r})" + f"[:{rows}]" * (
            rows < weight.shape[0]
        )
        H = None if weight.layer < 0 else moments[weight]
        subject = Subject(weight.label, checkpoint.tensor(weight)[:rows], H, python)
        yield Choice("matrix of the small model", "matrix", weight.label, subject)


def render(choices: list[Choice]) -> str:
    """The page of these subjects; it contains all it shows and loads nothing."""
    data = {
        "units": UNITS,
        "families": {name: family(name) for name in CHOICES},
        "sources": [source(choice) for choice in tqdm(choices, desc="explorer", leave=False)],
    }
    return (
        templates(Path(__file__).parent)
        .get_template("explorer.html.j2")
        .render(
            title="Explorer · rdlib", data=data, kinds=list(dict.fromkeys(choice.kind for choice in choices))
        )
    )


def knobs(name: str) -> tuple[str, tuple[float, ...]]:
    """What the knob of a family is called, and its places; one place without a name where there is none."""
    if clip(CHOICES[name]) is not None:
        return "clip (σ)", CLIPS
    return ("group size", GROUPS) if group(CHOICES[name]) is not None else ("", (0,))


def states(name: str) -> dict[str, Quantizer]:
    """The quantizer of every state of a family, by nominal rate and knob: ``4 2.5``."""
    allowed = CHOICES[name].bits_allowed
    return {
        f"{b} {knob:g}": with_clip(with_group(CHOICES[name].at(b), int(knob)), knob)
        for b in RATES
        if b in allowed
        for knob in knobs(name)[1]
    }


def family(name: str) -> dict[str, object]:
    """What the page knows of a family: its knob, its colour, and how each of its states is written in Python."""
    label, places = knobs(name)
    return {
        "knob": label,
        "places": [f"{place:g}" for place in places],
        "colour": method_style(CHOICES[name].method)["color"],
        "python": {key: [names_in(w), w] for key, q in states(name).items() for w in [python_of(q)]},
    }


def source(choice: Choice) -> dict[str, object]:
    """What the page knows of a subject: its density, its bounds, and every state."""
    subject, h = choice.subject, choice.subject.histogram
    x, rates = (h.values - h.mean) / h.variance**0.5, np.linspace(0, RATES[-1] + 1, 55)
    edges = np.linspace(-10, 10, 161)
    counts, _ = np.histogram(x, edges, weights=h.counts)
    seen = {name: {key: state(subject, q) for key, q in states(name).items()} for name in CHOICES}
    return {
        "kind": choice.kind,
        "symbol": choice.symbol,
        "value": choice.value,
        "label": subject.label,
        "maker": maker_of(subject.python),
        "python": subject.python,
        "names": list(subject.numbers(CHOICES["uniform"])),
        "rates": [round(rate, 3) for rate in rates],
        "bounds": {
            name: [round(float(db), 2) for db in to_db(np.maximum(bound(rates), 1e-12))]
            for name, bound in subject.bounds.items()
        },
        "gaussian": _logs(np.exp(-(_middles(edges) ** 2) / 2) / np.sqrt(2 * np.pi)),
        "density": _logs(counts / counts.sum() / np.diff(edges)),
        "edges": [round(edge, 3) for edge in edges],
        "states": seen,
    }


def state(subject: Subject, quantizer: Quantizer) -> list[str]:
    """Numbers, streams and levels (in hundredths of σ) of a state, each as words."""
    measured = subject.read(quantizer)
    levels = (measured.levels - subject.histogram.mean) / subject.histogram.variance**0.5
    return [
        "|".join(subject.numbers(quantizer).values()),
        " ".join(f"{name} {rate:.3f}" for name, rate in measured.rates.items()),
        " ".join(f"{100 * level:.0f}" for level in levels)
        if len(levels) <= MOST
        else f"{len(levels)} levels",
    ]


def _middles(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2


def _logs(density: np.ndarray) -> list[float]:
    """log₁₀ of a density, which the page draws; −9 where there is nothing."""
    return [round(float(value), 2) for value in np.log10(np.maximum(density, 1e-9))]
