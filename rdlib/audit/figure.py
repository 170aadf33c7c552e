"""The files of an audit as points of a plane: what they lose, what they spend, and what the limit would spend."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdlib.audit.tables import GIB
from rdlib.models.names import GROUPS
from rdlib.plot import heat_map

INK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#6A51A3",
    "#8C2D04",
    "#7F6000",
    "#333333",
)

NOTHING = pd.DataFrame({"kl": [], "rate": []})


def planes(files: pd.DataFrame, limit: pd.DataFrame) -> Figure:
    """What is lost against what is spent: KL against GiB and bits where the model was run, SQNR against bits.

    A line joins the files of which no other has less of both.  Of SQNR a hollow mark is at the rate that R(D) allows.

    Args:
        files: a row of the audit each.
        limit: of the model, columns ``kl`` and ``rate``, which is drawn beside the bits of the layers.
    """
    ran = files[files.kl.notna()]
    figure, axes = plt.subplots(
        3 if len(ran) else 1, figsize=(4.4, 11.1 if len(ran) else 3.7), layout="none", squeeze=False
    )
    figure.subplots_adjust(hspace=0.3)
    if len(ran):
        _kl(axes[0, 0], ran, ran.bits / GIB, "GiB")
        _kl(axes[1, 0], ran, ran.layers_rate, "bits per weight of the layers’ matrices", limit)
    _sqnr(axes[-1, 0], files)
    return figure


def _kl(ax: Axes, files: pd.DataFrame, x: pd.Series, label: str, limit: pd.DataFrame = NOTHING) -> None:
    """KL, on a logarithmic scale where none is 0, with its standard error."""
    for k, (place, kl, error) in enumerate(zip(x, files.kl, files.kl_error, strict=True)):
        ax.errorbar(place, kl, error if error < kl else None, fmt="o", color=INK[k % len(INK)])
    order = np.lexsort((files.kl, x))
    best = files.kl.to_numpy()[order]
    front = order[best <= np.minimum.accumulate(best)]
    ax.plot(x.iloc[front], files.kl.iloc[front], color="0.7", lw=1, zorder=0)
    ax.axhline(files.kl_floor.iloc[0], color="0.5", ls=":", lw=1)  # the noise of bfloat16
    ax.set(yscale="log" if (files.kl > 0).all() else "linear", xlabel=label, ylabel="KL (nats)")
    seen = limit[limit.kl.between(*ax.get_ylim())]
    ax.plot(seen.rate, seen.kl, color="black", lw=1.4)
    named(ax, files.file, x, files.kl)


def _sqnr(ax: Axes, files: pd.DataFrame) -> None:
    rates = files.limit + files.gap
    for k, (limit, rate, db) in enumerate(zip(files.limit, rates, files.sqnr_db, strict=True)):
        style = {"color": INK[k % len(INK)]}
        ax.plot([limit, rate], [db, db], lw=1, alpha=0.6, **style)
        ax.plot(limit, db, "o", markerfacecolor="white", **style)
        ax.plot(rate, db, "o", **style)
    ax.set(xlabel="bits per coded weight (hollow: R(D) of the same error)", ylabel="SQNR (dB)")
    named(ax, files.file, rates, files.sqnr_db)


def named(ax: Axes, names: pd.Series, x: pd.Series, y: pd.Series) -> None:
    """Names to the right of the axes, in the order of the points' heights, each with a line to its point."""
    ax.margins(y=0.06)
    low, high = ax.get_ylim()
    scale = ax.yaxis.get_transform().transform
    places = (scale(y.to_numpy(float)) - scale(low)) / (scale(high) - scale(low))
    order = np.argsort(places, kind="stable")
    step = min(0.055, 1 / max(len(order), 1))
    heights = places[order].copy()
    for k in range(1, len(order)):
        heights[k] = max(heights[k], heights[k - 1] + step)
    heights -= max(heights[-1] - 1, 0) if len(heights) else 0
    for k in range(len(order) - 2, -1, -1):
        heights[k] = min(heights[k], heights[k + 1] - step)
    for k, height in zip(order, heights, strict=True):
        ax.annotate(
            names.iloc[k],
            (x.iloc[k], y.iloc[k]),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=INK[k % len(INK)],
            arrowprops={"arrowstyle": "-", "color": INK[k % len(INK)], "lw": 0.5, "alpha": 0.5},
        )


def gap_map(tensors: pd.DataFrame) -> Figure:
    """The gap of every matrix of one file, by group and layer."""
    found = tensors[tensors.gap.notna() & tensors.group.isin(GROUPS)]
    table = found.pivot_table(index="group", columns="layer", values="gap", sort=False)
    table = table.reindex([g for g in GROUPS if g in table.index])[sorted(table.columns)]
    table.columns = pd.Index([int(c) for c in table.columns], name="layer")
    return heat_map(table, "gap (bits)").figure
