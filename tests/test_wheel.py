"""The wheel works by itself: in a fresh environment that holds the core's packages and nothing else.

Packages are not fetched again: those that the core needs are linked from the environment of the tests, and pip itself,
which may look nowhere else, decides whether that is enough.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from test_environment import needed, requirements

from rdlib.measure import measure
from rdlib.models import open_checkpoint
from rdlib.quantizers import LloydMax

ROOT = Path(__file__).parents[1]
LARGEST = 30e6  # bytes
CORE = [
    "quantizers",
    "code",
    "theory",
    "measure",
    "histogram",
    "models",
    "checkpoints",
    "statistics",
]
EXTRAS = {
    "torch",
    "transformers",
    "matplotlib",
    "tqdm",
    "jinja2",
    "papermill",
    "joblib",
    "yaml",
    "huggingface_hub",
}
MEASURE = f"""
import sys
from importlib import import_module
from importlib.util import find_spec

for room in {CORE}:
    import_module(f"rdlib.{{room}}")
from rdlib.measure import measure
from rdlib.models import open_checkpoint
from rdlib.quantizers import LloydMax

checkpoint = open_checkpoint("embedded")
point = measure(checkpoint.tensor(checkpoint.layer(1)[0]), LloydMax(4))
print(import_module("rdlib").__file__)
print(repr(point.rate), repr(point.mse))
print(*(name for name in {sorted(EXTRAS)} if find_spec(name)))
"""


def run(command: list, folder: Path) -> subprocess.CompletedProcess:
    """A command outside of the checkout, which finds nothing but its own environment."""
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=alone, capture_output=True, text=True, timeout=1800
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the tree."""
    tree = tmp_path_factory.mktemp("wheel") / "tree"
    tree.mkdir()
    shutil.copytree(ROOT / "rdlib", tree / "rdlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("notebooks", "params"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tree.parent,
        tree,
    ]
    built = run(command, tree.parent)
    assert built.returncode == 0, built.stderr
    (found,) = tree.parent.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """The Python of a fresh environment, into which the wheel was installed with the core alone."""
    folder = tmp_path_factory.mktemp("fresh")
    assert run([sys.executable, "-m", "venv", "--without-pip", folder], folder).returncode == 0
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    for name in needed(requirements()):
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files if file.parts[0] not in ("..", "__pycache__")}:
            Path(paths["purelib"], top).symlink_to(Path(installed.locate_file(top)).resolve())
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", wheel]
    installed = run(command, folder)
    assert installed.returncode == 0, installed.stderr
    return python


def test_it_is_small_and_holds_what_it_needs(wheel):
    assert wheel.stat().st_size < LARGEST
    names = zipfile.ZipFile(wheel).namelist()
    tree = [
        path for path in (ROOT / "rdlib").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]
    wanted = {path.relative_to(ROOT).as_posix() for path in tree if "tools" not in path.parts}
    course = [
        path for name in ("notebooks", "params") for path in (ROOT / name).rglob("*.*") if path.is_file()
    ]
    wanted |= {
        f"rdlib/course/{path.relative_to(ROOT).as_posix()}"
        for path in course
        if "_checkpoints" not in str(path)
    }
    assert {name for name in names if name.startswith("rdlib/")} == wanted


def test_the_core_measures_a_matrix(python):
    ran = run([python, "-c", MEASURE], python.parent)
    assert ran.returncode == 0, ran.stderr
    where, numbers, heavy = ran.stdout.split("\n")[:3]
    checkpoint = open_checkpoint("embedded")
    point = measure(checkpoint.tensor(checkpoint.layer(1)[0]), LloydMax(4))
    assert Path(where).is_relative_to(python.parents[1]) and numbers == f"{point.rate!r} {point.mse!r}"
    assert heavy == "", "there is more than the core"


MISSING = {
    "from rdlib.network import load_network": "rdlib.network needs torch: pip install 'rdlib[models]'",
    "from rdlib.functional import compare": "rdlib.functional needs torch: pip install 'rdlib[models]'",
    "from rdlib.plot import look": "rdlib.plot needs matplotlib: pip install 'rdlib[notebooks]'",
    "from rdlib.census import census": "rdlib.census needs matplotlib: pip install 'rdlib[census]'",
    "from rdlib.models import find_model; find_model('a/b')": "pip install 'rdlib[models]'",
    "from rdlib.__main__ import main; main(['report', 'build'])": "pip install 'rdlib[notebooks]'",
    "from rdlib.__main__ import main; main(['compare', 'a', 'b'])": "pip install 'rdlib[notebooks]'",
    "from rdlib.__main__ import main; main(['census', 'embedded', 'out'])": "pip install 'rdlib[census]'",
}


def test_what_is_missing_is_named(python):
    code = f"""
for code in {list(MISSING)}:
    try:
        exec(code)
    except (ImportError, SystemExit) as error:
        print(error)
"""
    ran = run([python, "-c", code], python.parent)
    found = zip(ran.stdout.splitlines(), MISSING.values(), strict=True)
    assert all(line.endswith(message) for line, message in found), ran.stdout + ran.stderr


def test_the_command_is_there(python):
    command = python.with_name("rdlib")
    assert run([command, "--help"], python.parent).stdout.startswith("usage: rdlib")
    ran = run([command, "run", "demo"], python.parent)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1 and "pip install 'rdlib[" in ran.stderr
