"""The same numbers whatever the folder, the number of threads, and the day; what cannot be is bounded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# Prints a line a quantizer: all digits of what is measured, and the bytes of the file.
EVERY_QUANTIZER = """
import hashlib, sys
sys.path.insert(0, TESTS)
from quantizer_list import ALL
from rdlib.measure import measure
from sources import heavy

W = heavy((12, 140))
for q in ALL:
    p = measure(W, q)
    print(q.method, p.bits, repr(p.rate), repr(p.mse), hashlib.sha256(q.encode(W).to_bytes()).hexdigest()[:16])
"""

# float32 products of the network sum in an order that depends on the threads: H is theirs.
SECOND_MOMENTS = """
from rdlib.models.checkpoint import open_checkpoint
from rdlib.network.moments import second_moments
from rdlib.network.network import load_network
from rdlib.network.texts import load_tokenizer
from rdlib.network.windows import cut_windows, read_tokens

checkpoint = open_checkpoint("embedded")
windows = cut_windows(read_tokens("calibration", load_tokenizer("embedded")), 64).take(4)
moments = second_moments(load_network(checkpoint), windows)
for weight in checkpoint.layer(1):
    H = moments[weight]
    print(weight.name, repr(float(H.trace())), repr(float((H**2).sum())))
"""


def printed(code: str, folder: Path, threads: int) -> list[str]:
    """What a fresh Python prints in this folder with so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads))
    folder.mkdir()
    script = f"TESTS = {str(TESTS)!r}\n{code}"
    command = [sys.executable, "-W", "ignore", "-c", script]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_every_quantizer_is_the_same_in_every_digit(tmp_path):
    """One thread here, two there: integers, bytes and all digits of floats agree."""
    one, two = (printed(EVERY_QUANTIZER, tmp_path / f"folder-{n}", n) for n in (1, 2))
    assert len(one) > 50 and one == two


@pytest.mark.parametrize("notebook", ["02_scalar_rd"])
def test_a_table_of_results_is_the_same_in_every_byte(tmp_path, notebook):
    """A run in one folder on one thread, and in another on two: all digits of all points, and every figure."""
    results = []
    for threads in (1, 2):
        root = tmp_path / f"folder-{threads}"
        (root / "params").mkdir(parents=True)
        shutil.copytree(TESTS.parent / "notebooks", root / "notebooks")
        (root / "params/mini.yaml").write_text(f"notebooks: [{notebook}]\nbits: [2, 4]\n")
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        command = [sys.executable, "-m", "rdlib", "run", "mini"]
        run = subprocess.run(
            command, cwd=root, env=os.environ | dict.fromkeys(names, str(threads)),
            capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        build = root / "build/mini"
        kept = [path for path in build.rglob("*") if path.suffix in (".csv", ".parquet", ".png", ".ipynb")]
        results.append({path.relative_to(build).as_posix(): path.read_bytes() for path in kept})
    assert results[0].keys() == results[1].keys() and len(results[0]) > 5
    assert [name for name in results[0] if results[0][name] != results[1][name]] == []


def test_products_of_the_network_differ_by_their_last_bits_only(tmp_path):
    """What is not the same: float32 sums of matrix products.  They agree to 1e-5 of their size."""
    one, two = (printed(SECOND_MOMENTS, tmp_path / f"folder-{n}", n) for n in (1, 2))
    assert len(one) == len(two) == 7
    for a, b in zip(one, two, strict=True):
        (name, *numbers), (same, *others) = a.split(), b.split()
        assert name == same
        assert [float(x) for x in numbers] == pytest.approx([float(x) for x in others], rel=1e-5)
