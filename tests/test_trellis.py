"""The Viterbi search against all paths, Ungerboeck's gains, and how near trellis codes come to D(R)."""

from itertools import product

import numpy as np
import pytest
from sources import gaussian

from rdlib.measure import measure
from rdlib.quantizers import BitshiftTrellis, ComputedTrellis, EntropyCodedTrellis, TrellisCoded
from rdlib.quantizers.trellis.bitshift import WINDOW, fitted, gaussian_code, in_rows, registers_of, sequences
from rdlib.quantizers.trellis.ungerboeck import PARITY_CHECKS, paths_through, subsets_of
from rdlib.quantizers.trellis.viterbi import best_paths, tail_biting_paths
from rdlib.tools import trellis_search


def shuffled_quantiles(shape: tuple[int, int]) -> np.ndarray:
    """All quantiles of N(0, 1), in random order: a Gaussian sample of variance 1 without sampling error of it."""
    from sources import gaussian_quantiles

    flat = gaussian_quantiles(shape[0] * shape[1])[0]
    return np.random.default_rng(5).permutation(flat).reshape(shape)


def excess_decibels(point: object) -> float:
    """How far a point on N(0, 1) lies above D(R) = 2^(−2R), all bits counted."""
    return 10 * np.log10(point.mse * 4**point.rate)


# The search


def every_path(register: int, k: int, steps: int) -> np.ndarray:
    """Registers of all paths, whatever their first state, (paths, steps)."""
    states = 1 << (register - k)
    found = []
    for state, new in product(range(states), product(range(1 << k), repeat=steps)):
        g, path = state, []
        for b in new:
            path.append(g | b << (register - k))
            g = path[-1] >> k
        found.append(path)
    return np.array(found)


@pytest.mark.parametrize(("register", "k", "steps"), [(2, 1, 7), (3, 1, 6), (4, 2, 4), (5, 2, 3), (6, 3, 3)])
def test_the_search_finds_the_best_of_all_paths(register, k, steps):
    rng = np.random.default_rng(register)
    x = rng.standard_normal((40, steps, 3)).astype(np.float32)  # more sequences than lanes
    subset, code = rng.integers(0, 3, 1 << register), rng.standard_normal(1 << register).astype(np.float32)
    paths = every_path(register, k, steps)
    first, last = paths[:, 0] & ((1 << (register - k)) - 1), paths[:, -1] >> k
    chosen = x[:, np.arange(steps), subset[paths]]  # sequence, path, step
    cost = ((chosen - code[paths]) ** 2).sum(axis=-1)
    assert np.array_equal(best_paths(x, subset, code, k), paths[cost.argmin(axis=1)])
    ends = rng.integers(0, 1 << (register - k), len(x))
    biting = np.where((first == ends[:, None]) & (last == ends[:, None]), cost, np.inf)
    assert np.array_equal(best_paths(x, subset, code, k, ends), paths[biting.argmin(axis=1)])


def test_a_tail_biting_path_is_nearly_as_good_as_a_free_one():
    x, code = gaussian((64, 1024, 1)), gaussian_code(8)
    subset = np.zeros(256, int)
    free, biting = (
        ((code[paths] - x[..., 0]) ** 2).mean()
        for paths in (best_paths(x, subset, code, 2), tail_biting_paths(x, subset, code, 2, WINDOW))
    )
    assert free < biting < 1.005 * free


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("register", [8, 9, 12])
def test_the_index_alone_tells_the_registers(bits, register):
    x = gaussian((5, 40, 1))
    path = tail_biting_paths(x, np.zeros(1 << register), gaussian_code(register), bits, 32)
    assert np.array_equal(registers_of(path >> (register - bits), bits, register), path)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 1023), (2, 1000), (5, 1024), (0, 3), (7, 3001)])
def test_sequences_hold_every_weight_once(shape):
    W = np.arange(1, shape[0] * shape[1] + 1).reshape(shape)
    cut = sequences(W, 6)
    assert np.array_equal(in_rows(cut, shape), W)
    assert cut.shape[1] >= 6
    assert cut.sum() == W.sum()
    assert cut.size <= max(W.size + len(cut), 6)


# The codes


@pytest.mark.parametrize("register", [8, 12, 16])
def test_the_gaussian_code_is_all_quantiles_in_an_order_without_pattern(register):
    code, n = gaussian_code(register).astype(float), 1 << register
    assert np.array_equal(np.sort(code), -np.sort(code)[::-1])
    assert 1 - 6 / n**0.75 < code.var() < 1
    for shift in (1, 2, 3):  # neighbours in the trellis share all but a few bits
        assert abs(np.corrcoef(code, code[np.arange(n) >> shift])[0, 1]) < 5 / n**0.5  # five standard errors


@pytest.mark.parametrize("states", PARITY_CHECKS)
def test_two_subsets_two_apart_leave_and_reach_every_state(states):
    subsets = subsets_of(states)
    leaving = subsets.reshape(2, states)  # the new bit is on top
    reaching = subsets.reshape(states, 2)
    for pairs in (leaving.T, reaching):
        assert set(map(frozenset, pairs.tolist())) == {frozenset({0, 2}), frozenset({1, 3})}


GRANULAR_GAIN = {4: 0.991, 8: 1.079, 16: 1.145, 32: 1.214, 64: 1.256, 128: 1.304, 256: 1.336}


@pytest.mark.parametrize("states", GRANULAR_GAIN)
def test_the_granular_gain_of_ungerboecks_codes_is_the_published_one(states):
    """On a uniform source, against a scalar quantizer of the same rate; Marcellin and Fischer 1990, table."""
    x = np.random.default_rng(states).uniform(0, 64, (32, 8192, 1))
    c = np.arange(4)
    errors = x - c - 4 * np.rint((x - c) / 4)
    paths = best_paths(errors, subsets_of(states), np.zeros(2 * states), 1)
    chosen = np.take_along_axis(errors, subsets_of(states)[paths][..., None], axis=2)
    gain = 10 * np.log10((2**2 / 12) / (chosen**2).mean())  # one bit pays for the path: cells of width 2
    assert gain == pytest.approx(GRANULAR_GAIN[states], abs=0.025)


def test_the_search_finds_codes_as_good_as_ungerboecks(monkeypatch):
    """Of 16 states: 20 random pairs are enough for 1.1 dB."""
    monkeypatch.setattr(trellis_search, "CANDIDATES", 20)
    monkeypatch.setattr(trellis_search, "LONG", 2048)
    loss, h0, h1 = trellis_search.search(16)
    assert loss == pytest.approx(trellis_search.loss(h0, h1, 2048, seed=1))
    assert np.log2(2 * np.pi * np.e / 12) / 2 - loss > 1.1 / 6.0206
    assert h0.bit_length() == 5 and h0 & 1 and not h1 & 17


def test_biting_the_tail_costs_less_than_a_fiftieth_of_a_decibel():
    """Against sequences so long that their free ends do not count."""
    x = np.random.default_rng(0).uniform(0, 64, (32, 8192, 1))
    errors = x - np.arange(4) - 4 * np.rint((x - np.arange(4)) / 4)
    free = best_paths(errors, subsets_of(256), np.zeros(512), 1)
    biting = paths_through(errors.reshape(256, 1024, 4), 256).reshape(free.shape)
    free, biting = (
        (np.take_along_axis(errors, subsets_of(256)[paths][..., None], axis=2) ** 2).mean()
        for paths in (free, biting)
    )
    assert 0 <= 10 * np.log10(biting / free) < 0.02


# How good they are: D·4^(R − 2) at the true rate R, on N(0, 1)


@pytest.mark.parametrize(
    ("register", "shape", "limit"), [(8, 256, 0.0880), (12, 512, 0.0740), (16, 128, 0.0690)]
)
def test_the_bitshift_trellis_at_two_bits(register, shape, limit):
    point = measure(shuffled_quantiles((shape, 512)), BitshiftTrellis(2, register))
    assert 0.0625 < point.mse * 4 ** (point.rate - 2) <= limit


def test_a_longer_register_is_better():
    W = shuffled_quantiles((128, 512))
    curve = [measure(W, BitshiftTrellis(2, register)).mse for register in (8, 9, 10, 11, 12)]
    assert all(later < earlier for earlier, later in zip(curve, curve[1:], strict=False))


@pytest.mark.parametrize("least", [0.2, 0.94, 1.0, 3.0])
def test_the_fitted_factor_is_that_of_least_error(least):
    """Within a percent, wherever it is: where the error is of fourth order about the least, too."""
    assert fitted(lambda f: np.log(f / least) ** 2) == pytest.approx(least, rel=1e-6)
    assert fitted(lambda f: np.log(f / least) ** 4 + np.log(f / least) ** 2) == pytest.approx(least, rel=0.01)
    assert np.isfinite(fitted(lambda f: 1.0))


@pytest.mark.parametrize("quantizer", [BitshiftTrellis(4, 8), ComputedTrellis(4, 8)], ids=lambda q: q.method)
def test_the_scale_of_a_fixed_code_is_fitted(quantizer, monkeypatch):
    """By the power of the weights alone, Laplacian ones came out up to 3 dB worse at 4 bits."""
    W = np.random.default_rng(3).laplace(size=(64, 256)).astype(np.float32)
    fit = measure(W, quantizer).mse
    for factor in np.geomspace(0.6, 3, 15):
        monkeypatch.setattr(type(quantizer), "_factor", lambda self, x, factor=factor: factor)
        assert fit < 1.01 * measure(W, quantizer).mse, factor


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_entropy_coded_tcq_is_within_a_quarter_of_a_decibel_of_the_limit(bits):
    point = measure(shuffled_quantiles((1024, 512)), EntropyCodedTrellis(bits))
    assert 0 < excess_decibels(point) < 0.25
    assert point.rate == pytest.approx(bits, abs=0.02)


@pytest.mark.parametrize(("states", "most"), [(256, 0.039), (1024, 0.032)])
def test_many_states_come_within_hundredths_of_a_bit(states, most):
    """Of D(R), all bits counted; benchmark_trellis.py has 4096 states, and other rates."""
    point = measure(shuffled_quantiles((512, 512)), EntropyCodedTrellis(2, states))
    assert 0 < excess_decibels(point) / 6.0206 < most


def test_more_states_are_better_in_every_kind_of_tcq():
    W = shuffled_quantiles((128, 1024))
    for family in (TrellisCoded, EntropyCodedTrellis):
        excess = [excess_decibels(measure(W, family(2, states))) for states in (4, 16, 64, 256)]
        assert all(later < earlier - 0.02 for earlier, later in zip(excess, excess[1:], strict=False))


def test_tcq_of_four_states_is_a_decibel_better_than_lloyd_max_at_two_bits():
    """Marcellin and Fischer 1990, table II: 10.55 dB for 4 states with optimised levels, 9.30 dB for Lloyd–Max."""
    point = measure(shuffled_quantiles((128, 1024)), TrellisCoded(2, 4))
    assert -10 * np.log10(point.mse) == pytest.approx(10.55, abs=0.08)


# What is refused


def test_registers_and_states_that_do_not_exist_are_refused():
    for register in (7, 17, 0):
        with pytest.raises(ValueError, match=f"8 to 16 bits, not {register}"):
            BitshiftTrellis(2, register)
    for family in (TrellisCoded, EntropyCodedTrellis):
        with pytest.raises(ValueError, match="4, 8, 16, 32, 64, 128, 256, 1024, 4096 states, not 12"):
            family(2, 12)
