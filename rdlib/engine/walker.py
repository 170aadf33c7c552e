"""One walk through a model: each layer is read once, measured, made anew in every way, run in every variant, forgotten.

Variants that are equal up to a layer are one until then; a variant begins at the first matrix in which it differs from
the model; a matrix is made once for all variants that have it.  In memory are one layer, its second moments, the
matrices of one variant in it, and the hidden states: of the model, and of every variant since it differs.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from rdlib.engine.layers import NORM, Layer, Layers
from rdlib.engine.moments import Moments
from rdlib.engine.text import Text
from rdlib.engine.variant import Source, Variant
from rdlib.functional.divergence import CHUNK, IN_MEMORY, Distribution, Functional, allocate, functional
from rdlib.functional.proxies import error_sizes
from rdlib.measure import distances, output_error
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import EMBEDDING, layer_and_group
from rdlib.network.windows import Windows
from rdlib.theory import spectrum

SIZES = (
    "squared",
    "relative",
    "diagonal",
    "output",
    "relative_output",
    "held_out",
)  # of an error: they add up
Change = tuple[str, Source]  # a tensor, and how it is made


@dataclass(frozen=True, eq=False)
class Walk:
    """What a walk found.

    Args:
        rows: tensor and source → layer, group, weights, method, bits, rate (total bits per weight), and with a
            calibration text the sizes of the error (:func:`rdlib.functional.error_sizes`); with both texts also
            ``held_out``, tr(E H Eᵀ) under the H of the evaluation text.
        outputs: label of a variant → how far its output strays from the model's.
        tensors: label of a variant that was to be kept → its tensors, Ŵ by name.
        spectra: name of a matrix → eigenvalues of H of the calibration text, where they were wanted.
        held_out_spectra: the same of the evaluation text.
    """

    rows: dict[Change, dict] = field(default_factory=dict)
    outputs: dict[Hashable, Functional] = field(default_factory=dict)
    tensors: dict[Hashable, dict[str, np.ndarray]] = field(default_factory=dict)
    spectra: dict[str, np.ndarray] = field(default_factory=dict)
    held_out_spectra: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def points(self) -> pd.DataFrame:
        """All rows, with the name of the tensor."""
        return pd.DataFrame([{"name": name} | row for (name, _), row in self.rows.items()])

    def of(self, variant: Variant) -> pd.DataFrame:
        """The rows of a variant, by the name of the tensor."""
        rows = {name: self.rows[name, source] for name, source in variant.sources.items()}
        return pd.DataFrame.from_dict(rows, orient="index")

    def totals(self, variant: Variant) -> dict[str, float]:
        """Of all that a variant makes anew: weights, rate, and the sums of the sizes of the errors."""
        rows = self.of(variant)
        spent = float((rows.rate * rows.weights).sum())
        sums = rows[[column for column in ("weights", *SIZES) if column in rows]].sum().to_dict()
        return sums | {"rate": spent / max(sums["weights"], 1)}


@dataclass
class Branch:
    """Variants that are the same up to a layer, and what enters it in them."""

    variants: list[Variant]
    hidden: torch.Tensor | None


def split(variants: Sequence[Variant], names: Collection[str]) -> dict[frozenset[Change], list[Variant]]:
    """Variants by what they make anew of some tensors."""
    groups = defaultdict(list)
    for variant in variants:
        groups[variant.changes(names)].append(variant)
    return groups


def walk(
    checkpoint: Checkpoint,
    variants: Sequence[Variant],
    evaluation: Windows | None = None,
    calibration: Windows | None = None,
    keep: Collection[Hashable] = (),
    spectra: bool = False,
    device: str | None = None,
    in_memory: int = IN_MEMORY,
) -> Walk:
    """Measure variants of a model: their matrices, and where there is a text to judge by, their output.

    Args:
        checkpoint: of the model.
        variants: to be measured; no two have one label.
        evaluation: windows that the output is judged by; without them only matrices are measured.
        calibration: windows for H; without them no quantizer feeds errors back, and no error is weighed.
        keep: labels of variants whose tensors are wanted: these are held for the whole model.
        spectra: whether the eigenvalues of every H are wanted, for limits.
        device: see :class:`rdlib.engine.layers.Layers`.
        in_memory: bytes; hidden states of a text or a variant that take more go to a temporary file.

    Raises:
        ValueError: a variant has a tensor that the model does not have, or one that cannot be made; the message names
            it; or the model itself gives NaN or infinite logits.
    """
    found = Walk(tensors={label: {} for label in keep})
    walker = _Walker(
        checkpoint, Layers(checkpoint, device), evaluation, calibration, in_memory, found, spectra
    )
    walker.run(variants)
    return found


class _Walker:
    """A walk under way: how far the model itself has come on each text, and what has been measured."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        network: Layers,
        evaluation: Windows | None,
        calibration: Windows | None,
        in_memory: int,
        found: Walk,
        spectra: bool,
    ):
        self.checkpoint, self.network, self.in_memory = checkpoint, network, in_memory
        self.found, self.spectra = found, spectra
        self.judged, self.known = (
            Text(network, text, in_memory) if text else None for text in (evaluation, calibration)
        )

    def run(self, variants: Sequence[Variant]) -> None:
        for variant in variants:
            if unknown := [name for name in variant.sources if name not in self.network]:
                raise ValueError(
                    f"{variant.label} changes {unknown[0]}, which {self.network.name} does not have."
                )
        branches = self._embedded(variants)
        for number in tqdm(range(len(self.network)), desc="layers", leave=False, delay=5):
            with self.network.layer(number) as layer:
                branches = self._through(layer, branches)
        self.found.outputs.update(self._outputs(branches))

    def _embedded(self, variants: Sequence[Variant]) -> list[Branch]:
        """What enters the first layer.  The first branch is the model itself."""
        groups = split(variants, [EMBEDDING])
        branches = [Branch(groups.pop(frozenset(), []), self.judged and self.judged.hidden)]
        for changes, same in groups.items():
            branches.append(Branch(same, self._room()))
            tensors = by_name(self._made(changes, None, None))
            self._keep(same, tensors)
            if self.judged:
                self.network.embed(self.judged.windows, branches[-1].hidden, tensors)
        return branches

    def _through(self, layer: Layer, branches: list[Branch]) -> list[Branch]:
        """What leaves a layer that every branch enters."""
        model = branches[0]
        tasks = [
            (b, changes, same) for b in branches for changes, same in split(b.variants, layer.names).items()
        ]
        unchanged = [same for b, changes, same in tasks if b is model and not changes]
        tasks = [task for task in tasks if task[0] is not model or task[1]]
        H = self.known.advance(layer)[0] if self.known else None
        held_out, record = (
            self.judged.advance(layer, model.variants != sum(unchanged, [])) if self.judged else (None, {})
        )
        if self.spectra:
            self._take_spectra(layer, H, held_out)
        after = [Branch(sum(unchanged, []), model.hidden)]
        made, uses = {}, Counter(change for _, changes, _ in tasks for change in changes)
        for branch, changes, same in tasks:
            made |= self._made(changes - made.keys(), H, held_out)
            tensors = by_name({change: made[change] for change in changes})
            self._keep(same, tensors)
            if branch is model:
                after.append(Branch(same, self._resumed(layer, tensors, record)))
            else:
                room = branch.hidden if len(same) == len(branch.variants) else self._room()
                with same[0].around(layer.modules):
                    after.append(Branch(same, self._run(layer, tensors, branch.hidden, room)))
            uses.subtract(changes)
            made = {change: W_hat for change, W_hat in made.items() if uses[change]}
        return after

    def _take_spectra(self, layer: Layer, *moments: Moments | None) -> None:
        """Eigenvalues of the H of a layer's inputs, of either text."""
        for known, wanted in zip(moments, (self.found.spectra, self.found.held_out_spectra), strict=True):
            if known:
                by_input = {id(H): spectrum(H) for H in known.inputs.values()}
                wanted |= {name: by_input[id(known[name])] for name in layer.names if name in known}

    def _made(
        self, changes: Collection[Change], H: Moments | None, held_out: Moments | None
    ) -> dict[Change, np.ndarray]:
        """Ŵ of some matrices, which are measured."""
        made = {}
        for name, source in changes:
            W = self.checkpoint.tensor(name)
            moment, other = (m[name] if m and name in m else None for m in (H, held_out))
            try:
                W_hat, rates = source.make(name, W, moment)
                if W_hat.shape != W.shape:
                    raise ValueError(f"the tensor has shape {W.shape}, and what should replace it {W_hat.shape}.")
            except ValueError as error:
                raise ValueError(f"{name}, {source.method}: {error}") from None
            made[name, source] = W_hat
            layer, group = layer_and_group(name)
            row = {"layer": layer, "group": group, "weights": W.size}
            row |= {"method": source.method, "bits": source.bits, "rate": float("nan")} | rates
            if group:
                row |= {"power": float(np.mean(W.astype(np.float64) ** 2))} | distances(W, W_hat)
            if moment is not None:
                row |= error_sizes(W, W_hat, moment)
                row["output_mse"] = row["output"] / len(W)
            if moment is not None and other is not None:
                row["held_out"] = output_error(W.astype(np.float64) - W_hat, other) * len(W)
            self.found.rows[name, source] = row
        return made

    def _keep(self, variants: Sequence[Variant], tensors: dict[str, np.ndarray]) -> None:
        for variant in variants:
            self.found.tensors.get(variant.label, {}).update(tensors)

    def _room(self) -> torch.Tensor | None:
        return allocate(tuple(self.judged.hidden.shape), self.in_memory) if self.judged else None

    def _resumed(
        self, layer: Layer, tensors: dict[str, np.ndarray], record: dict[str, torch.Tensor]
    ) -> torch.Tensor | None:
        """What leaves a layer of the model in which some matrices are others."""
        if not self.judged:
            return None
        room, stage = self._room(), layer.stage(tensors)
        with layer.replaced(tensors):
            for batch in self.judged.windows.batches:
                room[batch] = layer.resume(stage, {name: x[batch] for name, x in record.items()})
        return room

    def _run(
        self,
        layer: Layer,
        tensors: dict[str, np.ndarray],
        hidden: torch.Tensor | None,
        room: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """What leaves a layer, where other hidden states than the model's enter it."""
        if self.judged:
            with layer.replaced(tensors):
                for batch in self.judged.windows.batches:
                    room[batch] = layer.run(hidden[batch])
        return room

    def _outputs(self, branches: list[Branch]) -> dict[Hashable, Functional]:
        """What each variant makes of the last hidden states, held against the model's own."""
        if not self.judged:
            return {}
        windows, output = self.judged.windows, self.network.output()
        ends = []
        for branch in branches:
            for changes, same in split(branch.variants, [NORM, self.network.head]).items():
                H = self.known.output(output) if self.known and changes else None
                new = by_name(self._made(changes, H, None))
                self._keep(same, new)
                ends.append((branch.hidden, self.network.output(new) if new else output, same))
        columns: list[list[torch.Tensor]] = [[] for _ in ends]
        rows = max(1, CHUNK // self.network.config.vocab_size)
        for batch in windows.batches:
            targets = (
                torch.from_numpy(windows.targets[batch]).reshape(-1, 1).to(self.network.device).split(rows)
            )
            hidden = [
                x[batch, -windows.stride :].flatten(0, 1).split(rows)
                for x in (self.judged.hidden, *(e[0] for e in ends))
            ]
            for target, model, *others in zip(targets, *hidden, strict=True):
                P = Distribution(output(model))
                if not P.lse.isfinite().all():
                    raise ValueError("The model gives NaN or infinite logits: it cannot be a reference.")
                for column, x, (_, changed, same) in zip(columns, others, ends, strict=True):
                    with same[0].around(changed.children()):
                        column.append(P.compared(changed(x), target))
        found = [
            (same, functional(windows, column)) for column, (_, _, same) in zip(columns, ends, strict=True)
        ]
        return {variant.label: result for same, result in found for variant in same}


def by_name(made: dict[Change, np.ndarray]) -> dict[str, np.ndarray]:
    """The matrices of one variant."""
    return {name: W_hat for (name, _), W_hat in made.items()}
