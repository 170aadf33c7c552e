"""The parameters of a running notebook: checked wherever they come from, and compared with the defaults.

What a notebook's text says of its default parameters need not hold for others.  Its check cells ask first::

    parameters = check_parameters("02_scalar_rd", globals())
    ...
    if parameters.are_default("the slope is 6.02 dB a bit"):
        assert abs(slope - 6.02) < 0.25

With ``FAST=1`` in the environment, as for a class, what is at its default takes the value of ``params/fast.yaml``.
"""

import json
import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path

from rdlib.runs.values import ParameterError, check_value

DEFAULTS = Path(__file__).parent / "defaults.json"  # of every notebook; `make refresh` writes it
RESULTS = "results"  # the parameter that says in which folder a notebook leaves its tables
FAST = "FAST"  # the variable; 1 where notebooks opened by hand are to be quick
QUICK = Path("../params/fast.yaml")  # seen from a notebook


@dataclass(frozen=True)
class Parameters:
    """The parameters of a run.

    Args:
        changed: those that are not at their default, with their values; ``results`` does not count.
    """

    changed: dict[str, object]

    def are_default(self, claims: str) -> bool:
        """Whether all parameters are at their defaults; where not, print that these claims are not checked."""
        if self.changed:
            names = ", ".join(f"{name} = {value!r}" for name, value in self.changed.items())
            print(
                f"Not checked, because the text speaks of the default parameters and here {names}: {claims}."
            )
        return not self.changed


def check_parameters(notebook: str, namespace: MutableMapping[str, object]) -> Parameters:
    """Refuse parameters that do not fit; say which ones differ from the defaults.

    Args:
        notebook: its name, like ``02_scalar_rd``.
        namespace: ``globals()`` of the notebook, right after its parameters cell; with ``FAST=1`` its defaults change.

    Raises:
        ParameterError: a value is not of its kind or not allowed; the message is one sentence.
    """
    kinds = namespace.get("__annotations__", {})
    defaults = json.loads(DEFAULTS.read_bytes())[notebook]
    if is_fast():
        quick = {k: v for k, v in _quick(notebook).items() if namespace[k] == defaults[k]}
        namespace.update(quick)
        print(f"FAST=1: {', '.join(f'{name} = {value!r}' for name, value in quick.items()) or 'as it is'}.")
    for name in defaults:
        check_value(name, namespace[name], _spelled(kinds[name]))
    return Parameters({name: namespace[name] for name, value in defaults.items() if namespace[name] != value})


def is_fast() -> bool:
    """Whether the environment says ``FAST=1``."""
    return os.environ.get(FAST, "0") not in ("", "0")


def _quick(notebook: str) -> dict[str, object]:
    """What ``params/fast.yaml`` says for a notebook."""
    from rdlib.runs.parameters import read

    if not QUICK.is_file():
        raise ParameterError(
            f"FAST=1 needs {QUICK}, beside the folder of the notebooks; rdlib lab copies it."
        )
    return read(QUICK).get(notebook, {})


def _spelled(kind: object) -> str:
    """An annotation as it is written: ``int`` or ``list[int]``."""
    return kind.__name__ if type(kind) is type else str(kind)
