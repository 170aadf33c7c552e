"""Proxies are what their formulas say; ranks and their intervals are those of statistics."""

import numpy as np
import pytest
from networks import one_torch_thread, random_windows, saved, tiny  # noqa: F401
from scipy.stats import spearmanr
from sources import gaussian

from rdlib.engine import Noisy, Variant, walk
from rdlib.functional.proxies import error_sizes, slope, spearman, with_noise
from rdlib.measure import output_error

NAME = "model.layers.1.mlp.up_proj.weight"


def moments(n: int, seed: int = 0) -> np.ndarray:
    """A random H with strong and weak directions."""
    X = gaussian((3 * n, n), np.float64, seed) * np.geomspace(0.1, 10, n)
    return X.T @ X / len(X)


def test_sizes_are_their_formulas():
    W, E, H = gaussian((12, 20)), 0.1 * gaussian((12, 20), np.float64, 1), moments(20)
    W_hat = (W - E).astype(np.float32)
    E = W.astype(np.float64) - W_hat
    sizes = error_sizes(W, W_hat, H)
    assert sizes["squared"] == pytest.approx((E**2).sum())
    assert sizes["relative"] == pytest.approx((E**2).sum() / (W.astype(float) ** 2).sum())
    assert sizes["diagonal"] == pytest.approx(np.trace(E @ np.diag(np.diag(H)) @ E.T))
    assert sizes["output"] == pytest.approx(np.trace(E @ H @ E.T))
    assert sizes["output"] == pytest.approx(12 * output_error(E, H))


def test_with_inputs_that_are_all_alike_every_size_is_the_squared_error():
    W, W_hat = gaussian((12, 20)), gaussian((12, 20), seed=1)
    sizes = error_sizes(W, W_hat, 3 * np.eye(20))
    assert sizes["diagonal"] == pytest.approx(3 * sizes["squared"])
    assert sizes["output"] == pytest.approx(3 * sizes["squared"])
    assert sizes["relative_output"] == pytest.approx(sizes["relative"])


def test_white_errors_have_the_same_relative_size_in_weights_and_output():
    W, H = gaussian((2000, 20)), moments(20)
    sizes = error_sizes(W, with_noise(W, 0.01), H)
    assert sizes["relative"] == pytest.approx(0.01, rel=1e-5)
    assert sizes["relative_output"] == pytest.approx(0.01, rel=0.1)


def test_no_error_has_no_size():
    W = gaussian((3, 20))
    assert set(error_sizes(W, W, moments(20)).values()) == {0.0}
    assert set(error_sizes(0 * W, 0 * W, moments(20)).values()) == {0.0}


@pytest.mark.parametrize("relative", [1e-6, 0.01, 4.0])
def test_noise_is_exactly_as_large_as_was_asked_and_seeded(relative):
    W = gaussian((40, 30))
    noisy_W = with_noise(W, relative)
    E = noisy_W.astype(np.float64) - W
    assert (E**2).sum() / (W.astype(float) ** 2).sum() == pytest.approx(relative, rel=1e-3)
    assert noisy_W.dtype == np.float32 and (with_noise(W, relative) == noisy_W).all()
    assert (with_noise(W, relative, seed=1) != noisy_W).any()


def test_a_slope_goes_through_the_origin():
    x = np.array([1.0, 2, 5])
    assert slope(x, 3 * x) == pytest.approx(3)
    y = np.array([2.0, 1, 4])
    best = slope(x, y)
    assert all(((y - best * x) ** 2).sum() < ((y - a * x) ** 2).sum() for a in (best - 0.01, best + 0.01))


def test_small_noise_costs_divergence_in_proportion_to_its_square(tmp_path):
    """The linearity law, where it is a theorem: KL = α t² + O(t³)."""
    sizes = [1e-6, 4e-6, 1.6e-5]
    noises = [Variant.by(size, [NAME], Noisy(size)) for size in sizes]
    outputs = walk(saved(tiny(), tmp_path), noises, random_windows(40), device="cpu").outputs
    kl = np.array([outputs[size].kl.mean for size in sizes])
    ratio = kl / sizes
    assert ratio.max() < 1.05 * ratio.min()
    assert slope(sizes, kl) == pytest.approx(ratio[-1], rel=0.05)


def test_small_noise_in_two_tensors_costs_the_sum(tmp_path):
    """To the mixed term, which is zero on average over independent noise."""
    names = [NAME, "model.layers.0.self_attn.v_proj.weight"]
    pairs = [[Variant.by((seed, name), [name], Noisy(1e-6, seed)) for name in names] for seed in range(8)]
    both = [Variant((seed, "both"), one.sources | two.sources) for seed, (one, two) in enumerate(pairs)]
    every = [*(variant for pair in pairs for variant in pair), *both]
    outputs = walk(saved(tiny(), tmp_path), every, random_windows(40), device="cpu").outputs
    together = sum(outputs[variant.label].kl.mean for variant in both)
    apart = sum(functional.kl.mean for functional in outputs.values()) - together
    assert together == pytest.approx(apart, rel=0.15)


# Ranks


def test_ranks_correlate_as_scipy_says_ties_included():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, 60)
    y = x + rng.integers(0, 8, 60)
    found = spearman(x, y, resamples=20, seed=5)
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)
    drawn = np.random.default_rng(5).multinomial(60, np.full(60, 1 / 60), 20)
    for rho, counts in zip(found.resampled, drawn, strict=True):
        assert rho == pytest.approx(spearmanr(np.repeat(x, counts), np.repeat(y, counts)).statistic)


def test_only_the_order_matters():
    x = np.random.default_rng(1).random(50)
    assert spearman(x, np.exp(9 * x)).rho == pytest.approx(1)
    assert spearman(x, -(x**3)).interval() == pytest.approx((-1, -1))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """ρ of a bivariate Gaussian is 6/π · asin(r/2)."""
    rng, r = np.random.default_rng(2), 0.6
    truth, covered = 6 / np.pi * np.arcsin(r / 2), 0
    for seed in range(150):
        x = rng.standard_normal(60)
        y = r * x + (1 - r * r) ** 0.5 * rng.standard_normal(60)
        low, high = spearman(x, y, resamples=200, seed=seed).interval(0.9)
        covered += low < truth < high
    assert 0.82 < covered / 150 < 0.96


def test_clusters_are_drawn_together():
    """Points that are written down ten times are no more points than they were."""
    rng = np.random.default_rng(3)
    x, y = rng.random(30), rng.random(30)
    labels = np.repeat(np.arange(30), 10)
    once = np.subtract(*spearman(x, y).interval())
    copied = np.subtract(*spearman(np.repeat(x, 10), np.repeat(y, 10), labels).interval())
    blind = np.subtract(*spearman(np.repeat(x, 10), np.repeat(y, 10)).interval())
    assert copied == pytest.approx(once, rel=0.02) and abs(blind) < 0.5 * abs(once)
    named = spearman(np.repeat(x, 10), np.repeat(y, 10), np.char.add("tensor ", labels.astype(str)))
    assert named.rho == pytest.approx(spearman(x, y).rho)


def test_two_proxies_are_resampled_alike():
    rng = np.random.default_rng(4)
    y = rng.random(40)
    good, better = y + 0.5 * rng.random(40), y + 0.3 * rng.random(40)
    difference = spearman(better, y).resampled - spearman(good, y).resampled
    assert difference.std() < spearman(good, y).resampled.std() * 1.2
    assert (spearman(good, y).resampled == spearman(good, y).resampled).all()
    assert (spearman(good, y, seed=1).resampled != spearman(good, y).resampled).any()


def test_what_has_no_rank_is_refused():
    with pytest.raises(ValueError, match="NaN has no rank"):
        spearman([1, 2, np.nan], [1, 2, 3])
    for x, y in (([1, 2], [1, 2, 3]), ([], []), ([1], [1]), ([[1, 2]], [[1, 2]])):
        with pytest.raises(ValueError, match="cannot be compared"):
            spearman(x, y)
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]).rho)


@pytest.mark.parametrize("clusters", [None, [0, 0, 1, 1, 2, 2]])
def test_few_clusters_have_no_interval(clusters):
    """Of three points or clusters one draw in nine is a single one, and has no ranks."""
    x = np.random.default_rng(0).random(6 if clusters else 3)
    found = spearman(x, x**2, clusters)
    assert found.rho == pytest.approx(1)
    with pytest.raises(ValueError, match="3 clusters are too few for an interval: at least 6"):
        found.interval()


def test_an_interval_of_six_is_made_of_numbers():
    for seed in range(20):
        x, y = np.random.default_rng(seed).random((2, 6))
        low, high = spearman(x, y, seed=seed).interval()
        assert -1 - 1e-9 <= low <= high <= 1 + 1e-9
    assert np.isnan(spearman([1] * 6, range(6)).interval()).all()
