"""The files of an audit as points of a plane: what they lose, what they spend, and what the limit would spend."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def plane(files: pd.DataFrame) -> Figure:
    """SQNR against bits per coded weight; a hollow mark at the rate that R(D) allows for the same error."""
    figure, ax = plt.subplots(figsize=(4.4, 3.8), layout="none")  # names come beside it
    files = files.sort_values("sqnr_db", kind="stable").reset_index()
    for k, row in files.iterrows():
        style = {"color": INK[k % len(INK)]}
        ax.plot([row.limit, row.limit + row.gap], [row.sqnr_db] * 2, lw=1, alpha=0.6, **style)
        ax.plot(row.limit, row.sqnr_db, "o", markerfacecolor="white", **style)
        ax.plot(row.limit + row.gap, row.sqnr_db, "o", **style)
    ax.set(xlabel="bits per coded weight (hollow: R(D) of the same error)", ylabel="SQNR (dB)")
    named(ax, files.file, files.limit + files.gap, files.sqnr_db)
    return figure


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
    for number, (k, height) in enumerate(zip(order, heights, strict=True)):
        ax.annotate(
            names.iloc[k],
            (x.iloc[k], y.iloc[k]),
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=INK[number % len(INK)],
            arrowprops={"arrowstyle": "-", "color": INK[number % len(INK)], "lw": 0.5, "alpha": 0.5},
        )


def gap_map(tensors: pd.DataFrame) -> Figure:
    """The gap of every matrix of one file, by group and layer."""
    found = tensors[tensors.gap.notna() & tensors.group.isin(GROUPS)]
    table = found.pivot_table(index="group", columns="layer", values="gap", sort=False)
    table = table.reindex([g for g in GROUPS if g in table.index])[sorted(table.columns)]
    table.columns = pd.Index([int(c) for c in table.columns], name="layer")
    return heat_map(table, "gap (bits)").figure
