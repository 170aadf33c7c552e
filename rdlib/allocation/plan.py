"""A plan: which quantizer writes which matrix of a model; it is saved as JSON and applied."""

import dataclasses
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

import rdlib.quantizers
from rdlib.engine import Quantized, Variant
from rdlib.files import write_whole
from rdlib.models.checkpoint import Checkpoint
from rdlib.quantizers import Quantizer


@dataclass(frozen=True, repr=False)
class Plan:
    """A quantizer for each of some weight matrices; matrices that it does not name stay as they are.

    Args:
        quantizers: name of the tensor in the checkpoint → quantizer.
    """

    quantizers: Mapping[str, Quantizer]

    @property
    def table(self) -> pd.DataFrame:
        """One row a matrix: its name, the method and the nominal rate."""
        rows = [(name, q.method, q.bits) for name, q in self.quantizers.items()]
        return pd.DataFrame(rows, columns=["matrix", "method", "bits"])

    def __repr__(self) -> str:
        return f"Plan of {len(self.quantizers)} matrices\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        return (
            f"<div>Plan of {len(self.quantizers)} matrices</div>{self.table.to_html(index=False, border=0)}"
        )

    def variant(self, label: Hashable = "plan") -> Variant:
        """The model that the plan makes, for :func:`rdlib.engine.walk`."""
        return Variant(label, {name: Quantized(quantizer) for name, quantizer in self.quantizers.items()})

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, whole or not at all.

        Raises:
            OSError: the file cannot be written; the message names it.
        """
        write_whole(Path(path), json.dumps(self.spec, indent=1, ensure_ascii=False) + "\n")

    @property
    def spec(self) -> dict[str, object]:
        """The plan in the types of JSON."""
        return {name: spec_of(quantizer) for name, quantizer in self.quantizers.items()}

    @classmethod
    def load(cls, path: str | Path) -> "Plan":
        """The plan that :meth:`save` wrote.

        Raises:
            ValueError: the file is no plan, or names a quantizer that is unknown or refuses its parameters.
        """
        path = Path(path)
        try:
            spec = json.loads(path.read_text(encoding="utf-8"))
            return cls({name: from_spec(value) for name, value in spec.items()})
        except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
            raise ValueError(f"{path.name} cannot be read as a plan: {error}") from None


def uniform_plan(quantizer: Quantizer, checkpoint: Checkpoint) -> Plan:
    """The plan by which one quantizer writes every linear layer; embedding and output head stay as they are.

    Args:
        quantizer: the same for all.
        checkpoint: of the model.
    """
    return Plan({weight.name: quantizer for weight in checkpoint.weights if weight.layer >= 0})


def spec_of(value: object) -> object:
    """A quantizer, or one of its hyper-parameters, in the types of JSON: the name of its class, and its fields.

    Raises:
        ValueError: a hyper-parameter is of a class that :mod:`rdlib.quantizers` does not export.
    """
    if isinstance(value, bool | int | float | str):
        return value
    for name in rdlib.quantizers.__all__:  # a public object, as the lattice E8
        if getattr(rdlib.quantizers, name) is value:
            return {"public": name}
    name = type(value).__name__
    if not dataclasses.is_dataclass(value) or name not in rdlib.quantizers.__all__:
        raise ValueError(f"{value!r} cannot be written into a plan.")
    fields = {f.name: spec_of(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return {"class": name, **fields}


def from_spec(spec: object) -> object:
    """What :func:`spec_of` wrote.

    Raises:
        ValueError: the class is unknown.
        TypeError: it has no such field.
    """
    if not isinstance(spec, dict):
        return spec
    name = spec.get("public") or spec.get("class")
    if name not in rdlib.quantizers.__all__:
        raise ValueError(f"the quantizer {name!r} is unknown.")
    found = getattr(rdlib.quantizers, name)
    return found if "public" in spec else found(**{k: from_spec(v) for k, v in spec.items() if k != "class"})
