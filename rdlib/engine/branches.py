"""The variants of a model on their texts: which are still one, and what enters the next layer in each."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from rdlib.engine.bench import JUDGED, KNOWN, Bench, Step, untimed
from rdlib.engine.layers import NORM, Layer, Layers, Output
from rdlib.engine.room import Room
from rdlib.engine.text import Text
from rdlib.engine.variant import Change, Variant
from rdlib.functional.divergence import Distribution, Functional, functional
from rdlib.models.names import EMBEDDING
from rdlib.network.windows import Windows

TOKENS = 128  # predictions that are compared together: the head is read once for so many

Task = tuple[frozenset[Change], list[Variant]]  # what is made anew, and the variants that have it


@dataclass(frozen=True)
class Branch:
    """Variants that are the same up to a layer, and their hidden states on the texts that they run on."""

    variants: list[Variant]
    texts: Mapping[str, Text]


def split(variants: Sequence[Variant], names: Collection[str]) -> list[Task]:
    """Variants by what they make anew of some tensors, and by whose inputs they are calibrated on."""
    groups = defaultdict(list)
    for variant in variants:
        changes = variant.changes(names)
        groups[changes, variant.sequential and bool(changes)].append(variant)
    return [(changes, same) for (changes, _), same in groups.items()]


class Branches:
    """All variants, and the model itself.

    A variant runs on the evaluation text if it is judged by its output, and on the calibration text if it is calibrated
    on its own inputs; the model runs on both.

    Args:
        network: of the model.
        variants: of the model.
        windows: of each text that there is.
        judged: whether the variants run on the evaluation text.
        room: for hidden states.
    """

    def __init__(
        self,
        network: Layers,
        variants: Sequence[Variant],
        windows: Mapping[str, Windows],
        judged: bool,
        room: Room,
    ):
        self.network, self.windows, self.judged, self.room = network, windows, judged, room
        self.unchanged = list(variants)  # which are the model until now
        self.model = {name: Text.embedded(network, text, room) for name, text in windows.items()}
        self.others: list[Branch] = []
        self.step: Step = untimed  # is put around each step

    def runs_on(self, variants: Sequence[Variant]) -> list[str]:
        """The texts that some variants, which are one, run on."""
        return [JUDGED] * self.judged + [KNOWN] * variants[0].sequential

    def embed(self, bench: Bench) -> None:
        """What enters the first layer."""
        tasks = self._leaving([EMBEDDING])
        bench.prepare(changes for changes, _ in tasks)
        for changes, same in tasks:
            tensors = bench.make(changes, same)
            texts = {
                name: Text.embedded(self.network, self.windows[name], self.room, tensors)
                for name in self.runs_on(same)
            }
            self.others.append(Branch(same, texts))

    def advance(self, layer: Layer, bench: Bench) -> None:
        """Pass a layer with the model and with every branch.

        Args:
            layer: the next.
            bench: for its matrices.
        """
        before, leaving = self.others, self._leaving(layer.names)
        recorded = {name for _, same in leaving for name in self.runs_on(same)}
        moments, records = {}, {}
        for name, text in self.model.items():
            with self.step("run", name):
                moments[name], records[name] = text.advance(layer, name in recorded)
        tasks = [split(branch.variants, layer.names) for branch in before]
        bench.prepare([changes for part in (leaving, *tasks) for changes, _ in part], moments)
        self.others = [self._left(layer, bench, *task, records) for task in leaving]
        del records
        for branch, part in zip(before, tasks, strict=True):
            self.others += self._passed(layer, bench, branch, part)
        bench.prepare([])  # the moments go before those of the next layer come: 4 GB at 8 billion weights

    def _leaving(self, names: Collection[str]) -> list[Task]:
        """The variants that are the model until now, and no longer with these tensors."""
        groups = split(self.unchanged, names)
        self.unchanged = next((same for changes, same in groups if not changes), [])
        return [(changes, same) for changes, same in groups if changes]

    def _left(
        self,
        layer: Layer,
        bench: Bench,
        changes: frozenset[Change],
        same: list[Variant],
        records: Mapping[str, Mapping[str, torch.Tensor]],
    ) -> Branch:
        """What leaves a layer that the model itself enters, with some tensors in place of its own."""
        tensors, texts = bench.make(changes, same), {}
        stage = layer.stage(tensors)
        with layer.replaced(tensors if self.runs_on(same) else {}):
            for name in self.runs_on(same):
                record = records[name]
                with self.step("run", name):
                    texts[name] = self.model[name].passed(
                        lambda batch, record=record: layer.resume(
                            stage, {key: x[batch] for key, x in record.items()}
                        )
                    )
        return Branch(same, texts)

    def _passed(self, layer: Layer, bench: Bench, branch: Branch, tasks: list[Task]) -> Iterator[Branch]:
        """What leaves a layer that a branch enters, for each of its tasks."""
        own = None
        if branch.variants[0].sequential and any(changes for changes, _ in tasks):
            with self.step("run", KNOWN):
                own = branch.texts[KNOWN].moments(layer)
        for changes, same in tasks:
            tensors, texts = bench.make(changes, same, own), {}
            with layer.replaced(tensors if branch.texts else {}):
                for name, text in branch.texts.items():
                    with self.step("run", name), same[0].around(layer.modules):
                        texts[name] = text.passed(
                            lambda batch, text=text: layer.run(text.hidden[batch]), len(tasks) == 1
                        )
            yield Branch(same, texts)

    def end(self, bench: Bench) -> dict[Hashable, Functional]:
        """Label of a variant → how far its output strays from the model's, after the last layer.

        Args:
            bench: for norm and head.

        Raises:
            ValueError: the model itself gives NaN or infinite logits.
        """
        output = self.network.output()
        branches = [Branch(self.unchanged, self.model), *self.others]
        tasks = [split(branch.variants, [NORM, self.network.head]) for branch in branches]
        every = [changes for part in tasks for changes, _ in part]
        moments = {name: text.output(output) for name, text in self.model.items()} if any(every) else {}
        bench.prepare(every, moments)
        ends = []
        for branch, part in zip(branches, tasks, strict=True):
            for changes, same in part:
                sequential = changes and branch is not branches[0] and same[0].sequential
                own = branch.texts[KNOWN].output(output) if sequential else None
                tensors = bench.make(changes, same, own)
                if self.judged:
                    head = self.network.output(tensors) if tensors else output
                    ends.append(End(same, branch.texts[JUDGED].hidden, head))
        return self._compared(output, ends) if self.judged else {}

    def _compared(self, output: Output, ends: list["End"]) -> dict[Hashable, Functional]:
        windows, model = self.windows[JUDGED], self.model[JUDGED].hidden
        for part in windows.parts(TOKENS):
            with self.step("compared"):
                P = Distribution(output(model[part]))
                if not P.lse.isfinite().all():
                    raise ValueError(
                        f"{self.network.name} gives NaN or infinite logits: it cannot be a reference."
                    )
                target = torch.from_numpy(windows.ids[:, 1:][part]).to(self.network.device)
                for end in ends:
                    end.columns.append(P.compared(end.logits(part), target[:, None]))
        return {variant.label: functional(windows, end.columns) for end in ends for variant in end.variants}


@dataclass(frozen=True)
class End:
    """A branch after the last layer, its head, and the comparisons of its output with the model's."""

    variants: list[Variant]
    hidden: torch.Tensor
    output: Output
    columns: list[torch.Tensor] = field(default_factory=list)

    def logits(self, part: tuple[int, slice]) -> torch.Tensor:
        """(predictions, vocabulary)."""
        with self.variants[0].around(self.output.children()):
            return self.output(self.hidden[part])
