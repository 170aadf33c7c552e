"""The weights that a block format sees: a distribution with two atoms, and what a table makes of it."""

import math

import numpy as np
import pytest
from sources import DTYPES, gaussian, heavy, one_thread  # noqa: F401

from rdlib.measure import measure
from rdlib.quantizers import FP4, NF4, Q4_0
from rdlib.theory.block_maximum import (
    block_normalised,
    gaussian_block_density,
    gaussian_block_levels,
    gaussian_block_mse,
)

pytestmark = pytest.mark.filterwarnings("error")

SIZES = (2, 3, 16, 64, 1024, 2**20)
SIGNED = np.arange(-8, 8) / 8  # int4, divided by the largest weight with its sign


# Weights


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
def test_one_weight_of_each_block_is_one(dtype):
    W = heavy((32, 96), dtype)
    u = block_normalised(W, 64)
    assert (u.shape, u.dtype) == (W.shape, np.float32)
    assert np.all(np.abs(u) <= 1)
    assert np.all((np.abs(u.reshape(-1, 64)) == 1).sum(axis=1) >= 1)
    scale = np.repeat(NF4().encode(W)["scale"], 64).reshape(W.shape)
    assert u * scale == pytest.approx(W.astype(np.float32), rel=1e-6)


def test_shapes_zeros_and_short_blocks():
    for shape in ((1, 1), (3, 50), (0, 5), (5, 0)):
        assert block_normalised(gaussian(shape), 64).shape == shape
    assert not block_normalised(np.zeros((4, 100), np.float32), 64).any()
    assert np.array_equal(block_normalised(np.float32([[1, 2, -4, 3]]), 3), np.float32([[0.25, 0.5, -1, 1]]))


def test_what_is_no_block_or_no_weight_matrix_is_refused():
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"at least 1 weights here, not {size}"):
            block_normalised(gaussian((2, 2)), size)
    for function in (
        lambda size: gaussian_block_mse([-1, 1], size),
        lambda size: gaussian_block_density(0, size),
    ):
        with pytest.raises(ValueError, match="at least 2 weights here, not 1"):
            function(1)
    with pytest.raises(ValueError, match="W holds nan"):
        block_normalised(np.float32([[1, np.nan]]), 2)
    for levels in ([1, -1], [-0.5, 0.5], []):
        with pytest.raises(ValueError, match="must rise, and reach"):
            gaussian_block_mse(levels, 64)


# The density


@pytest.mark.parametrize("size", SIZES)
def test_the_density_holds_all_but_the_largest_weights(size):
    u = np.linspace(-1, 1, 4001)
    density = gaussian_block_density(u, size)
    assert np.trapezoid(density, u) == pytest.approx(1 - 1 / size, abs=1e-7)
    assert density == pytest.approx(density[::-1], rel=1e-12)
    assert np.all(gaussian_block_density(np.array([-1.1, 1.1]), size) == 0)


def test_of_two_gaussians_the_smaller_over_the_larger_is_cauchy():
    u = np.linspace(-1, 1, 101)
    assert gaussian_block_density(u, 2) == pytest.approx(1 / (math.pi * (1 + u**2)), rel=1e-10)


def test_the_density_is_that_of_normalised_samples():
    u = block_normalised(gaussian((256, 4096)), 64)
    inside = np.abs(u) < 1
    assert inside.mean() == pytest.approx(1 - 1 / 64, abs=1e-9)
    counts, edges = np.histogram(u[inside], 40, (-1, 1))
    expected = gaussian_block_density((edges[1:] + edges[:-1]) / 2, 64) * np.diff(edges) * u.size
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected) + 2e-3 * expected)


# Errors of tables


def test_one_bit_for_blocks_of_two():
    """E (|a| − |b|)² / 2 of two Gaussians: the larger is a level, the smaller is taken for it."""
    assert gaussian_block_mse([-1, 1], 2) == pytest.approx(1 - 2 / math.pi, rel=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_many_levels_leave_an_error_of_a_step_squared_over_twelve(size):
    """High resolution: step²·E m² / 12 for all weights but the largest."""
    rng, n = np.random.default_rng(0), min(size, 1024)
    fine, finer = (gaussian_block_mse(np.linspace(-1, 1, k), size) for k in (1001, 2001))
    assert fine / finer == pytest.approx(4, rel=1e-3)
    if size <= 1024:
        largest = np.abs(rng.standard_normal((2**21 // n, n))).max(axis=1)
        predicted = (2 / 1000) ** 2 / 12 * np.mean(largest**2) * (1 - 1 / size)
        assert fine == pytest.approx(predicted, rel=2e-2)


@pytest.mark.parametrize("size", [16, 64, 256])
def test_errors_of_tables_are_those_of_quantizers(size):
    W = gaussian((256, 2048), seed=size)
    for quantizer, levels in ((NF4(size=size), NF4.table), (Q4_0(size=size), SIGNED)):
        assert measure(W, quantizer).mse == pytest.approx(gaussian_block_mse(levels, size), rel=8e-3)


def test_a_table_made_for_gaussians_loses_on_gaussians_in_small_blocks():
    """16 even levels over the signed maximum beat NF4 up to 32 weights a block, and lose from 64 on.

    Both see Gaussian weights: which of them wins on real weights does not tell whether those are Gaussian.
    """
    gain = {n: gaussian_block_mse(NF4.table, n) / gaussian_block_mse(SIGNED, n) for n in (8, 16, 32, 64, 128)}
    assert gain[8] > gain[16] > gain[32] > 1 > gain[64] > gain[128]


@pytest.mark.parametrize("size", (16, 64, 256))
def test_no_table_is_better_than_the_best_one(size):
    """Nor is a neighbour of it, and the levels of the largest weight stay where they are."""
    both, signed = gaussian_block_levels(size), gaussian_block_levels(size, fixed=(-1.0,))
    assert both == pytest.approx(-both[::-1], abs=1e-9) and (both[0], signed[0]) == (-1, -1)
    least = gaussian_block_mse(both, size)
    assert least < min(gaussian_block_mse(table, size) for table in (NF4.table, FP4.table))
    assert gaussian_block_mse(signed, size) < min(least, gaussian_block_mse(SIGNED, size)), (
        "a level more is free"
    )
    for move in np.random.default_rng(0).normal(0, 1e-3, (20, 14)):
        assert gaussian_block_mse(both + np.pad(move, 1), size) > least


def test_the_best_levels_are_those_of_lloyds_iteration_on_samples():
    W = gaussian((4096, 64)).astype(np.float64)
    m, levels = np.abs(W).max(axis=1, keepdims=True), np.linspace(-1, 1, 16)
    for _ in range(200):
        cell = np.searchsorted((levels[:-1] + levels[1:]) / 2, W / m)
        sums = (np.bincount(cell.ravel(), x.ravel(), 16) for x in (m * W, np.broadcast_to(m**2, W.shape)))
        levels[1:-1] = np.divide(*sums)[1:-1]
    assert gaussian_block_levels(64) == pytest.approx(levels, abs=0.01)
