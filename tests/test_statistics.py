"""What is said of a matrix: gains of rows and columns, and how much of the tails they explain."""

import numpy as np
import pytest

from rdlib.statistics import coding_gain_bits, evened, kurtosis, spread_db, statistics

RNG = np.random.default_rng(0)
GAUSSIAN = RNG.standard_normal((256, 512)).astype(np.float32)
FOURFOLD = np.where(np.arange(256) % 2, 1, 2).astype(np.float32)  # standard deviations of rows


def test_rows_of_two_powers_gain_what_theory_says():
    found = statistics(GAUSSIAN * FOURFOLD[:, None])
    assert found["row_gain_bits"] == pytest.approx(np.log2(2.5 / 2) / 2, abs=0.01)
    assert found["row_spread_db"] == pytest.approx(10 * np.log10(4) / 2, abs=0.1)
    assert found["kurtosis"] == pytest.approx(4.08, abs=0.05)
    assert found["even_kurtosis"] == pytest.approx(3, abs=0.05)


def test_columns_are_the_rows_of_the_transpose():
    rows, columns = statistics(GAUSSIAN * FOURFOLD[:, None]), statistics((GAUSSIAN * FOURFOLD[:, None]).T)
    for name in ("spread_db", "gain_bits"):
        assert rows[f"row_{name}"] == pytest.approx(columns[f"column_{name}"])
        assert rows[f"column_{name}"] == pytest.approx(columns[f"row_{name}"])


def test_evened_has_columns_of_unit_power_and_rows_nearly_so():
    even = evened(GAUSSIAN * FOURFOLD[:, None])
    assert np.allclose((even**2).mean(axis=0), 1, atol=1e-4)
    assert np.allclose((even**2).mean(axis=1), 1, atol=0.05)


def test_zeros_are_left_alone():
    W = GAUSSIAN.copy()
    W[3], W[:, 5] = 0, 0
    assert np.isfinite(evened(W)).all() and not evened(W)[3].any() and not evened(W)[:, 5].any()
    assert coding_gain_bits(np.zeros(4)) == spread_db(np.zeros(4)) == 0
    assert np.isnan(kurtosis(np.ones((2, 2))))
