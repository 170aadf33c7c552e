"""The figure of the explorer: axes and bounds are fixed, the quantizer moves over them.

Drawing a figure anew takes a tenth of a second and more.  So it is laid out and drawn once for a matrix, kept as
pixels, and an update draws the few lines that move on top of them.
"""

import io

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from rdlib.explorer.controls import group
from rdlib.explorer.subject import GAUSSIAN, RATES, Subject
from rdlib.plot import BOUNDS, density, gap_bits, method_style, use_style
from rdlib.quantizers import Quantizer
from rdlib.theory.gaussian import to_db

SIZE = (10.4, 4.8)  # inches
LAYOUT = [["distortion", "density"], ["gap", "density"]]
State = tuple[Subject, Quantizer]
MOST = 1 << 12  # levels that are drawn; more would be a solid block


def picture(subject: Subject, quantizer: Quantizer) -> Figure:
    """The state of the explorer as a figure of pyplot."""
    figure = plt.figure(figsize=SIZE)
    panels = Panels(subject, figure)
    panels.show(quantizer)
    return figure


class Panels:
    """The axes of the explorer on a figure, and the artists that show a quantizer.

    Args:
        subject: the matrix.
        figure: empty; it is drawn on.
    """

    def __init__(self, subject: Subject, figure: Figure):
        self.subject = subject
        axes = figure.subplot_mosaic(LAYOUT, height_ratios=[3, 1.3], width_ratios=[1.15, 1])
        top, low, right = self.axes = [axes[name] for name in ("distortion", "gap", "density")]
        rates = np.linspace(0, RATES[-1] + 1, 300)
        for (name, bound), line in zip(subject.bounds.items(), BOUNDS, strict=False):
            least = bound(rates)
            top.plot(rates, to_db(least), label=name, zorder=1, **line)
            if name != GAUSSIAN:
                some = least > 0  # at the entropy of the weights, nothing is lost
                gaps = gap_bits(rates[some], least[some], subject.bounds[GAUSSIAN])
                low.plot(rates[some], gaps, zorder=1, **line)
        low.axhline(0, zorder=1, **BOUNDS[0])
        top.set(ylabel="distortion D/σ² (dB)", xlim=(0, rates[-1]), ylim=(-51, 3))
        top.tick_params(labelbottom=False)
        low.set(xlabel="rate (total bits per weight)", ylabel="gap to\nGaussian (bits)")
        low.set(xlim=(0, rates[-1]), ylim=(-0.2, 2.2))
        top.legend(loc="upper right")
        density(subject.histogram, right)
        right.set(xlabel="w/σ, and the reconstruction levels")
        self.pinned = [ax.plot([], [], ls=":", lw=1.8, marker="")[0] for ax in (top, low)]
        self.curve, self.gap = top.plot([], [])[0], low.plot([], [])[0]
        spot = {"marker": "o", "ms": 11, "markerfacecolor": "none", "markeredgewidth": 2, "ls": ""}
        self.here, self.there = top.plot([], [], **spot)[0], low.plot([], [], **spot)[0]
        self.excess = top.plot([], [], lw=2.5, solid_capstyle="butt")[0]
        self.levels = right.vlines([], 0, 1, transform=right.get_xaxis_transform(), lw=0.9, alpha=0.8)
        self.title = top.set_title(f"{subject.label}: …", loc="left")
        self.count = right.set_title("…", loc="left")

    @property
    def artists(self) -> list[Artist]:
        """What an update draws."""
        lines = [*self.pinned, self.curve, self.gap, self.excess, self.here, self.there]
        return [*lines, self.levels, self.title, self.count]

    def show(self, quantizer: Quantizer, pinned: State | None = None) -> None:
        """Move the artists to a quantizer: its curve, the point on it, the gap at that point, its levels.

        Args:
            quantizer: on the matrix.
            pinned: another state, whose curve is dotted.
        """
        subject, style = self.subject, method_style(quantizer.method)
        measured, point = subject.glance(quantizer), subject.glance(quantizer).point
        for line, data in zip((self.curve, self.gap), _curve(subject, quantizer), strict=True):
            line.set(data=data, **style)
        for line, data in zip(self.pinned, _curve(*pinned) if pinned else [([], [])] * 2, strict=True):
            line.set(data=data, color=method_style(pinned[1].method)["color"] if pinned else "0.5")
        exact = point.nmse == 0  # nothing is lost, and nothing is left to draw
        place = [[], []] if exact else [[point.rate], [float(to_db(point.nmse))]]
        excess = [] if exact else [subject.gaps(point)[GAUSSIAN]]
        self.here.set(data=place, markeredgecolor=style["color"])
        self.there.set(data=(place[0], excess), markeredgecolor=style["color"])
        bar = [] if exact else [point.rate - excess[0], point.rate]
        self.excess.set(data=(bar, place[1] * 2), color=style["color"])
        levels = (measured.levels[:MOST] - subject.histogram.mean) / subject.histogram.variance**0.5
        self.levels.set(segments=[[(x, 0), (x, 1)] for x in levels], color=style["color"])
        gap = f", {excess[0]:.2f} from the Gaussian bound" if excess else ""
        self.title.set_text(f"{subject.label}, {quantizer.method}: {point.rate:.2f} bits{gap}")
        where = "" if group(quantizer) is None else " of a group of median scale"
        self.count.set_text(f"{len(measured.levels):,} levels{where}, {point.symbols:,} in use")


def _curve(subject: Subject, quantizer: Quantizer) -> list[tuple[np.ndarray, np.ndarray]]:
    """Distortion in dB, and the gap in bits, over the rate: what the two panels on the left draw."""
    curve = subject.curve(quantizer, subject.glance)
    rate, nmse = (curve.loc[curve.nmse > 0, name].to_numpy() for name in ("rate", "nmse"))
    return [(rate, to_db(nmse)), (rate, gap_bits(rate, nmse, subject.bounds[GAUSSIAN]))]


class Picture:
    """The same figure as pixels, fast: :func:`picture` without what does not move.

    Args:
        subject: the matrix.
    """

    def __init__(self, subject: Subject):
        with rc_context():
            use_style()
            figure = Figure(figsize=SIZE)
            self._canvas = FigureCanvasAgg(figure)
            self._panels = Panels(subject, figure)
        self._canvas.draw()
        figure.set_layout_engine("none")
        for artist in self._panels.artists:
            artist.set_animated(True)
        self._canvas.draw()
        self._still = self._canvas.copy_from_bbox(figure.bbox)

    def png(self, quantizer: Quantizer, pinned: State | None = None) -> bytes:
        """The figure of a quantizer, and the curve of a pinned state, as a PNG file."""
        self._canvas.restore_region(self._still)
        self._panels.show(quantizer, pinned)
        for artist in self._panels.artists:
            artist.axes.draw_artist(artist)
        file = io.BytesIO()
        imsave(file, self._canvas.buffer_rgba(), format="png", pil_kwargs={"compress_level": 1})
        return file.getvalue()
