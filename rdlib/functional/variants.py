"""A model as a method writes it: Ŵ of its matrices, what they cost, and how large their errors are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from rdlib.checkpoints import QuantizedCheckpoint, aligned
from rdlib.code.code import Code
from rdlib.functional.proxies import error_sizes
from rdlib.models.checkpoint import Checkpoint, Weight
from rdlib.models.names import layer_and_group
from rdlib.network.moments import Moments
from rdlib.quantizers import Quantizer


@dataclass(frozen=True, eq=False)
class Variant:
    """Other matrices for a model.

    Args:
        method: name in tables and plots.
        bits: nominal rate.
        tensors: name → Ŵ, float32 (out, in).
        table: one row a matrix, by its name: layer, group, weights, rate (total bits per weight), and the sizes of
            its error, see :func:`rdlib.functional.proxies.error_sizes`.
    """

    method: str
    bits: float
    tensors: Mapping[str, np.ndarray]
    table: pd.DataFrame

    def part(self, names: Iterable[str]) -> dict[str, np.ndarray]:
        """Some of the matrices: what :meth:`rdlib.functional.sensitivity.Replay.compare` takes."""
        return {name: self.tensors[name] for name in names}

    def totals(self, names: Iterable[str]) -> dict[str, float]:
        """Of some of the matrices together: weights, rate, and the sums of the sizes of their errors."""
        rows = self.table.loc[list(names)].drop(columns=["layer", "group"])
        totals = rows.drop(columns="rate").sum().to_dict()
        return totals | {"rate": float((rows.rate * rows.weights).sum() / rows.weights.sum())}


def quantize_model(
    checkpoint: Checkpoint, weights: Iterable[Weight], quantizer: Quantizer, moments: Moments
) -> Variant:
    """Some matrices of a model by a quantizer, which is given the second moments of their inputs.

    Args:
        checkpoint: of the model.
        weights: of its linear layers.
        quantizer: the same for all.
        moments: of a calibration text.

    Raises:
        ValueError: a matrix holds NaN or Inf, or is that of no linear layer.
    """
    found = []
    for weight in weights:
        W, H = checkpoint.tensor(weight), moments[weight]
        code = quantizer.encode(W, H)
        found.append((weight.name, W, code, quantizer.decode(code)))
    return _variant(quantizer.method, quantizer.bits, found, moments)


def read_model(
    quantized: QuantizedCheckpoint, checkpoint: Checkpoint, moments: Moments, method: str | None = None
) -> Variant:
    """The matrices that a quantized checkpoint holds, in the coordinates of the model that it was made of.

    Args:
        quantized: see :func:`rdlib.checkpoints.open_quantized`.
        checkpoint: of the model.
        moments: of a calibration text.
        method: name in tables and plots; that of its format where None.

    Raises:
        ValueError: the quantized checkpoint is of another model.
    """
    found, bits = [], float("nan")
    for name, packed in aligned(quantized, checkpoint):
        found.append((name, checkpoint.tensor(name), packed.code, packed.weight))
        bits = packed.decoder.bits
    return _variant(method or quantized.method, bits, found, moments)


def _variant(
    method: str, bits: float, found: list[tuple[str, np.ndarray, Code, np.ndarray]], moments: Moments
) -> Variant:
    rows = {}
    for name, W, code, W_hat in found:
        layer, group = layer_and_group(name)
        rows[name] = {"layer": layer, "group": group, "weights": W.size, "rate": code.rate}
        rows[name] |= error_sizes(W, W_hat, moments[name])
    tensors = {name: W_hat for name, _, _, W_hat in found}
    return Variant(method, bits, tensors, pd.DataFrame.from_dict(rows, orient="index"))
