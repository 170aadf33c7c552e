"""The parameters of notebooks, and the values that an experiment gives them.

A notebook declares its parameters in the cell tagged ``parameters``, one a line, with type and meaning::

    layer: int = 2  # block of the model, counted from 0

An experiment is a YAML file that sets what differs from those defaults: what all its notebooks share, and below the
name of a notebook what is its own::

    model: meta-llama/Llama-3.2-1B
    04_sota:
      windows: 8

With ``base: llama-3.2-1b`` it only sets what differs from another experiment.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml
from papermill.translators import PythonTranslator

from rdlib.runs.check import RESULTS
from rdlib.runs.values import KINDS, ParameterError, check_value

ONLY = "notebooks"  # the key that names the notebooks to run; without it, all
BASE = "base"  # the key that names the experiment from which all other values are taken


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: ``name: kind = default  # comment``."""

    name: str
    kind: str
    default: object
    comment: str


def declared(notebook: Path) -> dict[str, Parameter]:
    """The parameters of a notebook by name, as Papermill reads them; none where no cell is tagged ``parameters``.

    Raises:
        ParameterError: the file is no notebook, or a parameter has no type or no plain default.
    """
    try:
        cells = nbformat.read(notebook, as_version=4).cells
    except (OSError, ValueError, AttributeError) as error:
        raise ParameterError(f"{notebook} cannot be read as a notebook: {_first_line(error)}.") from None
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) > 1:
        raise ParameterError(f"{notebook} tags {len(tagged)} cells as parameters; one is allowed.")
    found = {}
    for parameter in PythonTranslator.inspect(tagged[0]) if tagged else []:
        name, kind = parameter.name, parameter.inferred_type_name
        if kind.removeprefix("list[").removesuffix("]") not in KINDS:
            allowed = f"{', '.join(KINDS)} and list[...] of them"
            raise ParameterError(f"{notebook}: {name} has the type {kind}; allowed are {allowed}.")
        try:
            default = ast.literal_eval(parameter.default)
        except (ValueError, SyntaxError):
            raise ParameterError(f"{notebook}: the default of {name} is no plain value.") from None
        check_value(name, default, kind, f"{notebook}: ")
        found[name] = Parameter(name, kind, default, parameter.help)
    return found


def read(file: Path) -> dict[str, object]:
    """The values in the YAML file of an experiment, over those of its base; none if it is empty.

    Raises:
        ParameterError: it is no mapping of names, or names a base that is not there or has itself a base.
    """
    values = _values(file)
    if BASE not in values:
        return values
    base = file.with_name(f"{values.pop(BASE)}.yaml")
    if not base.is_file() or BASE in _values(base):
        raise ParameterError(
            f"{file} names the base {base.stem!r}, which must be an experiment without a base."
        )
    under = _values(base)
    sections = {
        k: under[k] | v for k, v in values.items() if isinstance(v, dict) and isinstance(under.get(k), dict)
    }
    return under | values | sections


def _values(file: Path) -> dict[str, object]:
    """What is written in a YAML file.

    Raises:
        ParameterError: it is no mapping of names.
    """
    try:
        values = yaml.load(file.read_bytes(), Loader=_PlainYaml)
    except yaml.YAMLError as error:
        raise ParameterError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from None
    except (ValueError, RecursionError) as error:  # as a date of month 13, or nesting without end
        raise ParameterError(f"{file} is not valid YAML: {_first_line(error)}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ParameterError(f"{file} must hold lines 'name: value', but holds a {type(values).__name__}.")
    return values


def chosen(
    values: dict[str, object], notebooks: dict[str, dict[str, Parameter]], file: str | Path
) -> dict[str, dict[str, object]]:
    """The values that an experiment gives to each notebook that it runs, by notebook; every one is checked.

    Args:
        values: of the experiment, see :func:`read`; a shared one is given to the notebooks that have it.
        notebooks: the parameters of each notebook, by its name.
        file: where the values come from, for messages.

    Raises:
        ParameterError: no notebook has such a parameter, or a value does not fit.
    """
    names = values.get(ONLY, list(notebooks))
    if not isinstance(names, list) or not names or any(name not in list(notebooks) for name in names):
        raise ParameterError(
            f"{file} gives {ONLY}: {names!r}, which must be a list of: {', '.join(notebooks) or 'none'}."
        )
    own = {name: values.get(name) or {} for name in names}
    shared = {name: value for name, value in values.items() if name != ONLY and name not in notebooks}
    for name, section in own.items():
        if not isinstance(section, dict):
            raise ParameterError(f"{file} gives {name} {section!r}; give it lines 'parameter: value'.")
        _refuse_unknown(section, notebooks[name].keys(), f"{file} below {name}")
    _refuse_unknown(shared, {key for parameters in notebooks.values() for key in parameters}, file)
    given = {}
    for name in (name for name in notebooks if name in names):  # its own values before the shared ones
        given[name] = {k: value for k, value in (shared | own[name]).items() if k in notebooks[name]}
        for key, value in given[name].items():
            check_value(key, value, notebooks[name][key].kind, f"{file}: ")
    return given


def _refuse_unknown(values: dict, known: set[str], where: str | Path) -> None:
    """Refuse a key that is no parameter, and the one that the run itself sets."""
    for key in values:
        if key == RESULTS:
            raise ParameterError(f"{where} sets {RESULTS}, which the run itself sets; leave it out.")
        if key not in known:
            has = ", ".join(sorted(known)) or "none"
            raise ParameterError(f"{where} sets {key!r}, which no notebook there has; known are: {has}.")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


class _PlainYaml(yaml.SafeLoader):
    """Safe YAML without aliases, which can multiply without end, that refuses a key given twice."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            event = self.get_event()
            raise yaml.composer.ComposerError(None, None, f"*{event.anchor} is an alias", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)
