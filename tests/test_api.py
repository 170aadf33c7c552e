"""The API reference: a page for each module, and on it what its docstrings say."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import rdlib

pytest.importorskip("pdoc", reason="pip install 'rdlib[site]'")
from rdlib.runs import api

LEFT_OUT = tuple(name.removeprefix("!") for name in api.LEFT_OUT)
SHUT = ("rdlib.quantizers.",)  # what is in these rooms is on the page of the room, which has an __all__
MODULES = [
    module.name
    for module in pkgutil.walk_packages(rdlib.__path__, "rdlib.")
    if not module.name.startswith(LEFT_OUT + SHUT)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return api.write(tmp_path_factory.mktemp("api")).parent


@pytest.mark.parametrize("module", MODULES)
def test_every_module_has_a_page_with_its_docstrings(folder, module):
    page = folder / f"{module.replace('.', '/')}.html"
    shown = letters(BeautifulSoup(page.read_text(), "html.parser").get_text())
    known = importlib.import_module(module)
    for documented in (known, *(v for k, v in vars(known).items() if is_own(known, k, v))):
        assert letters(documented.__doc__.partition("\n")[0])[:20] in shown, documented


def letters(text: str) -> str:
    """The letters and digits of a text, without the roles of its references."""
    return re.sub(r":\w+:`|[\W_]", "", text)


def is_own(module: object, name: str, value: object) -> bool:
    """Whether a name is a public class or function of the module itself, or one that it offers."""
    offered = name in getattr(module, "__all__", ())
    own = not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    return callable(value) and (offered or own)
