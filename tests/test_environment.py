"""One version for each package: environment.yml, pyproject.toml, constraints.txt and what is installed."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
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


def pins(lines: list[str]) -> dict[str, Version]:
    """The packages and versions of lines ``name==version``; comments and pip's options are passed over."""
    lines = [line.partition("#")[0].strip() for line in lines]
    pairs = [line.split("==") for line in lines if line and not line.startswith("-")]
    assert all(len(pair) == 2 for pair in pairs), pairs
    assert len({canonicalize_name(name) for name, _ in pairs}) == len(pairs), "a package is pinned twice"
    return {canonicalize_name(name): Version(version) for name, version in pairs}


CONDA = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
PIP = next(entry["pip"] for entry in CONDA if isinstance(entry, dict))
CONSTRAINTS = pins((ROOT / "constraints.txt").read_text().splitlines())
ENVIRONMENT = pins(PIP)


def requirements(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras."""
    lines = PROJECT["dependencies"] + [line for extra in extras for line in EXTRAS[extra]]
    return [Requirement(line) for line in lines]


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


@pytest.mark.parametrize("wanted", requirements(*EXTRAS), ids=lambda wanted: wanted.name)
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
