"""A plan: which quantizer writes which matrix of a model; it is saved as JSON and applied."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rdlib.quantizers
from rdlib.code.code import Code
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.moments import Moments
from rdlib.quantizers import Quantizer


@dataclass(frozen=True)
class Plan:
    """A quantizer for each of some weight matrices; matrices that it does not name stay as they are.

    Args:
        quantizers: name of the tensor in the checkpoint → quantizer.
    """

    quantizers: Mapping[str, Quantizer]

    def codes(self, checkpoint: Checkpoint, moments: Moments | None = None) -> Iterator[tuple[str, Code]]:
        """The code of each matrix, one at a time.

        Args:
            checkpoint: of the weights.
            moments: H of the inputs; without them no quantizer feeds errors back.

        Raises:
            ValueError: the checkpoint has no such tensor, or it cannot be quantized; the message names it.
        """
        for name, quantizer in self.quantizers.items():
            H = None if moments is None or "embed_tokens" in name else moments[name]
            try:
                code = quantizer.encode(checkpoint.tensor(name), H)
            except ValueError as error:
                raise ValueError(f"{name}, {quantizer.method}: {error}") from None
            yield name, code

    def applied(self, checkpoint: Checkpoint, moments: Moments | None = None) -> "Applied":
        """Ŵ and the rate of every matrix (see :meth:`codes`)."""
        tensors, rates, weights = {}, {}, {}
        for name, code in self.codes(checkpoint, moments):
            tensors[name] = self.quantizers[name].decode(code)
            rates[name], weights[name] = code.rate, code.weights
        return Applied(tensors, rates, weights)

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON."""
        Path(path).write_text(json.dumps(self.spec, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

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


@dataclass(frozen=True, eq=False)
class Applied:
    """What became of the matrices that a plan names.

    Args:
        tensors: name → Ŵ, float32 (out, in).
        rates: name → bits per weight, everything counted.
        weights: name → how many there are.
    """

    tensors: Mapping[str, np.ndarray]
    rates: Mapping[str, float]
    weights: Mapping[str, int]

    @property
    def rate(self) -> float:
        """Bits per weight of all of them together."""
        return sum(self.rates[n] * self.weights[n] for n in self.rates) / max(sum(self.weights.values()), 1)


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
