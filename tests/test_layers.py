"""Imports point one way: every module lists the modules below it, and imports no other.

Quantizers do not know the theory (a quantizer does not know the answer), nothing knows the notebooks.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "rdlib"

# In the order in which the subject is taught, from what knows nothing to what knows everything.
BELOW: dict[str, set[str]] = {
    "extras": set(),
    "files": set(),
    "weights": set(),
    "histogram": {"weights"},
    "grid": {"weights"},
    "theory": {"weights"},
    "code": set(),
    "quantizers": {"code", "histogram", "weights"},
    "measure": {"code", "histogram", "quantizers", "weights"},
    "models": {"extras", "files", "weights"},
    "statistics": {"grid", "histogram", "models", "weights"},
    "plot": {"extras", "histogram", "theory"},
    "checkpoints": {"code", "files", "histogram", "models", "quantizers", "weights"},
    "network": {"extras", "files", "models", "theory", "weights"},
    "functional": {"extras", "measure", "network", "weights"},
    "engine": {
        *("checkpoints", "extras", "files", "functional", "measure", "models"),
        *("network", "quantizers", "theory", "weights"),
    },
    "allocation": {
        *("checkpoints", "engine", "files", "functional", "models", "network", "quantizers", "theory"),
    },
    "census": {
        *("code", "extras", "files", "histogram", "measure", "models", "plot"),
        *("quantizers", "runs", "statistics", "theory", "weights"),
    },
    "audit": {
        *("census", "checkpoints", "engine", "extras", "files", "grid", "measure", "models"),
        *("network", "plot", "runs", "theory", "weights"),
    },
    "explorer": {
        *("code", "engine", "extras", "files", "histogram", "measure", "models", "network"),
        *("plot", "quantizers", "runs", "theory", "weights"),
    },
    "runs": {
        *("code", "engine", "extras", "files", "measure", "models", "network", "quantizers", "theory"),
    },
    "__main__": {"allocation", "audit", "census", "explorer", "extras", "models", "runs"},
    "tools": {"allocation", "checkpoints", "files", "models", "quantizers"},
}


def modules() -> list[str]:
    """Top-level modules and subpackages of rdlib."""
    paths = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return sorted(path.stem for path in paths if path.stem != "__init__")


def imported(module: str) -> set[str]:
    """Which other modules of rdlib a module, or any file of a subpackage, imports at any place."""
    folder = PACKAGE / module
    found = set()
    for path in folder.rglob("*.py") if folder.is_dir() else [PACKAGE / f"{module}.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{path} line {node.lineno}: write rdlib. instead of a relative import"
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            found |= {name.split(".")[1] for name in names if name.startswith("rdlib.")}
    return found - {module}


@pytest.mark.parametrize("module", modules())
def test_imports_point_down(module):
    assert module in BELOW, (
        f"rdlib/{module} has no place yet: add it to BELOW with the modules that it may import"
    )
    assert imported(module) <= BELOW[module]


def test_package_itself_imports_nothing():
    assert "import" not in (PACKAGE / "__init__.py").read_text()


def test_edges_have_no_cycle():
    placed: set[str] = set()
    while ready := {module for module, below in BELOW.items() if module not in placed and below <= placed}:
        placed |= ready
    assert placed == set(BELOW)


def test_the_table_of_contents_is_short():
    """A stranger sees the plan of the house in one look."""
    assert len([name for name in modules() if name != "__main__"]) <= 22
