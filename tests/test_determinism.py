"""The same numbers whatever the number of threads, the folder and the day; what cannot be is bounded.

Of the folder and the day, see ``test_experiment.test_same_inputs_same_bytes_also_two_at_a_time``; of a notebook,
``test_safety.test_it_prints_what_is_committed``.
"""

import os
import subprocess
import sys
from pathlib import Path

import digits
import pytest
import torch

TESTS = Path(__file__).parent
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OTHER = "2" if torch.get_num_threads() == 1 else "1"  # `make test` has one
SETTINGS = dict.fromkeys(THREADS, OTHER) | {"OMP_WAIT_POLICY": "passive"}  # threads that wait take no core


@pytest.fixture(scope="module")
def elsewhere() -> list[list[str]]:
    """What a fresh Python prints on another number of threads: quantizers, a census, moments, and files."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", TESTS / "digits.py"],
        env=os.environ | SETTINGS, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return [part.splitlines() for part in run.stdout.split("\n\n")]


def test_every_quantizer_is_the_same_in_every_digit(elsewhere):
    """Integers, bytes and all digits of floats agree."""
    assert len(elsewhere[0]) > 50 and elsewhere[0] == digits.of_quantizers()


def test_a_census_is_the_same_in_every_digit(elsewhere):
    assert len(elsewhere[1]) > 100 and elsewhere[1] == digits.of_census()


def test_a_file_is_decoded_to_the_same_weights(elsewhere):
    assert len(elsewhere[3]) > 20 and elsewhere[3] == digits.of_files()


def test_products_of_the_network_differ_by_their_last_bits_only(elsewhere):
    """What is not the same: float32 sums of matrix products.  They agree to 1e-5 of their size."""
    here = digits.of_moments()
    assert len(elsewhere[2]) == len(here) == 7
    for line, other in zip(here, elsewhere[2], strict=True):
        (name, *numbers), (same, *others) = line.split(), other.split()
        assert name == same
        assert [float(x) for x in numbers] == pytest.approx([float(x) for x in others], rel=1e-5)
