"""The variants of a model on the text that they are judged by: which are still one, and what enters the next layer."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

import torch

from rdlib.engine.bench import Bench
from rdlib.engine.layers import NORM, Layer, Layers, Output, Tensors
from rdlib.engine.moments import Moments
from rdlib.engine.text import Text
from rdlib.engine.variant import Change, Variant
from rdlib.functional.divergence import Distribution, Functional, allocate, functional
from rdlib.models.names import EMBEDDING
from rdlib.network.windows import Windows

TOKENS = 128  # predictions that are compared together: the head is read once for so many


@dataclass(frozen=True)
class Branch:
    """Variants that are the same up to a layer, and what enters it in them, (windows, length, hidden)."""

    variants: list[Variant]
    hidden: torch.Tensor


def split(
    variants: Sequence[Variant], names: Collection[str]
) -> list[tuple[frozenset[Change], list[Variant]]]:
    """Variants by what they make anew of some tensors."""
    groups = defaultdict(list)
    for variant in variants:
        groups[variant.changes(names)].append(variant)
    return list(groups.items())


class Branches:
    """All variants on one text.

    Args:
        network: of the model.
        windows: of the text.
        variants: of the model.
        in_memory: bytes; hidden states beyond that go to temporary files.
    """

    def __init__(self, network: Layers, windows: Windows, variants: Sequence[Variant], in_memory: int):
        self.network, self.windows, self.in_memory = network, windows, in_memory
        self.model = Text(network, windows, in_memory)
        self.unchanged = list(variants)  # which are the model until now
        self.others: list[Branch] = []

    def embed(self, bench: Bench) -> None:
        """What enters the first layer."""
        tasks = self._leaving([EMBEDDING])
        bench.prepare(changes for changes, _ in tasks)
        for changes, same in tasks:
            branch = Branch(same, self._room())
            self.network.embed(self.windows, branch.hidden, bench.make(changes, same))
            self.others.append(branch)

    def advance(self, layer: Layer, bench: Bench, H: Moments | None) -> None:
        """What leaves a layer that every branch enters.

        Args:
            layer: the next.
            bench: for its matrices.
            H: of the calibration text.
        """
        before = [(branch, *task) for branch in self.others for task in split(branch.variants, layer.names)]
        leaving = self._leaving(layer.names)
        held_out, record = self.model.advance(layer, recorded=bool(leaving))
        bench.prepare(
            [changes for _, changes, _ in before] + [changes for changes, _ in leaving], H, held_out
        )
        self.others = []
        for changes, same in leaving:
            self.others.append(Branch(same, self._resumed(layer, bench.make(changes, same), record)))
        for branch, changes, same in before:
            room = branch.hidden if len(same) == len(branch.variants) else self._room()
            with layer.replaced(bench.make(changes, same)), same[0].around(layer.modules):
                for batch in self.windows.batches:
                    room[batch] = layer.run(branch.hidden[batch])
            self.others.append(Branch(same, room))

    def _leaving(self, names: Collection[str]) -> list[tuple[frozenset[Change], list[Variant]]]:
        """The variants that are the model until now, and no longer with these tensors."""
        groups = split(self.unchanged, names)
        self.unchanged = next((same for changes, same in groups if not changes), [])
        return [(changes, same) for changes, same in groups if changes]

    def _room(self) -> torch.Tensor:
        size = 4 * self.model.hidden.numel()
        return allocate(tuple(self.model.hidden.shape), self.in_memory - size * len(self.others))

    def _resumed(self, layer: Layer, tensors: Tensors, record: dict[str, torch.Tensor]) -> torch.Tensor:
        """What leaves a layer that the model itself enters, with some tensors in place of its own."""
        room, stage = self._room(), layer.stage(tensors)
        with layer.replaced(tensors):
            for batch in self.windows.batches:
                room[batch] = layer.resume(stage, {name: x[batch] for name, x in record.items()})
        return room

    def outputs(self, bench: Bench, known: Text | None) -> dict[Hashable, Functional]:
        """Label of a variant → how far its output strays from the model's, after the last layer.

        Args:
            bench: for norm and head.
            known: the calibration text after the last layer, for H of the inputs of the head.

        Raises:
            ValueError: the model itself gives NaN or infinite logits.
        """
        output = self.network.output()
        last = [Branch(self.unchanged, self.model.hidden), *self.others]
        tasks = [(b, *task) for b in last for task in split(b.variants, [NORM, self.network.head])]
        changed = any(changes for _, changes, _ in tasks)
        bench.prepare(
            (changes for _, changes, _ in tasks), known.output(output) if known and changed else None
        )
        ends = []
        for branch, changes, same in tasks:
            tensors = bench.make(changes, same)
            ends.append(End(same, branch.hidden, self.network.output(tensors) if tensors else output))
        for part in self._parts():
            P = Distribution(output(self.model.hidden[part]))
            if not P.lse.isfinite().all():
                raise ValueError(
                    f"{self.network.name} gives NaN or infinite logits: it cannot be a reference."
                )
            target = torch.from_numpy(self.windows.ids[:, 1:][part]).to(self.network.device)
            for end in ends:
                end.columns.append(P.compared(end.logits(part), target[:, None]))
        return {
            variant.label: functional(self.windows, end.columns) for end in ends for variant in end.variants
        }

    def _parts(self) -> list[tuple[int, slice]]:
        """Window and places of the predictions that count, some at a time."""
        length = self.windows.length
        starts = range(length - self.windows.stride, length, TOKENS)
        return [(k, slice(i, min(i + TOKENS, length))) for k in range(len(self.windows)) for i in starts]


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
