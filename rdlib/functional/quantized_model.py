"""A model after quantization: Ŵ of its matrices, what they cost, and how large their errors are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rdlib.checkpoints import QuantizedCheckpoint, aligned
from rdlib.functional.proxies import error_sizes
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import layer_and_group
from rdlib.network.moments import Moments
from rdlib.quantizers import Quantizer

EMBEDDING = "model.embed_tokens.weight"  # its inputs are tokens: they have no second moments


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """The matrices of a model that were quantized; all others stay as they are.

    Args:
        method: name in tables and plots.
        bits: nominal rate; NaN where the matrices have several.
        tensors: name → Ŵ, float32 (out, in).
        table: one row a matrix, by its name: layer, group, weights, rate (total bits per weight), and with the
            second moments the sizes of its error, see :func:`rdlib.functional.proxies.error_sizes`.
    """

    method: str
    bits: float
    tensors: Mapping[str, np.ndarray]
    table: pd.DataFrame

    @property
    def rate(self) -> float:
        """Bits per weight of all matrices together, everything counted; 0 where there is none."""
        return self.totals(self.tensors)["rate"]

    @property
    def rates(self) -> dict[str, float]:
        """Name of each matrix → bits per weight."""
        return self.table.rate.to_dict()

    def part(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Some of the matrices: what :meth:`rdlib.functional.sensitivity.Replay.compare` takes."""
        return {name: self.tensors[name] for name in names}

    def totals(self, names: Iterable[str]) -> dict[str, float]:
        """Of some of the matrices together: weights, rate, and the sums of the sizes of their errors."""
        rows = self.table.loc[list(names)].drop(columns=["layer", "group"])
        totals = rows.drop(columns="rate").sum().to_dict()
        spent = float((rows.rate * rows.weights).sum())
        return totals | {"rate": spent / max(totals["weights"], 1)}


def quantize_model(
    checkpoint: Checkpoint, quantizers: Mapping[str, Quantizer], moments: Moments | None = None
) -> QuantizedModel:
    """Each of some matrices of a model by its quantizer, which is given H, the second moments of their inputs.

    Args:
        checkpoint: of the model.
        quantizers: name of the matrix → its quantizer; ``dict.fromkeys(names, quantizer)`` where all have one.
        moments: of a calibration text; without them no quantizer feeds errors back, and no error is weighed.

    Raises:
        ValueError: the checkpoint has no such matrix, it cannot be quantized, or it is of no linear layer; the
            message names it.
    """
    tensors, rows = {}, {}
    for name, quantizer in quantizers.items():
        try:
            W = checkpoint.tensor(name)
            H = None if moments is None or name == EMBEDDING else moments[name]
            code = quantizer.encode(W, H)
        except ValueError as error:
            raise ValueError(f"{name}, {quantizer.method}: {error}") from None
        tensors[name] = quantizer.decode(code)
        rows[name] = _row(name, W, tensors[name], code.rate, H)
    kinds = {(quantizer.method, quantizer.bits) for quantizer in quantizers.values()}
    method, bits = kinds.pop() if len(kinds) == 1 else ("plan", float("nan"))
    return QuantizedModel(method, bits, tensors, _table(rows))


def read_model(
    quantized: QuantizedCheckpoint, checkpoint: Checkpoint, moments: Moments, method: str | None = None
) -> QuantizedModel:
    """The matrices of a quantized checkpoint, in the coordinates of the model from which it was made.

    Args:
        quantized: see :func:`rdlib.checkpoints.open_quantized`.
        checkpoint: of the model.
        moments: of a calibration text.
        method: name in tables and plots; that of its format where None.

    Raises:
        ValueError: the quantized checkpoint is of another model.
    """
    tensors, rows = {}, {}
    for name, packed in aligned(quantized, checkpoint):
        W, tensors[name] = checkpoint.tensor(name), packed.weight
        H = None if name == EMBEDDING else moments[name]
        rows[name] = _row(name, W, packed.weight, packed.rate, H)
    return QuantizedModel(method or quantized.method, quantized.bits, tensors, _table(rows))


def _row(name: str, W: np.ndarray, W_hat: np.ndarray, rate: float, H: np.ndarray | None) -> dict:
    layer, group = layer_and_group(name)
    row = {"layer": layer, "group": group, "weights": W.size, "rate": rate}
    return row if H is None else row | error_sizes(W, W_hat, H)


def _table(rows: dict[str, dict]) -> pd.DataFrame:
    """See :class:`QuantizedModel`; without rows it has the columns that every table has."""
    if not rows:
        return pd.DataFrame(columns=["layer", "group", "weights", "rate"])
    return pd.DataFrame.from_dict(rows, orient="index")
