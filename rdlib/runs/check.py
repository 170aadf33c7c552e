"""The parameters of a running notebook: checked wherever they come from, and compared with the defaults.

What a notebook's text says of its default parameters need not hold for others.  Its check cells ask first::

    parameters = check_parameters("02_scalar_rd", globals())
    ...
    if parameters.are_default("the slope is 6.02 dB a bit"):
        assert abs(slope - 6.02) < 0.25
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rdlib.runs.values import check_value

DEFAULTS = Path(__file__).parent / "defaults.json"  # of every notebook; `make refresh` writes it
RESULTS = "results"  # the parameter that says in which folder a notebook leaves its tables


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


def check_parameters(notebook: str, namespace: Mapping[str, object]) -> Parameters:
    """Refuse parameters that do not fit; say which ones differ from the defaults.

    Args:
        notebook: its name, like ``02_scalar_rd``.
        namespace: ``globals()`` of the notebook, right after its parameters cell.

    Raises:
        ParameterError: a value is not of its kind or not allowed; the message is one sentence.
    """
    kinds = namespace.get("__annotations__", {})
    defaults = json.loads(DEFAULTS.read_bytes())[notebook]
    for name in defaults:
        check_value(name, namespace[name], _spelled(kinds[name]))
    return Parameters({name: namespace[name] for name, value in defaults.items() if namespace[name] != value})


def _spelled(kind: object) -> str:
    """An annotation as it is written: ``int`` or ``list[int]``."""
    return kind.__name__ if type(kind) is type else str(kind)
