"""The bench: the matrices of a layer are made here, each once for all variants, and measured."""

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from rdlib.engine.found import Walk
from rdlib.engine.moments import Moments
from rdlib.engine.variant import Change, Source, Variant
from rdlib.functional.proxies import error_sizes
from rdlib.measure import distances, output_error, sqnr_db
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import layer_and_group
from rdlib.theory import output_rate, spectrum


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
        self._made: dict[Change, np.ndarray] = {}
        self._moments: tuple[Moments | None, Moments | None] = (None, None)
        self._spectra: dict[int, np.ndarray] = {}  # of the H of this layer

    def prepare(
        self, tasks: Iterable[frozenset[Change]], H: Moments | None = None, held_out: Moments | None = None
    ) -> None:
        """Before the matrices of a layer are made.

        Args:
            tasks: what each variant makes anew, in any order.
            H: of the calibration text.
            held_out: of the evaluation text.
        """
        self._awaited, self._moments = Counter(change for task in tasks for change in task), (H, held_out)
        self._spectra = {}

    def make(self, changes: frozenset[Change], variants: Sequence[Variant]) -> dict[str, np.ndarray]:
        """Ŵ by name, of one task; what is not awaited by another is forgotten.

        Args:
            changes: what is made anew.
            variants: in which.

        Raises:
            ValueError: a matrix cannot be made; the message names it.
        """
        tensors = {}
        for change in filter(changes.__contains__, variants[0].sources.items()):  # in their order
            if change not in self._made:
                self._made[change] = self._measured(*change)
            tensors[change[0]] = self._made[change]
            self._awaited[change] -= 1
            if not self._awaited[change]:
                del self._made[change]
        for variant in variants:
            self.found.tensors.get(variant.label, {}).update(tensors)
        return tensors

    def _measured(self, name: str, source: Source) -> np.ndarray:
        """Ŵ of a tensor; a matrix has a row among the results."""
        W = self.checkpoint.tensor(name)
        H, held_out = (moments[name] if moments and name in moments else None for moments in self._moments)
        try:
            W_hat, rates = source.make(name, W, H)
            if W_hat.shape != W.shape:
                raise ValueError(f"the tensor has shape {W.shape}, and what should replace it {W_hat.shape}.")
        except ValueError as error:
            raise ValueError(f"{name}, {source.method}: {error}") from None
        layer, group = layer_and_group(name)
        row = {"layer": layer, "group": group, "weights": W.size, "method": source.method}
        row |= {"bits": source.bits, "rate": float("nan")} | rates
        if group:
            row |= distances(W, W_hat)
        if H is not None:
            row |= error_sizes(W, W_hat, H) | self._judged(W, W_hat, H, "output")
        if held_out is not None:
            row |= self._judged(W, W_hat, held_out, "held_out")
        self.found.rows[name, source] = row
        return W_hat

    def _judged(self, W: np.ndarray, W_hat: np.ndarray, H: np.ndarray, text: str) -> dict[str, float]:
        """The error of the output by the H of one text: its sum, its mean, in dB below the output; and its limit."""
        wide = W.astype(np.float64)
        mse, signal = output_error(wide - W_hat, H), output_error(wide, H)
        row = {text: mse * len(W), f"{text}_mse": mse, f"{text}_db": sqnr_db(mse, signal)}
        if self.limits:
            if id(H) not in self._spectra:
                self._spectra[id(H)] = spectrum(H)
            limit = output_rate(self._spectra[id(H)], mse, float(np.mean(wide**2)))
            row |= {"limit" if text == "output" else f"{text}_limit": float(limit)}
        return row
