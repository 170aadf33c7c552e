"""The controls of the explorer in a notebook: what they are set to is a subject and a quantizer."""

import asyncio
from collections.abc import Callable, Mapping
from html import escape

import ipywidgets as widgets
import numpy as np

from rdlib.code.shown import streams_bar
from rdlib.explorer.controls import CHOICES, clip, group, program, with_clip, with_group
from rdlib.explorer.picture import Picture, State
from rdlib.explorer.sources import SOURCES, written
from rdlib.explorer.subject import RATES, Subject
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.hub import find_model
from rdlib.quantizers import Quantizer

GROUPS = (8, 16, 32, 64, 128, 256)
SOON, LATER = 0.03, 0.4  # seconds after a change: until the screen follows, and until a guess is measured
MATRICES = "matrices of the model"


class Explorer(widgets.VBox):
    """Controls, numbers and figure; they follow every change, and of changes in a hurry the last.

    Args:
        checkpoint: where matrices come from; one is read when it is chosen.
        label: of the matrix to begin with, like 1.down.
        family: a key of :data:`CHOICES`.
        bits: nominal rate to begin with; the nearest that the family has.
        moments: H of the inputs of some matrices, by tensor: the error of their outputs is shown too.

    Raises:
        ValueError: the checkpoint has no such matrix, or there is no such family.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        label: str,
        family: str = "Lloyd–Max",
        bits: int = 4,
        moments: Mapping[str, np.ndarray] | None = None,
    ):
        self._weights = {weight.label: weight for weight in checkpoint.weights}
        if label not in self._weights:
            raise ValueError(f"There is no matrix {label!r}; there are {', '.join(self._weights)}.")
        if family not in CHOICES:
            raise ValueError(f"There is no family {family!r}; there are {', '.join(CHOICES)}.")
        self._checkpoint, self._moments = checkpoint, moments or {}
        self._pinned: State | None = None
        self._waiting: dict[Callable, asyncio.TimerHandle] = {}
        wide = {"style": {"description_width": "6em"}, "layout": {"width": "30em"}}
        slider = wide | {"continuous_update": True}
        self.source = widgets.Dropdown(options=[MATRICES, *SOURCES], description="weights", **wide)
        self.matrix = widgets.Dropdown(options=list(self._weights), value=label, description="matrix", **wide)
        self.tail = widgets.SelectionSlider(options=["–"], description="tail", disabled=True, **slider)
        self.family = widgets.Dropdown(options=list(CHOICES), value=family, description="family", **wide)
        self.bits = widgets.IntSlider(bits, RATES[0], RATES[-1], description="bits", **slider)
        self.group = widgets.SelectionSlider(options=GROUPS, value=64, description="group size", **slider)
        self.clip = widgets.FloatSlider(3.0, min=1.0, max=8.0, step=0.1, description="clip (σ)", **slider)
        self.pin = widgets.ToggleButton(description="pin this state", tooltip="keep its curve to compare")
        self.busy = widgets.HTML()
        self.numbers, self.streams, self.python = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.image = widgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        self.image.alt = (
            "Distortion against rate with its bounds, the gap below, and the levels on the density"
        )
        knobs = [self.source, self.matrix, self.tail, self.family, self.bits, self.group, self.clip]
        controls = widgets.VBox([*knobs, widgets.HBox([self.pin, self.busy])])
        row = widgets.HBox([controls, self.numbers], layout={"flex_flow": "row wrap"})
        super().__init__([row, self.image, self.streams, self.python])
        self.add_class("rdlib-explorer")
        self._open()
        self.source.observe(lambda _: self._fit_tail(), "value")  # before it is opened
        for control in (self.source, self.matrix, self.tail):
            control.observe(lambda _: self._after(SOON, self._open), "value")
        for control in (self.family, self.bits, self.group, self.clip):
            control.observe(lambda _: self._after(SOON, self._update), "value")
        self.pin.observe(lambda _: self._pin(), "value")

    @property
    def quantizer(self) -> Quantizer:
        """What the controls are set to."""
        quantizer = CHOICES[self.family.value]
        allowed = quantizer.bits_allowed
        bits = min(max(self.bits.value, allowed[0]), allowed[-1])
        return with_clip(with_group(quantizer.at(bits), self.group.value), self.clip.value)

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        """Act when no more has changed for a while; at once where no loop runs that could wait."""
        if act in self._waiting:
            self._waiting.pop(act).cancel()
        try:
            self._waiting[act] = asyncio.get_running_loop().call_later(seconds, act)
        except RuntimeError:
            act()

    def _fit_tail(self) -> None:
        """Give the slider of the tail the places that the source has."""
        source = SOURCES.get(self.source.value)
        numbers = source.numbers if source and source.symbol else ()
        self.matrix.disabled, self.tail.disabled = source is not None, not numbers
        self.tail.description = source.symbol if numbers else "tail"
        self.tail.options = [(written(number), number) for number in numbers] or ["–"]
        self.tail.value = numbers[len(numbers) // 2] if numbers else "–"

    def _chosen(self) -> Subject:
        """The matrix, or the source at its tail."""
        if source := SOURCES.get(self.source.value):
            number = self.tail.value if source.symbol else source.numbers[0]
            return Subject(source.label(number), source.weights(number), python=source.python(number))
        weight = self._weights[self.matrix.value]
        folder = self._checkpoint.folder
        name = "embedded" if folder == find_model("embedded") else str(folder)
        python = f"open_checkpoint({name!r}).tensor({weight.name!r})"
        H = self._moments[weight.name] if weight.name in self._moments else None
        return Subject(weight.label, self._checkpoint.tensor(weight), H, python)

    def _open(self) -> None:
        """Read what was chosen and compute what no other control changes."""
        self.busy.value = "reading …"
        self.subject = self._chosen()
        self.subject.prepare(CHOICES.values())
        self._picture = Picture(self.subject)
        self._update()

    def _pin(self) -> None:
        self._pinned = (self.subject, self.quantizer) if self.pin.value else None
        self.pin.description = "pinned; press to let go" if self.pin.value else "pin this state"
        self._update()

    def _update(self) -> None:
        """Show the quantizer, and measure it later if that takes time; switch off the controls that it lacks."""
        quantizer = self.quantizer
        self.bits.disabled = len(quantizer.bits_allowed) == 1
        self.group.disabled = group(quantizer) is None
        self.clip.disabled = clip(quantizer) is None
        self._show(quantizer)
        if not self.subject.at_hand(quantizer):
            rows = len(self.subject.sample.W)
            if self.group.disabled:
                self.busy.value = f"from {rows:,} of {len(self.subject.W):,} rows"
            else:
                self.busy.value = f"from {rows:,} of {len(self.subject.W):,} rows; measuring all …"
                self._after(LATER, self._settle)

    def _settle(self) -> None:
        """Measure the state that is shown on the whole matrix."""
        self.subject.read(self.quantizer)
        self._show(self.quantizer)

    def _show(self, quantizer: Quantizer) -> None:
        self.busy.value = ""
        self.image.value = self._picture.png(quantizer, self._pinned)
        columns = {"now": self.subject.readout(quantizer)}
        if self._pinned:
            columns["pinned"] = self._pinned[0].readout(self._pinned[1])
        self.numbers.value = table_of(columns)
        self.streams.value = streams_bar(self.subject.glance(quantizer).rates)
        code = escape(program(self.subject.python, quantizer))
        self.python.value = f"<details><summary>the code of this state</summary><pre>{code}</pre></details>"

    def __repr__(self) -> str:
        return f"Explorer({self.subject.label}, {self.quantizer.method}, {self.quantizer.bits} bits)"


def table_of(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Names and numbers as an HTML table, a column for each state."""
    head = "".join(f'<th scope="col" style="text-align:left">{escape(name)}</th>' for name in columns)
    head = f"<thead><tr><td></td>{head}</tr></thead>" if len(columns) > 1 else ""
    names = dict.fromkeys(name for numbers in columns.values() for name in numbers)
    row = '<tr><th scope="row" style="text-align:left;padding-right:1em">{}</th>{}</tr>'
    cell = '<td style="padding-right:1em">{}</td>'
    rows = "".join(
        row.format(escape(n), "".join(cell.format(escape(c.get(n, "–"))) for c in columns.values()))
        for n in names
    )
    return f'<table class="rdlib-readout" style="line-height:1.35;margin-left:1em">{head}{rows}</table>'
