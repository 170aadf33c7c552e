"""A walk that was interrupted goes on at its layer: after each layer, what the next ones need is left in a folder."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rdlib.engine.branches import Branch, Branches
from rdlib.engine.found import Walk
from rdlib.engine.text import Text
from rdlib.engine.variant import Given, Source, Stored, Variant
from rdlib.files import sha256, whole, write_whole
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.windows import Windows

LAYOUT = 1  # raised when a walk finds something else, or stores it in another way


def question(
    checkpoint: Checkpoint, variants: Sequence[Variant], windows: Mapping[str, Windows], *settings: object
) -> str:
    """Hash of what a walk is asked: model, variants in their order (their labels do not matter), texts, settings."""
    known: dict[tuple[str, int], str] = {}
    for variant in variants:
        for name, source in variant.sources.items():
            if (name, id(source)) not in known:
                known[name, id(source)] = _said(name, source)
    asked = [
        [variant.sequential, type(variant).__name__, {n: known[n, id(s)] for n, s in variant.sources.items()}]
        for variant in variants
    ]
    texts = {name: text.sha256 for name, text in windows.items()}
    model = [checkpoint.sha256, checkpoint.config]  # the same weights with another rope are another model
    return sha256(json.dumps([LAYOUT, model, asked, texts, settings], default=str).encode())


def _said(name: str, source: Source) -> str:
    """What a source makes of a tensor, as a text that is the same in every process."""
    if isinstance(source, Given):
        return sha256(np.ascontiguousarray(source.tensor).tobytes())
    if isinstance(source, Stored):
        return f"{source.method} {source.bits} {sha256(source.layers[name].code.to_bytes())}"
    return repr(source)


class Kept:
    """The state of a walk in a folder of its own, one for each question; it is the caller's to remove.

    Args:
        folder: for the states of any walks.
        question: see :func:`question`.
    """

    def __init__(self, folder: str | Path, question: str):
        self.folder = Path(folder) / question[:16]

    def save(self, layers: int, branches: Branches, found: Walk, variants: Sequence[Variant]) -> None:
        """Leave the state after so many layers, whole or not at all, in the place of the one before.

        Raises:
            OSError: it cannot be written; the state before is as it was.
        """
        rows = {id(row): (name, row) for of in found.rows.values() for name, row in of.items()}
        places = {key: place for place, key in enumerate(rows)}
        of = [{name: places[id(row)] for name, row in found.rows[v.label].items()} for v in variants]
        index = {id(variant): place for place, variant in enumerate(variants)}
        parts = [[index[id(variant)] for variant in branch.variants] for branch in branches.others]
        state = {"layers": layers, "rows": list(rows.values()), "of": of, "branches": parts}
        place = self.folder / f"layer {layers:04d}"
        try:
            self._keep_tensors(found, variants)
            with whole(place) as unfinished:
                unfinished.mkdir()
                for number, texts in enumerate([branches.model, *(b.texts for b in branches.others)]):
                    for name, text in texts.items():
                        np.save(unfinished / f"{number} {name}.npy", text.hidden.numpy())
                write_whole(
                    unfinished / "state.json", json.dumps(state, default=lambda number: number.item())
                )
        except OSError as error:
            raise OSError(
                f"The state after layer {layers - 1} cannot be written into {self.folder} "
                f"({error.strerror or error}); the one before is whole: make room and start again."
            ) from error
        for old in {*self.folder.glob("layer *"), *self.folder.glob(".*.unfinished")} - {place}:
            shutil.rmtree(old)

    def _keep_tensors(self, found: Walk, variants: Sequence[Variant]) -> None:
        """Write the Ŵ that are to be kept and are not there yet."""
        for number, variant in enumerate(variants):
            for name, W_hat in found.tensors.get(variant.label, {}).items():
                if not (file := self.folder / f"variant {number}" / f"{name}.npy").exists():
                    with whole(file) as unfinished:
                        np.save(unfinished, W_hat)

    def load(self, branches: Branches, found: Walk, variants: Sequence[Variant]) -> int:
        """Put branches and findings into the state that was left; how many layers were passed, 0 where none was."""
        states = sorted(self.folder.glob("layer */state.json"))
        if not states:
            return 0
        place, state = states[-1].parent, json.loads(states[-1].read_bytes())
        for variant, of in zip(variants, state["of"], strict=True):
            found.rows[variant.label] = {name: state["rows"][row][1] for name, row in of.items()}
        for number, variant in enumerate(variants):
            if variant.label in found.tensors:
                files = (self.folder / f"variant {number}").glob("*.npy")
                found.tensors[variant.label] = {file.stem: np.load(file) for file in files}
        texts = [_texts(place, number, branches) for number in range(len(state["branches"]) + 1)]
        changed = {number for part in state["branches"] for number in part}
        branches.unchanged = [v for number, v in enumerate(variants) if number not in changed]
        branches.model, branches.others = (
            texts[0],
            [
                Branch([variants[number] for number in part], t)
                for part, t in zip(state["branches"], texts[1:], strict=True)
            ],
        )
        return state["layers"]


def _texts(place: Path, number: int, branches: Branches) -> dict[str, Text]:
    """The hidden states of a branch."""
    texts = {}
    for name, windows in branches.windows.items():
        if (file := place / f"{number} {name}.npy").exists():
            stored = np.load(file, mmap_mode="r")
            hidden = branches.room(stored.shape)
            hidden.numpy()[:] = stored
            texts[name] = Text(windows, branches.room, hidden)
    return texts
