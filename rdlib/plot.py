"""Points onto axes, in one visual language.

A method has one colour and one marker everywhere: the colour says how levels are placed, the marker how many
weights share a scale or are coded together.  Fixed-rate methods are filled markers on solid lines,
entropy-coded ones open markers on dashed lines; rotated weights are dotted.  Bounds are lines in black and
grey.  The rate is total bits per weight.
"""

import base64
import io
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.spatial import Voronoi, voronoi_plot_2d
from scipy.special import ndtri

from rdlib.extras import extra
from rdlib.histogram import Histogram
from rdlib.theory.gaussian import gaussian_distortion, to_db

with extra("notebooks", "rdlib.plot"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

# By family, after Okabe and Ito, whose colours the colour-blind can tell apart; the first words of a method's name
# decide.  A lattice has one colour, whether it is cut to a ball, entropy-coded or a shape; no other two families have.
COLOURS = {
    "uniform opt. clip": "#0072B2",
    "uniform 3σ": "#56B4E9",
    "uniform": "#6A51A3",
    "mid-tread": "#882255",
    "asymmetric opt. clip": "#7F6000",
    "asymmetric 3σ": "#B8A200",
    "asymmetric": "#E69F00",
    "Lloyd–Max": "#D55E00",
    "ECSQ optimum": "#CC3377",
    "ECSQ centroid": "#009E73",
    "ECSQ midpoint": "#66A61E",
    "ECSQ + feedback": "#005F3C",
    "entropy-coded A2": "#74A9CF",
    "entropy-coded D4": "#2B8CBE",
    "entropy-coded E8": "#034E7B",
    "entropy-coded Leech": "#011F33",
    "entropy-coded TCQ": "#7A0177",
    "entropy-coded": "#CC79A7",
    "k-means d=2": "#66C2A4",
    "k-means d=4": "#1B7F79",
    "k-means": "#00441B",
    "multi-codebook": "#8FBC94",
    "PQ d=4": "#A6761D",
    "PQ": "#5C3A00",
    "residual VQ": "#5E4FA2",
    "A2 ball": "#74A9CF",
    "D4 ball": "#2B8CBE",
    "E8 ball": "#034E7B",
    "Leech shape–gain": "#011F33",
    "E8P": "#4C78A8",
    "bitshift": "#B2182B",
    "TCQ": "#EF6548",
    "NF4": "#1B9E77",
    "double-quantized NF4": "#66C2A5",
    "FP4": "#D95F02",
    "double-quantized FP4": "#FC8D62",
    "E2M1": "#E6AB02",
    "MXFP4": "#8D6E63",
    "NVFP4": "#4E342E",
    "GGUF Q4_0": "#7570B3",
    "GGUF Q4_1": "#9E9AC8",
    "GGUF Q5": "#54278F",
    "GGUF Q8": "#3F007D",
    "llama.cpp Q": "#B15928",
    "llama.cpp IQ": "#E31A1C",
    "HQQ": "#E7298A",
    "LLM.int8": "#555555",
    "act-order GPTQ": "#8C9EFF",
    "GPTQ": "#3B4CC0",
    "AWQ": "#B5CC18",
    "LDLQ": "#006064",
    "WaterSIC": "#C800C8",
    "trellis + feedback": "#9B5DE5",
}
MARKERS = {
    "tensor": "o",
    "channel": "s",
    "g128": "^",
    "g64": "<",
    "g32": "v",
    "g16": ">",
    "row classes": "X",
    "column classes": "*",
    "G and H": "8",
    "feedback 64 states": "p",
}
MARKERS |= {"d=2": "P", "d=4": "p", "d=8": "h", "L=8": "d", "L=12": "D", " 4 states": "1", " 8 states": "2"}
GROUP_COLOURS = dict(
    zip(
        ("q", "k", "v", "o", "gate", "up", "down", "embed", "lm_head"),
        ("#0072B2", "#56B4E9", "#009E73", "#66A61E", "#E69F00", "#D55E00", "#8C2D04", "#555555", "#999999"),
        strict=True,
    )
)
BOUNDS = (
    {"color": "black", "ls": "-"},
    {"color": "0.45", "ls": "-"},
    {"color": "0.45", "ls": ":"},
    {"color": "0.7", "ls": "-"},
)

Bound = Callable[[np.ndarray], np.ndarray]  # normalised distortion D/σ² at a rate


def use_style() -> None:
    """The style of every figure of the project, and the same bytes for the same figure."""
    plt.rcParams.update(
        {
            "figure.dpi": 100,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "grid.linewidth": 0.6,
            "font.size": 9,
            "axes.titlesize": 10,
            "legend.frameon": False,
            "legend.fontsize": 8,
            "lines.markersize": 4.5,
            "lines.linewidth": 1.2,
            "savefig.bbox": "tight",
            "svg.hashsalt": "rdlib",
        }
    )


def png(figure: Figure) -> str:
    """The picture in base 64, for a page; the figure is closed."""
    data = io.BytesIO()
    figure.savefig(data, format="png", metadata={"Software": None})
    plt.close(figure)
    return base64.b64encode(data.getvalue()).decode()


def svg(figure: Figure) -> str:
    """The drawing, as an element that a page or a file contains; words stay words; the figure is closed."""
    text = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg") :]


def method_style(method: str) -> dict:
    """Colour, marker and line of a method."""
    levels = method.removeprefix("rotated ")
    colour = next((c for name, c in COLOURS.items() if levels.startswith(name)), "#333333")
    marker = next((m for name, m in MARKERS.items() if levels.endswith(name)), "D")
    coded = levels.startswith(("ECSQ", "entropy-coded", "WaterSIC", "trellis +"))
    return {
        "color": colour,
        "marker": marker,
        "ls": ":" if levels != method else "--" if coded else "-",
        "markerfacecolor": "white" if coded else colour,
    }


def rate_distortion(
    points: pd.DataFrame,
    bounds: Mapping[str, Bound] | None = None,
    title: str = "",
    variance: float | None = None,
    most: float | None = None,
) -> Figure:
    """The gap of every point to the first bound, in bits, over the rate; below it, smaller, the distortion itself.

    Args:
        points: columns method, rate, nmse (D/σ²), one row a point.
        bounds: name → D/σ² at a rate; the Gaussian D(R) where none is given.
        title: of the figure.
        variance: σ²; where given, a second axis shows the distortion as MSE.
        most: the largest gap that is shown; all of them where None.
    """
    bounds = bounds or {"Gaussian D(R)": lambda rate: gaussian_distortion(rate, 1.0)}
    first = next(iter(bounds.values()))
    figure, (top, low) = plt.subplots(2, 1, figsize=(8.4, 6.2), sharex=True, height_ratios=[2.6, 1])
    limit = min(points.rate.max() * 1.04, 9.0)
    rates = np.linspace(0, limit, 400)
    for (name, bound), line in zip(bounds.items(), BOUNDS, strict=False):
        top.plot(rates, gap_bits(rates, bound(rates), first), label=name, zorder=1, **line)
        low.plot(rates, to_db(bound(rates)), zorder=1, **line)
    top.plot(rates, rates, color="0.7", ls=(0, (1, 3)), label="_sending nothing")
    for method, curve in points.groupby("method", sort=False):
        curve = curve[curve.nmse > 0].sort_values("rate")
        top.plot(curve.rate, gap_bits(curve.rate, curve.nmse, first), label=method, **method_style(method))
        low.plot(curve.rate, to_db(curve.nmse), **method_style(method))
    gaps = np.concatenate([line.get_ydata() for line in top.lines if not line.get_label().startswith("_")])
    highest = gaps.max() if most is None else most
    top.set(ylabel=f"gap to {next(iter(bounds))} (bits)", title=title, xlim=(0, limit))
    top.set_ylim(min(gaps.min(), 0) - 0.04 * highest, 1.04 * highest)
    low.set(xlabel="rate (total bits per weight)", ylabel="D/σ² (dB)")
    low.set_ylim(to_db(points.nmse[points.nmse > 0].min()) - 3, 3)
    if variance:
        mse_axis(low, variance)
    label_ends(top)
    return figure


def label_ends(ax: Axes) -> None:
    """The label of every line in its colour, right of the axes, at the height where the line ends; none on another.

    Call it last: what is done to the axes later may move the ends.
    """
    low, high = ax.get_ylim()
    forth = ax.transData.transform
    ends = []
    for line in ax.lines:
        x, y = line.get_data()
        seen = np.flatnonzero((np.asarray(y) >= low) & (np.asarray(y) <= high))
        if len(seen) and not line.get_label().startswith("_"):
            end = x[seen[-1]], y[seen[-1]]
            ends.append((forth(end)[1], end, line.get_label(), line.get_color()))
    ends.sort(key=lambda end: end[0])
    apart = 1.25 * plt.rcParams["legend.fontsize"] * ax.figure.dpi / 72  # pixels between lines of text
    heights = spread([end[0] for end in ends], apart)
    for height, (_, end, label, colour) in zip(heights, ends, strict=True):
        ax.annotate(
            label,
            end,
            (1.03, (height - ax.bbox.y0) / ax.bbox.height),
            textcoords="axes fraction",
            color=colour,
            fontsize=plt.rcParams["legend.fontsize"],
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 1, "shrinkB": 3},
        )


def spread(places: list[float], apart: float) -> np.ndarray:
    """Rising places, moved as little as it takes (least squares) to lie at least ``apart`` from each other.

    >>> spread([0.0, 0.0, 5.0], 1.0).tolist()
    [-0.5, 0.5, 5.0]
    """
    blocks: list[tuple[float, int]] = []  # mean of places less their ranks, and how many: they stick together
    for rank, place in enumerate(places):
        mean, count = place - apart * rank, 1
        while blocks and blocks[-1][0] > mean:
            before, many = blocks.pop()
            mean, count = (mean * count + before * many) / (count + many), count + many
        blocks.append((mean, count))
    return (
        np.repeat(*map(list, zip(*blocks, strict=True))) + apart * np.arange(len(places))
        if places
        else np.array([])
    )


def mse_axis(ax: Axes, variance: float) -> None:
    """A second vertical axis: the distortion as MSE, in the square of the weights' unit."""
    second = ax.secondary_yaxis(
        "right", functions=(lambda db: db + to_db(variance), lambda db: db - to_db(variance))
    )
    second.yaxis.set_major_formatter(lambda db, _: f"{10 ** (db / 10):.0e}")
    second.set_ylabel("MSE")


def gap_bits(rates: np.ndarray, nmse: np.ndarray, bound: Bound) -> np.ndarray:
    """R − R(D): how many bits per weight a point spends beyond a bound at its own distortion."""
    grid = np.linspace(0, 20, 4001)
    at = np.maximum(np.asarray(bound(grid), float), 1e-300)  # a bound may reach zero
    return np.asarray(rates) - np.interp(-np.log(np.asarray(nmse)), -np.log(at), grid)


def heat_map(
    frame: pd.DataFrame,
    label: str,
    ax: Axes | None = None,
    digits: int = 2,
    ends: tuple[float, float] | None = None,
) -> Axes:
    """A table as colours with its numbers written in: one row a group, one column a layer.

    Args:
        frame: index → rows, columns → columns; NaN is left blank.
        label: of the colour bar, with the unit.
        ax: to draw on; a new figure where None.
        digits: after the decimal point.
        ends: values of the darkest and of the lightest colour; those of the table where None.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(1.6 + 0.75 * frame.shape[1], 1.0 + 0.34 * len(frame)))
    low, high = ends or (np.nanmin(frame), np.nanmax(frame))
    image = ax.imshow(frame.to_numpy(float), "cividis", aspect="auto", vmin=low, vmax=high)
    ax.grid(False)
    ax.set_xticks(range(frame.shape[1]), frame.columns)
    ax.set_yticks(range(len(frame)), frame.index)
    ax.set(xlabel=frame.columns.name or "", ylabel=frame.index.name or "")
    if frame.size <= 200:  # more numbers than that cannot be read
        for (i, j), value in np.ndenumerate(frame.to_numpy(float)):
            if np.isfinite(value):
                ink = "black" if 2 * value > low + high else "white"
                ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color=ink, fontsize=8)
    ax.figure.colorbar(image, ax=ax, label=label)
    return ax


def density(histogram: Histogram, ax: Axes, label: str = "weights") -> None:
    """Density of w/σ on a log scale, against the Gaussian and the Laplacian of the same variance."""
    x = (histogram.values - histogram.mean) / histogram.variance**0.5
    limit = min(1.05 * np.abs(x).max(), 12)
    edges = np.linspace(-limit, limit, 161)
    counts, _ = np.histogram(x, edges, weights=histogram.counts)
    ax.stairs(
        counts / counts.sum() / np.diff(edges), edges, fill=True, color="#56B4E9", alpha=0.7, label=label
    )
    grid = np.linspace(-limit, limit, 400)
    ax.plot(grid, np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color="black", label="Gaussian")
    ax.plot(grid, np.exp(-np.sqrt(2) * np.abs(grid)) / np.sqrt(2), color="0.45", ls=":", label="Laplacian")
    ax.set(yscale="log", ylim=(0.3 / counts.sum(), 1.5), xlabel="w/σ", ylabel="density")
    ax.legend()


def quantile_quantile(histogram: Histogram, ax: Axes, label: str = "weights") -> None:
    """Quantiles of w/σ against those of a Gaussian: a straight line where the weights are one."""
    x = (histogram.values - histogram.mean) / histogram.variance**0.5
    middle = (np.cumsum(histogram.counts) - histogram.counts / 2) / histogram.size
    ax.plot(ndtri(middle), x, ".", ms=2.5, color="#0072B2", label=label)
    ends = np.array([-4.5, 4.5])
    ax.plot(ends, ends, color="black", label="Gaussian")
    ax.set(xlabel="quantile of a Gaussian", ylabel="quantile of w/σ")
    ax.legend()


def cells(points: np.ndarray, ax: Axes, limit: float) -> None:
    """The Voronoi cells of points of the plane: what is nearer to a point than to any other.

    Args:
        points: (n, 2).
        ax: to draw on.
        limit: the picture shows [−limit, limit]².
    """
    far = 100 * limit * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])  # so that every cell in sight is bounded
    diagram = Voronoi(np.vstack([points, far]))
    voronoi_plot_2d(diagram, ax, show_points=False, show_vertices=False, line_colors="0.6", line_width=0.6)
    ax.grid(False)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")


def by_layer(frame: pd.DataFrame, label: str, title: str = "", ax: Axes | None = None) -> Axes:
    """One line a group over the layers in their order.

    Args:
        frame: index → layers, columns → groups.
        label: of the vertical axis, with the unit.
        title: of the axes.
        ax: to draw on; a new figure where None.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7.2, 3.2))
    for group, values in frame.items():
        ax.plot(frame.index, values, marker="o", color=GROUP_COLOURS.get(group, "#333333"), label=group)
    ax.set(xlabel="layer", ylabel=label, title=title)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_ends(ax)
    return ax
