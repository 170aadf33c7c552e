"""The same numbers whatever the number of threads, the folder and the day; what cannot be is bounded.

Of the folder and the day, see ``test_experiment.test_same_inputs_same_bytes``.
"""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from rdlib.runs.notebook import execute

TESTS = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")

# Prints a line a quantizer: all digits of what is measured, and the bytes of the file; then of H, in float32
# products of the network, which sum in an order that depends on the threads.
DIGITS = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from quantizer_list import ALL
from sources import coded, SOURCES
from rdlib.measure import measure_code
from rdlib.models import open_checkpoint
from rdlib.engine import second_moments
from rdlib.network import cut_windows, load_tokenizer, read_tokens

for q in ALL:
    code = coded(q, "tall")
    point = measure_code(SOURCES["tall"], q, code)
    print(q.method, repr(point.rate), repr(point.mse), hashlib.sha256(code.to_bytes()).hexdigest(), sep="\\t")
checkpoint = open_checkpoint("embedded")
windows = cut_windows(read_tokens("calibration", load_tokenizer("embedded")), 64).take(4)
moments = second_moments(checkpoint, windows)
for weight in checkpoint.layer(1):
    H = moments[weight]
    print("H", weight.name, repr(float(H.trace())), repr(float((H**2).sum())), sep="\\t")
"""


@pytest.fixture(scope="module")
def printed() -> list[list[list[str]]]:
    """What a fresh Python prints on one thread, and on two: lines of words."""
    found = []
    for threads in (1, 2):
        run = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", DIGITS, str(TESTS)],
            env=os.environ | dict.fromkeys(THREADS, str(threads)), capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        found.append([line.split("\t") for line in run.stdout.splitlines()])
    return found


def test_every_quantizer_is_the_same_in_every_digit(printed):
    """Integers, bytes and all digits of floats agree."""
    one, two = ([line for line in lines if line[0] != "H"] for lines in printed)
    assert len(one) > 50 and one == two


def test_products_of_the_network_differ_by_their_last_bits_only(printed):
    """What is not the same: float32 sums of matrix products.  They agree to 1e-5 of their size."""
    one, two = ([line for line in lines if line[0] == "H"] for lines in printed)
    assert len(one) == len(two) == 7
    for (_, name, *numbers), (_, same, *others) in zip(one, two, strict=True):
        assert name == same
        assert [float(x) for x in numbers] == pytest.approx([float(x) for x in others], rel=1e-5)


def test_a_notebook_prints_the_same_on_two_threads(monkeypatch):
    """Nbval compares it with its committed outputs on as many threads as the rest of `make test` has."""
    for name in THREADS:
        monkeypatch.setenv(name, "2")
    path = TESTS.parent / "notebooks/02_scalar_rd.ipynb"
    committed = shown(nbformat.read(path, as_version=4))
    assert len(committed) > 10 and shown(execute(path, {})[0]) == committed


def shown(notebook: NotebookNode) -> list[str]:
    """Every text that a notebook shows."""
    outputs = [
        out for cell in notebook.cells for out in cell.get("outputs", []) if out.get("name") != "stderr"
    ]
    return [out.get("text") or out.data.get("text/plain", "") for out in outputs]
