"""The same numbers whatever the number of threads, the folder and the day; what cannot be is bounded.

Of the folder and the day, see ``test_experiment.test_same_inputs_same_bytes``.
"""

import os
import subprocess
import sys
from pathlib import Path

import digits
import nbformat
import pytest
import torch
from nbformat import NotebookNode

from rdlib.runs.notebook import execute

TESTS = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OTHER = "2" if torch.get_num_threads() == 1 else "1"  # `make test` has one
SETTINGS = dict.fromkeys(THREADS, OTHER) | {"OMP_WAIT_POLICY": "passive"}  # threads that wait take no core


@pytest.fixture(scope="module")
def elsewhere() -> list[list[str]]:
    """What a fresh Python prints on another number of threads: lines of quantizers, and of moments."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", TESTS / "digits.py"],
        env=os.environ | SETTINGS, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [part.splitlines() for part in run.stdout.split("\n\n")]


def test_every_quantizer_is_the_same_in_every_digit(elsewhere):
    """Integers, bytes and all digits of floats agree."""
    assert len(elsewhere[0]) > 50 and elsewhere[0] == digits.of_quantizers()


def test_products_of_the_network_differ_by_their_last_bits_only(elsewhere):
    """What is not the same: float32 sums of matrix products.  They agree to 1e-5 of their size."""
    here = digits.of_moments()
    assert len(elsewhere[1]) == len(here) == 7
    for line, other in zip(here, elsewhere[1], strict=True):
        (name, *numbers), (same, *others) = line.split(), other.split()
        assert name == same
        assert [float(x) for x in numbers] == pytest.approx([float(x) for x in others], rel=1e-5)


def test_a_notebook_prints_the_same_on_other_threads(monkeypatch):
    """Nbval compares every notebook on as many threads as the rest of `make test` has; this is the shortest."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    path = TESTS.parent / "notebooks/01_extraction.ipynb"
    committed = shown(nbformat.read(path, as_version=4))
    assert len(committed) > 2000 and shown(execute(path, {})[0]) == committed


def shown(notebook: NotebookNode) -> str:
    """All text that a notebook shows; what is printed may come in one piece or in several."""
    outputs = [
        out for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") != "stderr"
    ]
    return "".join(out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs)
