"""The parameters of a notebook, and the values that an experiment gives them.

A notebook declares its parameters in the cell tagged ``parameters``, one a line, with type and meaning::

    layer: int = 2  # block of the model, counted from 0

An experiment sets them in a YAML file that holds only what differs from those defaults.
"""

import ast
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

KINDS = {"int": int, "float": float, "str": str, "bool": bool, "dict": dict, "list": list}
NUMBER = re.compile(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?", re.IGNORECASE)  # of which YAML takes some for text


class ParameterError(ValueError):
    """An experiment asks for something that does not exist or does not fit; the message is one sentence."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: ``name: kind = default  # comment``."""

    name: str
    kind: str
    default: object
    comment: str


def declared(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name; none where no cell is tagged ``parameters``.

    Raises:
        ParameterError: the file is no notebook, or a line of the cell is no ``name: type = literal``.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError, AttributeError) as error:
        raise ParameterError(f"{notebook} cannot be read as a notebook: {_first_line(error)}.") from None
    tagged = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) > 1:
        raise ParameterError(f"{notebook} tags {len(tagged)} cells as parameters; one is allowed.")
    source = tagged[0] if tagged else ""
    try:
        found = [_parameter(line, source) for line in ast.parse(source).body]
    except (SyntaxError, ValueError) as error:
        raise ParameterError(f"The parameters cell of {notebook} is not understood: {error}.") from None
    return {parameter.name: parameter for parameter in found}


def chosen(file: Path, parameters: dict[str, Parameter]) -> dict[str, object]:
    """The values that a YAML file sets, each held against its declaration.

    Raises:
        ParameterError: the file is no mapping, or names an unknown parameter or a value of another type.
    """
    try:
        values = yaml.load(file.read_bytes(), Loader=_UniqueKeys)
    except yaml.YAMLError as error:
        raise ParameterError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from None
    except (ValueError, RecursionError) as error:  # as a date of month 13, or nesting without end
        raise ParameterError(f"{file} is not valid YAML: {_first_line(error)}.") from None
    if values is None:  # an empty file: everything stays at its default
        return {}
    if not isinstance(values, dict):
        raise ParameterError(f"{file} must hold lines 'name: value', but holds a {type(values).__name__}.")
    for name, value in values.items():
        if name not in parameters:
            known = ", ".join(sorted(parameters)) or "none"
            raise ParameterError(f"{file} sets {name!r}, which its notebook does not have (it has: {known}).")
        kind = parameters[name].kind
        if not fits(value, kind):
            raise ParameterError(f"{file} sets {name} to {value!r}, which is no {kind}{_hint(value, kind)}.")
    return values


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


def _parameter(line: ast.stmt, source: str) -> Parameter:
    """Read one statement of a parameters cell."""
    if not (isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and line.value):
        raise ValueError(f"line {line.lineno} is no 'name: type = value'")
    name, kind = line.target.id, ast.unparse(line.annotation)
    if kind.removeprefix("list[").removesuffix("]") not in KINDS:
        raise ValueError(f"{name} has the type {kind}; allowed are {', '.join(KINDS)} and list[...] of them")
    try:
        default = ast.literal_eval(line.value)
    except ValueError:
        raise ValueError(f"the default of {name} is no plain value") from None
    if not fits(default, kind):
        raise ValueError(f"the default of {name}, {default!r}, is no {kind}")
    tail = source.encode().splitlines()[line.end_lineno - 1][line.end_col_offset :].decode()
    return Parameter(name, kind, default, tail.partition("#")[2].strip())


def _hint(value: object, kind: str) -> str:
    """What to write instead, where YAML took a number like 1e-2 for text."""
    if kind == "float" and isinstance(value, str) and NUMBER.fullmatch(value):
        with suppress(ValueError):  # as 1.2.3
            return f" (YAML reads {value} as text; write {float(value):.1e})"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)
