"""The census on one page: HTML with its pictures inside, for any browser, without a network."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rdlib.measure import rate_at
from rdlib.models.names import GROUPS
from rdlib.plot import GROUP_COLOURS, heat_map, method_style, png, use_style
from rdlib.runs.templating import templates

METHOD, BITS, TARGET = "Lloyd–Max tensor", 4, 20.0  # dB
TEMPLATES = templates(Path(__file__).parent)


def html(frame: pd.DataFrame, model: str) -> str:
    """One page about a census: the gap by layer and group, the worst tensors, the bits that a target SQNR takes.

    Args:
        frame: what :func:`rdlib.census.census` writes.
        model: its name, for the heading.
    """
    tensors = frame.drop_duplicates("name")
    errors = tensors.dropna(subset="error")[["name", "error"]].itertuples(index=False, name=None)
    matrices = frame[frame.group.isin(GROUPS) & frame.method.notna()]
    use_style()
    return TEMPLATES.get_template("census.html.j2").render(
        model=model,
        tensors=len(tensors),
        weights=f"{int(tensors.weights.sum()):,}",
        errors=list(errors),
        pictures=_pictures(matrices) if len(matrices) else [],
        methods=_methods(matrices),
        bits=BITS,
    )


def _pictures(frame: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    """Title, text for those who cannot see it, PNG in base 64, and what to see."""
    one = frame[(frame.method == METHOD) & (frame.bits == BITS)]
    label = f"{METHOD} at {BITS} bits"
    return [
        (
            "Where the gap is",
            f"Heat map: bits above the Gaussian rate–distortion function of {label}, by group and layer",
            png(_gap_map(one)),
            f"Bits per weight that {label} spends beyond the R(D) of a Gaussian of the same variance. "
            "Layer −1 is the embedding.",
        ),
        (
            "The worst tensors",
            f"Bar chart of the twelve tensors of largest gap: {', '.join(_worst(one).label)}",
            png(_worst_bars(one)),
            "The twelve tensors that lie farthest from it.",
        ),
        (
            f"Bits needed for {TARGET:g} dB",
            f"Lines: rate that each method needs for an SQNR of {TARGET:g} dB, by tensor from easy to hard",
            png(_needed(frame)),
            "Rate at which each method reaches this SQNR, every bit counted; tensors from easy to hard. "
            "A line ends where 8 bits are not enough.",
        ),
    ]


def _gap_map(one: pd.DataFrame) -> Figure:
    table = one.pivot(index="group", columns="layer", values="gaussian_gap")
    return heat_map(table.reindex([g for g in GROUPS if g in table.index]), "gap (bits)").figure


def _worst(one: pd.DataFrame) -> pd.DataFrame:
    label = np.where(one.layer < 0, one.group, one.layer.astype(str) + "." + one.group.astype(str))
    return one.assign(label=label).nlargest(12, "gaussian_gap").iloc[::-1]


def _worst_bars(one: pd.DataFrame) -> Figure:
    worst = _worst(one)
    figure, ax = plt.subplots(figsize=(6.4, 0.8 + 0.24 * len(worst)))
    ax.barh(worst.label, worst.gaussian_gap, color=[GROUP_COLOURS[g] for g in worst.group])
    ax.set(xlabel="gap to the Gaussian R(D) (bits)")
    ax.grid(False, axis="y")
    return figure


def _needed(frame: pd.DataFrame) -> Figure:
    """The rate of every method at the target, by interpolation of log D."""
    curves = frame[frame.groupby(["name", "method"]).bits.transform("count") > 1]
    needed = pd.Series(
        {
            key: rate_at(curve.rate, 10 ** (-curve.sqnr_db / 10), 10 ** (-TARGET / 10))
            for key, curve in curves.groupby(["method", "name"], sort=False)
        }
    ).unstack(0)[list(dict.fromkeys(curves.method))]
    needed = needed.sort_values(METHOD)
    figure, ax = plt.subplots(figsize=(8.4, 4.2))
    for method, rates in needed.items():
        style = method_style(method) | ({"marker": ""} if len(needed) > 40 else {})
        ax.plot(np.arange(1, len(rates) + 1), rates, label=method, **style)
    ax.set(xlabel="tensors, from easy to hard", ylabel=f"rate for {TARGET:g} dB (bits per weight)")
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _methods(frame: pd.DataFrame) -> list[tuple[str, str, str, str]]:
    rows = []
    for method, points in frame[frame.bits == BITS].groupby("method", sort=False):
        rate, sqnr, gap = (
            np.average(points[c], weights=points.weights) for c in ("rate", "sqnr_db", "gaussian_gap")
        )
        rows.append((method, f"{rate:.3f}", f"{sqnr:.2f}", f"{gap:.3f}"))
    return rows
