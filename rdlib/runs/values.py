"""What a parameter may be: its kind, as the parameters cell declares it, and the values that its name allows."""

import math
import re
from contextlib import suppress

from rdlib.models.names import GROUPS

KINDS = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict, "list": list}
LINEAR = tuple(group for group in GROUPS if group not in ("embed", "lm_head"))
NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", re.IGNORECASE)  # of which YAML reads some as text
COUNTS = (
    "window",
    "windows",
    "known_windows",
    "tokens",
    "probes",
    "layer_scopes",
    "stride",
    "samples",
    "states",
)
RANGES = {
    **dict.fromkeys(("bits", "grid_bits", "trellis_bits", "budgets", "options"), (1, 8)),
    **dict.fromkeys(("layer", "seed"), (0, math.inf)),
    **dict.fromkeys(COUNTS, (1, math.inf)),
    "bos": (-1, math.inf),
}


class ParameterError(ValueError):
    """A parameter does not exist or does not fit; the message is one sentence."""


def check_value(name: str, value: object, kind: str, where: str = "") -> None:
    """Refuse a value that is not of its parameter's kind, or that its name does not allow.

    Args:
        name: of the parameter.
        value: from a parameters cell, from Papermill or from YAML.
        kind: as the parameters cell declares it, like ``list[int]``.
        where: what the message begins with.

    Raises:
        ParameterError: it does not fit.
    """
    if fault := _fault(name, value, kind):
        raise ParameterError(f"{where}{name}{fault}.")


def _fault(name: str, value: object, kind: str) -> str:
    """What is wrong with a value, to be read behind the name of its parameter; nothing if it fits."""
    if not fits(value, kind):
        return f" is {value!r}, which is no {kind}{_hint(name, value, kind)}"
    items = value if isinstance(value, list) else [value]
    low, high = RANGES.get(name, (None, None))
    for item in items:
        if name in ("group", "groups") and item not in LINEAR:
            return f": there is no group {item!r}; {', '.join(LINEAR)}"
        if low is not None and not (fits(item, "float") and low <= item <= high):
            allowed = f"{low} or more" if high == math.inf else f"{low} … {high}"
            return f" is {value!r}, but {item!r} is not allowed: give {allowed}"
    if name in RANGES and not items:
        return " is an empty list: give at least one number"
    twice = [item for item in items if items.count(item) > 1] if isinstance(value, list) else []
    return f" names {twice[0]!r} twice" if twice else ""


def fits(value: object, kind: str) -> bool:
    """Whether a value is of the kind that an annotation names: ``float`` takes 3, ``int`` takes no True.

    >>> fits([1, 2], "list[int]"), fits(3, "float"), fits(True, "int")
    (True, True, False)
    """
    if kind.startswith("list["):
        return isinstance(value, list) and all(fits(item, kind[5:-1]) for item in value)
    if kind == "float" and type(value) is int:
        return True
    return type(value) is KINDS[kind]


def _hint(name: str, value: object, kind: str) -> str:
    """What to write instead, where YAML or Papermill read the value as another type."""
    if kind == "float" and isinstance(value, str) and NUMBER.fullmatch(value):
        with suppress(ValueError):  # as 1.2.3
            return f" (YAML reads {value} as text; write {float(value):.1e})"
    if kind.startswith("list") and isinstance(value, str):
        return f" but text; Papermill takes a list as -y '{name}: {value}'"
    if kind == "str" and isinstance(value, int | float):
        return f"; Papermill takes text as -r {name} {value}, YAML as '{value}' in quotes"
    return ""
