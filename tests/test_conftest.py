"""What conftest.py promises: an unlisted skip fails, nbval ignores stderr and nothing else, figures add up.

One session of pytest runs over a folder of small tests and a notebook in two processes, as `make test` does; each test
here looks at one outcome.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from conftest import LONGEST, pytest_collection_modifyitems

CONFTEST = Path(__file__).parents[1] / "conftest.py"

TESTS = {
    "test_call.py": "import pytest\n\ndef test():\n    pytest.skip('no browser')\n",
    "test_mark.py": "import pytest\n\n@pytest.mark.skip(reason='slow')\ndef test():\n    pass\n",
    "test_xfail.py": "import pytest\n\n@pytest.mark.xfail\ndef test():\n    assert False\n",
    "test_module.py": "import pytest\n\npytest.importorskip('no_such_package')\n",
    "test_tally.py": "def test(tally):\n    tally('kills', 1000)\n",
    "test_tally_again.py": "def test(tally):\n    tally('kills', 234)\n",
    "test_listed.py": "import pytest\nfrom conftest import ALLOWED_SKIPS\n\n"
    "ALLOWED_SKIPS['test_listed.py::test'] = 'why'\n\n"
    "@pytest.mark.parametrize('x', [1])\ndef test(x):\n    pytest.skip('listed')\n",
}
CELL = "import sys\nprint(0.25)\nprint('50 %', file=sys.stderr)"
OUTPUTS = ["0.25\n"], ["0.26\n"], []  # right, wrong, missing


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> str:
    """What pytest prints for all of the above."""
    folder = tmp_path_factory.mktemp("session")
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, source in TESTS.items():
        (folder / name).write_text(source)
    outputs = [[new_output("stream", name="stdout", text=text) for text in texts] for texts in OUTPUTS]
    cells = [new_code_cell(CELL, execution_count=1, outputs=shown) for shown in outputs]
    nbformat.write(new_notebook(cells=cells), folder / "cells.ipynb")
    options = ["--nbval", "--nbval-current-env", "--continue-on-collection-errors", "-rA", "--color=no"]
    options += ["-n", "2", "--dist", "loadfile"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600).stdout


@pytest.mark.parametrize("name", ["test_call", "test_mark", "test_xfail", "test_module"])
def test_unlisted_skip_fails(session, name):
    assert f"\nFAILED {name}.py" in session or f"\nERROR {name}.py" in session
    assert re.search(rf"{name}\.py\S* was skipped, and conftest.py allows no such skip", session)


def test_listed_skip_is_a_skip(session):
    assert "\nSKIPPED [1] test_listed.py" in session


def test_nbval_ignores_stderr(session):
    assert "\nPASSED cells.ipynb::Cell 0" in session


@pytest.mark.parametrize("cell", [1, 2])
def test_nbval_compares_stdout(session, cell):
    assert f"\nFAILED cells.ipynb::Cell {cell}" in session


def test_figures_of_all_processes_are_added(session):
    assert re.search(r"^ +1,234 kills$", session, re.M)


def test_long_files_exist():
    files = [*CONFTEST.parent.glob("tests/*.py"), *CONFTEST.parent.glob("notebooks/*.ipynb")]
    assert set(LONGEST) <= {file.name for file in files}


def test_long_files_begin_first():
    names = ["test_b.py", LONGEST[1], "test_a.py", LONGEST[0]]
    items = [SimpleNamespace(path=Path(name)) for name in names]
    pytest_collection_modifyitems(items)
    assert [item.path.name for item in items] == [LONGEST[0], LONGEST[1], "test_b.py", "test_a.py"]
