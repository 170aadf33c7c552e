"""Every method has the colour of its family: none is grey in silence, and no two families look alike."""

import ast
import json
import re
from itertools import product
from pathlib import Path

import pytest
from quantizer_list import ALL

from rdlib import quantizers
from rdlib.census.grouped import BLOCK_FORMATS
from rdlib.census.sampled import SLOW
from rdlib.census.scalar import SCALAR
from rdlib.checkpoints.llama_cpp import LlamaCpp, LlamaCppImportance
from rdlib.explorer import CHOICES
from rdlib.plot import COLOURS, method_style
from rdlib.quantizers import Quantizer

UNKNOWN = method_style("no such method")["color"]


def in_notebooks() -> set[str]:
    """The methods of all quantizers that the cells of notebooks write down."""
    found = set()
    for file in sorted(Path("notebooks").glob("*.ipynb")):
        for cell in json.loads(file.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                found |= constructed("".join(cell["source"]))
    return found


def value(node: ast.AST, number: int) -> object:
    """What an argument of a quantizer is; a variable, or anything computed, is some number."""
    match node:
        case ast.Constant():
            return node.value
        case ast.Call() if class_of(node) is not object:
            named = {keyword.arg: value(keyword.value, number) for keyword in node.keywords}
            return class_of(node)(*(value(a, number) for a in node.args), **named)
        case ast.Name() | ast.Attribute():
            return getattr(quantizers, getattr(node, "id", getattr(node, "attr", "")), number)
    return number


def constructed(source: str) -> set[str]:
    """The methods that calls of classes of :mod:`rdlib.quantizers` make, if their variables are 4 or 2."""
    lines = (line for line in source.splitlines() if not line.startswith(("%", "!")))
    methods = set()
    for node, number in product(ast.walk(ast.parse("\n".join(lines))), (4, 2)):
        if isinstance(node, ast.Call) and issubclass(class_of(node), Quantizer):
            try:
                methods.add(value(node, number).method)
            except (AttributeError, TypeError, ValueError):  # the variable is no number, or another one
                continue
    return methods


def class_of(call: ast.Call) -> type:
    """The class that is called, if it is one of :mod:`rdlib.quantizers`."""
    name = getattr(call.func, "id", getattr(call.func, "attr", ""))
    found = getattr(quantizers, name, None)
    return found if isinstance(found, type) else object


FOREIGN = [LlamaCpp("Q4_K"), LlamaCppImportance("IQ4_XS")]
METHODS = sorted(
    in_notebooks() | {q.method for q in (*ALL, *SCALAR, *SLOW, *BLOCK_FORMATS, *FOREIGN, *CHOICES.values())}
)


def families(method: str) -> list[str]:
    """The families that a method may be taken for."""
    return [family for family in COLOURS if method.removeprefix("rotated ").startswith(family)]


def test_notebooks_are_looked_into():
    assert len(in_notebooks()) > 30


@pytest.mark.parametrize("method", METHODS)
def test_a_method_has_the_colour_of_the_family_that_is_named_most_closely(method):
    assert method_style(method)["color"] == COLOURS[max(families(method), key=len)] != UNKNOWN


def test_every_family_is_used():
    assert {family for method in METHODS for family in families(method)} == set(COLOURS)


def test_no_two_families_share_a_colour_but_those_of_one_lattice():
    names = {re.sub("entropy-coded | ball| shape–gain", "", family): c for family, c in COLOURS.items()}
    assert len({*names.values(), UNKNOWN}) == len(names) + 1
