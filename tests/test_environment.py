"""One version for each package: environment.yml, pyproject.toml, constraints.txt and what is installed."""

import ast
import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
USER_FIXED = {
    *("jupyterlab", "papermill", "nbval", "numpy", "scipy", "scikit-learn", "torch", "transformers"),
    *("accelerate", "autoawq", "bitsandbytes", "matplotlib", "pandas"),
}  # auto-gptq is the exception: environment.yml says where it lives
UNPINNED = {"triton"}  # torch names the version that it was built with


# The extra that a room, or one file of it, may import from besides the core; what is not here, from the core alone.
EXTRA_OF = {
    **dict.fromkeys(("network", "functional", "engine"), "models"),
    **dict.fromkeys(("plot.py", "explorer", "runs", "__main__.py"), "notebooks"),
    "census": "census",
    "audit/judged.py": "models",
    "runs/api.py": "site",
    **dict.fromkeys(("audit", "runs/templating.py"), "census"),
    "census/tasks.py": "cluster",
    "models/hub.py": "models",
    **dict.fromkeys(("checkpoints/llama_cpp.py", "models/gguf/grids.py"), "gguf"),
    **dict.fromkeys(("models/gguf/model.py", "models/gguf/tokenizer.py"), "models"),
}
# pyproject.toml says who needs them.
NOT_IMPORTED = {"accelerate", "ipykernel", "pyarrow"}
MODULES = packages_distributions()


def pins(lines: list[str]) -> dict[str, Version]:
    """The packages and versions of lines ``name==version``; comments and pip's options are passed over."""
    lines = [line.partition("#")[0].strip() for line in lines]
    lines = [re.sub(r"\[.*?\]", "", line) for line in lines if line and not line.startswith("-")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), pairs
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs), "a package is pinned twice"
    return {canonicalize_name(name): Version(version) for name, version in pairs}


CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PIP = next(entry["pip"] for entry in CONDA if isinstance(entry, dict))
CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().splitlines())
ENVIRONMENT = pins(PIP)


def requirements(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras."""
    return [Requirement(line) for line in PROJECT["dependencies"]] + [r for e in extras for r in of_extra(e)]


def of_extra(name: str) -> list[Requirement]:
    """What an extra asks for, with the extras that it names."""
    lines = [Requirement(line) for line in EXTRAS[name]]
    below = [r for line in lines if line.name == "rdlib" for extra in line.extras for r in of_extra(extra)]
    return [line for line in lines if line.name != "rdlib"] + below


def needed(start: list[Requirement]) -> set[str]:
    """Names of all packages that these need on this machine, through the metadata of what is installed."""
    found: dict[str, set[str]] = {}  # name: extras that were followed
    open_ends = list(start)
    while open_ends:
        wanted = open_ends.pop()
        name = canonicalize_name(wanted.name)
        if name in found and wanted.extras <= found[name]:
            continue
        found[name] = found.get(name, set()) | wanted.extras
        for line in distribution(name).requires or []:
            below = Requirement(line)
            if below.marker is None or any(below.marker.evaluate({"extra": e}) for e in {"", *wanted.extras}):
                open_ends.append(below)
    return set(found)


def test_environment_agrees_with_constraints():
    assert {name: CONSTRAINTS.get(name) for name in ENVIRONMENT} == ENVIRONMENT


def test_environment_names_what_users_fixed():
    assert USER_FIXED - set(ENVIRONMENT) == set()
    assert "auto-gptq" in (ROOT / "environment.yml").read_text()


def test_environment_installs_rdlib_under_the_constraints():
    assert [line for line in PIP if line.startswith("-")] == [
        "--constraint constraints.txt",
        "--editable .[test]",
    ]


def test_environment_holds_the_producers():
    assert {canonicalize_name(r.name) for r in map(Requirement, EXTRAS["producers"])} <= set(ENVIRONMENT)


@pytest.mark.parametrize(
    "wanted", sorted(set(requirements(*EXTRAS)), key=str), ids=lambda wanted: wanted.name
)
def test_pyproject_allows_the_pin(wanted):
    assert CONSTRAINTS[canonicalize_name(wanted.name)] in wanted.specifier


def test_python_of_environment_is_allowed():
    version = next(entry.partition("=")[2] for entry in CONDA if str(entry).startswith("python="))
    assert Version(version) in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_everything_needed_is_pinned():
    assert needed(requirements("test")) - set(CONSTRAINTS) - UNPINNED == set()


def test_what_is_installed_is_what_is_pinned():
    """The local version of a build (torch 2.13.0+cpu) does not count."""
    installed = {name: Version(distribution(name).version).public for name in needed(requirements("test"))}
    pinned = {name: str(CONSTRAINTS.get(name)) for name in installed if name not in UNPINNED}
    assert {name: installed[name] for name in pinned} == pinned


def test_pins_are_sorted_and_have_no_local_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line)] == []


def test_producers_that_are_installed_are_pinned():
    """Where the extra is installed too, its packages are held to their pins."""
    try:
        names = needed(requirements("producers"))
    except PackageNotFoundError:  # the usual case: `make` leaves them out
        names = set()
    assert names - set(CONSTRAINTS) - UNPINNED == set()


# --- what is imported is declared, what is declared is imported -------------------------------------------


def imported(path: Path) -> set[str]:
    """The packages that a file imports, at any place, by the names that pip knows."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    foreign = names - {"rdlib", *sys.stdlib_module_names}
    return {canonicalize_name(MODULES.get(name, [name])[0]) for name in foreign}


LIBRARY = [path for path in sorted((ROOT / "rdlib").rglob("*.py")) if "tools" not in path.parts]


def test_what_is_imported_is_declared():
    """In pyproject.toml, in the core or in the extra of its room."""
    for path in LIBRARY:
        place = path.relative_to(ROOT / "rdlib")
        extra = EXTRA_OF.get(place.as_posix(), EXTRA_OF.get(place.parts[0]))
        declared = {canonicalize_name(r.name) for r in requirements(*([extra] if extra else []))}
        assert imported(path) <= declared, place


def test_what_is_declared_is_imported():
    declared = {
        canonicalize_name(r.name) for r in requirements("models", "notebooks", "census", "cluster", "gguf")
    }
    assert declared - {name for path in LIBRARY for name in imported(path)} == NOT_IMPORTED


def test_what_is_declared_for_tests_is_imported_or_run():
    """Plugins of pytest, the linter and what builds a wheel are run and not imported."""
    own = {canonicalize_name(Requirement(line).name) for line in EXTRAS["test"]} - {"rdlib"}
    seen = {name for path in (ROOT / "tests").glob("*.py") for name in imported(path)}
    assert own - seen == {"nbval", "pytest-xdist", "ruff", "setuptools"}
