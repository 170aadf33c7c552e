"""What the README shows is true: its code runs, its commands and links lead somewhere, its figure is the notebook's."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from rdlib.runs.notebook import figures

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
COMMANDS = re.findall(r"^\$ (.+)$", TEXT, re.M)
NOTEBOOK, FIGURE = "06_limits", "ladder"


@pytest.mark.parametrize("code", BLOCKS, ids=[re.findall(r"^\S.*", code, re.M)[-1][:40] for code in BLOCKS])
def test_code_runs(code, tmp_path):
    file = tmp_path / "block.py"
    file.write_text(code)
    run = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr


def test_there_is_code():
    assert len(BLOCKS) >= 4 and len(COMMANDS) >= 4


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_targets(command):
    """Every command is a make target, and Makefile accepts it as written."""
    words = command.partition("#")[0].split()
    assert words[0] == "make", command
    dry = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert dry.returncode == 0, dry.stderr


def test_experiments_that_are_named_exist():
    named = set(re.findall(r"EXPERIMENT=([\w.-]+)", TEXT))
    assert named and all((ROOT / "params" / name).is_dir() for name in named)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text())
    assert [t for t in targets if "://" not in t and not (ROOT / t).exists()] == []


@pytest.mark.parametrize("file", sorted(set(re.findall(r"tests/\w+\.py", TEXT))))
def test_files_that_are_named_exist(file):
    assert (ROOT / file).is_file()


def test_figure_is_that_of_the_notebook():
    """To renew it: write figures(…)["ladder"] of the executed notebook to notebooks/ladder.png."""
    shown = figures(nbformat.read(ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", as_version=4))[FIGURE]
    assert (ROOT / "notebooks" / f"{FIGURE}.png").read_bytes() == shown


def test_every_notebook_has_its_row():
    names = [path.name for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]
    assert [name for name in names if f"(notebooks/{name})" not in TEXT] == []
