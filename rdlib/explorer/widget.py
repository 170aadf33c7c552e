"""The controls of the explorer in a notebook: what they are set to is a matrix and a quantizer."""

from html import escape

import ipywidgets as widgets

from rdlib.explorer.controls import CHOICES, clip, group, with_clip, with_group
from rdlib.explorer.picture import Picture
from rdlib.explorer.subject import RATES, Subject
from rdlib.models.checkpoint import Checkpoint
from rdlib.quantizers import Quantizer

GROUPS = (8, 16, 32, 64, 128, 256)


class Explorer(widgets.VBox):
    """Controls, numbers and figure; they follow every change.

    Args:
        checkpoint: where matrices come from; one is read when it is chosen.
        label: of the matrix to begin with, like 1.down.
        family: a key of :data:`CHOICES`.
        bits: nominal rate to begin with; the nearest that the family has.

    Raises:
        ValueError: the checkpoint has no such matrix, or there is no such family.
    """

    def __init__(self, checkpoint: Checkpoint, label: str, family: str = "Lloyd–Max", bits: int = 4):
        self._weights = {weight.label: weight for weight in checkpoint.weights}
        if label not in self._weights:
            raise ValueError(f"There is no matrix {label!r}; there are {', '.join(self._weights)}.")
        if family not in CHOICES:
            raise ValueError(f"There is no family {family!r}; there are {', '.join(CHOICES)}.")
        self._checkpoint = checkpoint
        wide = {"style": {"description_width": "6em"}, "layout": {"width": "30em"}}
        slider = wide | {"continuous_update": True}
        self.matrix = widgets.Dropdown(options=list(self._weights), value=label, description="matrix", **wide)
        self.family = widgets.Dropdown(options=list(CHOICES), value=family, description="family", **wide)
        self.bits = widgets.IntSlider(bits, RATES[0], RATES[-1], description="bits", **slider)
        self.group = widgets.SelectionSlider(options=GROUPS, value=64, description="group size", **slider)
        self.clip = widgets.FloatSlider(3.0, min=1.0, max=8.0, step=0.1, description="clip (σ)", **slider)
        self.numbers = widgets.HTML()
        self.image = widgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})
        self.image.alt = (
            "Distortion against rate with its bounds, the gap below, and the levels on the density"
        )
        controls = widgets.VBox([self.matrix, self.family, self.bits, self.group, self.clip])
        super().__init__(
            [widgets.HBox([controls, self.numbers], layout={"flex_flow": "row wrap"}), self.image]
        )
        self.add_class("rdlib-explorer")
        self._open()
        self.matrix.observe(lambda _: self._open(), "value")
        for control in (self.family, self.bits, self.group, self.clip):
            control.observe(lambda _: self._update(), "value")

    @property
    def quantizer(self) -> Quantizer:
        """What the controls are set to."""
        quantizer = CHOICES[self.family.value]
        allowed = quantizer.bits_allowed
        bits = min(max(self.bits.value, allowed[0]), allowed[-1])
        return with_clip(with_group(quantizer.at(bits), self.group.value), self.clip.value)

    def _open(self) -> None:
        """Read the chosen matrix and compute what no other control changes."""
        weight = self._weights[self.matrix.value]
        self.subject = Subject(weight.label, self._checkpoint.tensor(weight))
        self.subject.prepare(CHOICES.values())
        self._picture = Picture(self.subject)
        self._update()

    def _update(self) -> None:
        """Show the quantizer; switch off the controls that it does not have."""
        quantizer = self.quantizer
        self.bits.disabled = len(quantizer.bits_allowed) == 1
        self.group.disabled = group(quantizer) is None
        self.clip.disabled = clip(quantizer) is None
        self.image.value = self._picture.png(quantizer)
        self.numbers.value = table_of(self.subject.readout(quantizer))

    def __repr__(self) -> str:
        return f"Explorer({self.matrix.value}, {self.quantizer.method}, {self.quantizer.bits} bits)"


def table_of(numbers: dict[str, str]) -> str:
    """Names and numbers as an HTML table of two columns."""
    row = '<tr><th scope="row" style="text-align:left;padding-right:1em">{}</th><td>{}</td></tr>'
    rows = "".join(row.format(escape(name), escape(value)) for name, value in numbers.items())
    return f'<table class="rdlib-readout" style="line-height:1.35;margin-left:1em">{rows}</table>'
