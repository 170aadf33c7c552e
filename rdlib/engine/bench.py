"""The bench: the matrices of a layer are made here, each once for all variants, and measured."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from rdlib.engine.found import Walk
from rdlib.engine.moments import Moments, eigenvalues
from rdlib.engine.variant import Change, Source, Variant
from rdlib.functional.proxies import error_sizes
from rdlib.measure import Signal, distances, output_error, sqnr_db
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import layer_and_group
from rdlib.quantizers.feedback.feedback import feedback_gain
from rdlib.theory import output_rate
from rdlib.weights import as_float32, remembered

DAMPING = 1e-4  # of H, for what feedback is worth: that of WaterSIC
KNOWN, JUDGED = "calibration", "evaluation"  # H is taken on the one text, variants are judged by the other

Step = Callable[..., AbstractContextManager]  # of a kind, such as ("run", a text)
Made = tuple[np.ndarray, dict[str, float]]  # Ŵ and its row


def untimed(*kind: object) -> AbstractContextManager:
    """A step of which nobody takes the time."""
    return nullcontext()


class Bench:
    """Makes and measures matrices, and forgets those that no variant waits for.

    Args:
        checkpoint: of the model.
        found: where the results go.
        limits: whether the least rate for the error of each matrix's output is among them.
    """

    def __init__(self, checkpoint: Checkpoint, found: Walk, limits: bool):
        self.checkpoint, self.found, self.limits = checkpoint, found, limits
        self._awaited: Counter[Change] = Counter()
        self._made: dict[Change, Made] = {}
        self._signals: dict[str, Signal] = {}
        self._moments: Mapping[str, Moments] = {}
        self.step: Step = untimed  # is put around each step

    def prepare(
        self, tasks: Iterable[frozenset[Change]], moments: Mapping[str, Moments] | None = None
    ) -> None:
        """Before the matrices of a layer are made.

        Args:
            tasks: what each variant makes anew, in any order.
            moments: H of the calibration text, by which errors are fed back, and of the evaluation text.
        """
        self._awaited, self._moments = Counter(change for task in tasks for change in task), moments or {}
        self._signals = {}

    def make(
        self, changes: frozenset[Change], variants: Sequence[Variant], own: Moments | None = None
    ) -> dict[str, np.ndarray]:
        """Ŵ by name, of one task; what is not awaited by another is forgotten.

        Args:
            changes: what is made anew.
            variants: in which.
            own: H of the variants' own inputs, where errors are fed back by that.  It makes other matrices, which no
                other task shares; their errors are measured under the H of the model all the same.

        Raises:
            ValueError: a matrix cannot be made; the message names it.
        """
        tensors = {}
        for change in filter(changes.__contains__, variants[0].sources.items()):  # in their order
            name, _ = change
            tensors[name], row = self._timed(change, own) if own else self._shared(change)
            for variant in variants:
                self.found.rows[variant.label][name] = row
            self._awaited[change] -= 1
            if not self._awaited[change]:
                self._made.pop(change, None)
        for variant in variants:
            self.found.tensors.get(variant.label, {}).update(tensors)
        return tensors

    def _shared(self, change: Change) -> Made:
        if change not in self._made:
            self._made[change] = self._timed(change, self._moments.get(KNOWN))
        return self._made[change]

    def _timed(self, change: Change, moments: Moments | None) -> Made:
        name, source = change
        with self.step("made", source, layer_and_group(name)[1]):
            return self._measured(name, source, moments)

    def _measured(self, name: str, source: Source, moments: Moments | None) -> Made:
        """Ŵ of a tensor, made with some H, and its row."""
        W = self.checkpoint.tensor(name)
        H = moments[name] if moments and name in moments else None
        try:
            W_hat, rates = source.make(name, W, H)
            if W_hat.shape != W.shape:
                raise ValueError(f"the tensor has shape {W.shape}, and what should replace it {W_hat.shape}.")
        except ValueError as error:
            raise ValueError(f"{name}, {source.method}: {error}") from None
        layer, group = layer_and_group(name)
        row = {"layer": layer, "group": group, "weights": W.size, "method": source.method}
        row |= {"bits": source.bits, "rate": float("nan")} | rates
        known, judged = (
            M[name] if (M := self._moments.get(t)) and name in M else None for t in (KNOWN, JUDGED)
        )
        if group or known is not None or judged is not None:
            W = as_float32(W)
        if group:
            row |= distances(W, W_hat, signal=self._signal(name, W))
        if known is not None:
            row |= error_sizes(W, W_hat, known, self._signal(name, W))
            row |= self._judged(name, W, row["output"] / len(W), known, "output")
            row["feedback_gain"] = feedback_gain(known, DAMPING) if self.limits else float("nan")
        if judged is not None:
            mse = output_error(W - W_hat, judged)
            row |= self._judged(name, W, mse, judged, "held_out")
            row["held_out"] = row["held_out_mse"] * len(W)
        return W_hat, row

    def _judged(self, name: str, W: np.ndarray, mse: float, H: np.ndarray, text: str) -> dict[str, float]:
        """The error of an output by the H of one text, in dB below the output, and the least rate for it.

        The output itself and the spectrum are the same for all sources: they are computed once.
        """
        signal = remembered(H, ("signal", name), lambda: np.array(output_error(W, H)))
        limit = float("nan")
        if self.limits:
            limit = float(output_rate(eigenvalues(H), mse, self._signal(name, W).power))
        return {f"{text}_mse": mse, f"{text}_db": sqnr_db(mse, float(signal)), f"{text}_limit": limit}

    def _signal(self, name: str, W: np.ndarray) -> Signal:
        """Of a tensor of the layer, the same for all sources."""
        if name not in self._signals:
            self._signals[name] = Signal.of(W)
        return self._signals[name]
