"""What a walk found: a row for every matrix that was made, and for every variant how far its output strays."""

from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from rdlib.engine.variant import Variant
from rdlib.functional.divergence import Functional

SIZES = ("squared", "relative", "diagonal", "output", "relative_output", "held_out")  # of errors: they add up


@dataclass(frozen=True, eq=False)
class Walk:
    """The results of :func:`rdlib.engine.walk`.

    Args:
        rows: label of a variant → name of a tensor → layer, group, weights, method, bits, rate and side_rate (total
            bits per weight), and the distances of :func:`rdlib.measure.distances`; the same object for all variants
            that share a matrix.  With a calibration text also the sizes of the error
            (:func:`rdlib.functional.error_sizes`); output_mse, tr(E H Eᵀ)/out; output_db, by how much that is below
            the output itself; and output_limit, the least rate for that error
            (:func:`rdlib.theory.output_rate`), and feedback_gain, what feedback saves at that H
            (:func:`rdlib.quantizers.feedback.feedback.feedback_gain`): both NaN where no limits were wanted.
            With an evaluation text the same by its H: held_out (tr(E H Eᵀ)),
            held_out_mse, held_out_db, held_out_limit.
        outputs: label of a variant → how far its output strays from the model's.
        tensors: label of a variant whose tensors were to be kept → its Ŵ by name.
    """

    rows: dict[Hashable, dict[str, dict]] = field(default_factory=dict)
    outputs: dict[Hashable, Functional] = field(default_factory=dict)
    tensors: dict[Hashable, dict[str, np.ndarray]] = field(default_factory=dict)

    @property
    def points(self) -> pd.DataFrame:
        """The rows of all matrices, with the name of the tensor; each matrix once."""
        rows = [(name, row) for rows in self.rows.values() for name, row in rows.items()]
        return pd.DataFrame({id(row): {"name": name} | row for name, row in rows}.values())

    def of(self, variant: Variant) -> pd.DataFrame:
        """The rows of a variant, by the name of the tensor."""
        rows = self.rows[variant.label]
        return pd.DataFrame.from_dict({name: rows[name] for name in variant.sources}, orient="index")

    def totals(self, variant: Variant) -> dict[str, float]:
        """Of all that a variant makes anew: weights, rate, and the sums of the sizes of the errors."""
        rows = self.of(variant)
        spent = float((rows.rate * rows.weights).sum())
        sums = rows[[column for column in ("weights", *SIZES) if column in rows]].sum().to_dict()
        return sums | {"rate": spent / max(sums["weights"], 1)}
