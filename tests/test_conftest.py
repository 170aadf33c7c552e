"""What conftest.py promises: an unlisted skip fails, nbval ignores stderr and nothing else.

One session of pytest runs over a folder of small tests and notebooks; each test here looks at one outcome.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

CONFTEST = Path(__file__).parents[1] / "conftest.py"

TESTS = {
    "test_call.py": "import pytest\n\ndef test():\n    pytest.skip('no browser')\n",
    "test_mark.py": "import pytest\n\n@pytest.mark.skip(reason='slow')\ndef test():\n    pass\n",
    "test_xfail.py": "import pytest\n\n@pytest.mark.xfail\ndef test():\n    assert False\n",
    "test_module.py": "import pytest\n\npytest.importorskip('no_such_package')\n",
    "test_listed.py": "import pytest\nfrom conftest import ALLOWED_SKIPS\n\n"
    "ALLOWED_SKIPS['test_listed.py::test'] = 'why'\n\n"
    "@pytest.mark.parametrize('x', [1])\ndef test(x):\n    pytest.skip('listed')\n",
}
CELL = "import sys\nprint(0.25)\nprint('50 %', file=sys.stderr)"
OUTPUTS = {"right": ["0.25\n"], "wrong": ["0.26\n"], "missing": []}


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> str:
    """What pytest prints for all of the above."""
    folder = tmp_path_factory.mktemp("session")
    shutil.copy(CONFTEST, folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    for name, source in TESTS.items():
        (folder / name).write_text(source)
    for name, texts in OUTPUTS.items():
        outputs = [new_output("stream", name="stdout", text=text) for text in texts]
        cell = new_code_cell(CELL, execution_count=1, outputs=outputs)
        nbformat.write(new_notebook(cells=[cell]), folder / f"{name}.ipynb")
    options = ["--nbval", "--nbval-current-env", "--continue-on-collection-errors", "-rA", "--color=no"]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300).stdout


@pytest.mark.parametrize("name", ["test_call", "test_mark", "test_xfail", "test_module"])
def test_unlisted_skip_fails(session, name):
    assert f"\nFAILED {name}.py" in session or f"\nERROR {name}.py" in session
    assert re.search(rf"{name}\.py\S* was skipped, and conftest.py allows no such skip", session)


def test_listed_skip_is_a_skip(session):
    assert "\nSKIPPED [1] test_listed.py" in session


def test_nbval_ignores_stderr(session):
    assert "\nPASSED right.ipynb" in session


@pytest.mark.parametrize("name", ["wrong", "missing"])
def test_nbval_compares_stdout(session, name):
    assert f"\nFAILED {name}.ipynb" in session
