"""Distances between outputs: 0 from itself, equal to a plain computation, and within what theorems allow."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from networks import (
    TRAINED,
    VOCABULARY,
    Reference,
    bfloat16_rounding,
    compare,
    compare_logits,
    logits_of,
    noisy,
    one_torch_thread,  # noqa: F401
    random_windows,
    tiny,
    trained,
)
from transformers import AutoModelForCausalLM

import rdlib.functional.divergence
from rdlib.functional.divergence import QUANTILES, TOP, PerToken
from rdlib.network.network import replaced
from rdlib.network.windows import Windows, cut_windows
from rdlib.quantizers import PerGroup, Uniform

QUANTITIES = (
    "kl",
    "kl_top",
    "reverse_kl",
    "total_variation",
    "logits_mse",
    "centred_mse",
    "agreement",
    "loss",
    "reference_loss",
)
DOWN = "model.layers.2.mlp.down_proj.weight"


def between(P: torch.Tensor, Q: torch.Tensor) -> rdlib.functional.divergence.Functional:
    """From logits P to logits Q, both (vocabulary,), at one prediction of token 0."""
    windows = Windows(np.zeros((1, 2), np.int64), 1)
    return compare_logits(Q[None, None], SimpleNamespace(windows=windows, logits=P[None, None]))


def plain(P, Q, targets: np.ndarray) -> dict[str, np.ndarray]:
    """The quantities token by token, written down as in a textbook, from logits (predictions, vocabulary)."""
    P, Q = (np.asarray(z, np.float64) for z in (P, Q))
    p, q = (np.exp(z) / np.exp(z).sum(axis=1, keepdims=True) for z in (P, Q))
    d = P - Q
    place = np.arange(len(targets))
    order = np.argsort(-p, axis=1, kind="stable")
    p_top, q_top = (np.take_along_axis(x, order, axis=1) for x in (p, q))
    p_top, q_top = (np.c_[x[:, :TOP], x[:, TOP:].sum(axis=1) + 1e-300] for x in (p_top, q_top))
    return {
        "kl": (p * np.log(p / q)).sum(axis=1),
        "kl_top": (p_top * np.log(p_top / q_top)).sum(axis=1),
        "reverse_kl": (q * np.log(q / p)).sum(axis=1),
        "total_variation": abs(p - q).sum(axis=1) / 2,
        "logits_mse": (d**2).mean(axis=1),
        "centred_mse": d.var(axis=1),
        "agreement": (p.argmax(axis=1) == q.argmax(axis=1)).astype(float),
        "loss": -np.log(q[place, targets]),
        "reference_loss": -np.log(p[place, targets]),
    }


def assert_is_plain(functional, one, other, windows):
    """Window by window through plain calls of two networks, one of them the reference."""
    for k, ids in enumerate(windows.ids):
        inputs = torch.from_numpy(ids[None, :-1])
        with torch.no_grad():
            P, Q = (network(inputs).logits[0, -windows.stride :] for network in (one, other))
        for name, values in plain(P, Q, ids[-windows.stride :]).items():
            np.testing.assert_allclose(getattr(functional, name).values[k], values, rtol=1e-5, atol=1e-5)


# Against a plain computation


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", [{}, {"stride": 5}, {"bos": 0}, {"stride": 5, "bos": 0}], ids=str)
def test_a_random_network_agrees_with_a_plain_loop(how, tied):
    windows, one, other = random_windows(**how), tiny(tied), tiny(tied)
    for name, values in noisy(one, DOWN, "model.embed_tokens.weight").items():
        other.get_parameter(name).data = torch.from_numpy(values)
    reference = Reference(one, windows)
    assert_is_plain(compare(other, reference), one, other, windows)


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_a_quantized_model_agrees_with_a_plain_loop(folder):
    network, checkpoint, windows = trained(folder)
    quantizer = Uniform(3, PerGroup(size=64))
    tensors = {
        w.name: quantizer.decode(quantizer.encode(checkpoint.tensor(w)))
        for w in checkpoint.weights
        if w.layer >= 0
    }
    reference = Reference(network, windows)
    with replaced(network, tensors):
        functional = compare(network, reference)
    one, other = (AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for _ in range(2))
    for name, values in tensors.items():
        other.get_parameter(name).data = torch.from_numpy(values)
    assert_is_plain(functional, one, other, windows)
    with torch.no_grad():
        ids = torch.from_numpy(windows.ids[:, :-1])
        P, Q = (m(ids).logits.double().log_softmax(-1).flatten(0, 1) for m in (one, other))
    target = torch.from_numpy(windows.targets).flatten()
    cross_entropy = torch.nn.functional.nll_loss
    assert functional.kl.mean == pytest.approx(
        torch.nn.functional.kl_div(Q, P, reduction="batchmean", log_target=True).item(), rel=1e-5
    )
    assert functional.agreement.mean == (P.argmax(-1) == Q.argmax(-1)).double().mean()
    assert functional.perplexity == pytest.approx(cross_entropy(Q, target).exp().item(), rel=1e-5)
    assert functional.reference_perplexity == pytest.approx(cross_entropy(P, target).exp().item(), rel=1e-5)
    assert functional.ln_perplexity_ratio.mean == pytest.approx(
        (cross_entropy(Q, target) - cross_entropy(P, target)).item(), abs=1e-6
    )
    assert functional.kl.mean > 0.02, "three bits are not nothing"


# Theorems


@pytest.mark.parametrize("how", [{}, {"stride": 5, "bos": 0}], ids=str)
def test_a_network_is_no_distance_from_itself(how):
    """Not almost 0: 0."""
    network = tiny()
    reference = Reference(network, random_windows(25, **how))
    with replaced(network, {DOWN: network.get_parameter(DOWN).numpy().copy()}):
        functional = compare(network, reference)
    for name in ("kl", "kl_top", "reverse_kl", "total_variation", "logits_mse", "centred_mse"):
        assert not getattr(functional, name).values.any()
    assert (functional.agreement.values == 1).all() and functional.agreement.error == 0
    assert not functional.ln_perplexity_ratio.values.any()
    assert functional.perplexity == functional.reference_perplexity


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_a_trained_network_is_no_distance_from_itself_after_it_was_changed(folder):
    network, _, windows = trained(folder)
    reference = Reference(network, windows)
    with replaced(network, noisy(network, "model.layers.0.mlp.up_proj.weight")):
        assert compare(network, reference).kl.mean > 1e-4
    assert not compare(network, reference).kl.values.any()


@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0])
def test_distances_keep_to_their_inequalities(size):
    network = tiny()
    reference = Reference(network, random_windows(40))
    with replaced(network, noisy(network, DOWN, "model.layers.0.self_attn.v_proj.weight", size=size)):
        f = compare(network, reference)
    assert (f.kl.values > -1e-14).all() and (f.reverse_kl.values > -1e-14).all(), "Gibbs"
    for kl in (f.kl, f.reverse_kl):
        assert (f.total_variation.values <= np.sqrt(kl.values.clip(0) / 2) + 1e-12).all(), "Pinsker"
    assert (f.total_variation.values <= 1).all()
    assert (f.centred_mse.values <= f.logits_mse.values + 1e-15).all() and (f.centred_mse.values >= 0).all()
    assert set(np.unique(f.agreement.values)) <= {0, 1}


def test_small_changes_cost_half_their_variance():
    """KL(P‖Q) = ½ Var_P(d) + O(d³), d = z_p − z_q, in both directions, to the precision of float64."""
    rng = np.random.default_rng(0)
    P, d = (torch.from_numpy(rng.standard_normal(1000)) for _ in range(2))
    for size in (1e-2, 1e-4, 1e-6):
        f = between(P, P - size * d)
        p = P.softmax(-1)
        half = 0.5 * size**2 * float((p * (d - (p * d).sum()) ** 2).sum())
        for kl in (f.kl.mean, f.reverse_kl.mean):
            assert kl == pytest.approx(half, rel=3 * size, abs=1e-15)


@pytest.mark.parametrize("shift", [-7.0, 0.5, 300.0])
def test_a_shift_of_all_logits_changes_no_probability(shift):
    P = torch.from_numpy(np.random.default_rng(1).normal(0, 5, 200))
    f = between(P, P + shift)
    assert f.logits_mse.mean == pytest.approx(shift**2)
    assert abs(f.kl.mean) < 1e-12 and abs(f.total_variation.mean) < 1e-12 and f.centred_mse.mean < 1e-20
    assert f.loss.mean == pytest.approx(f.reference_loss.mean)


@pytest.mark.parametrize("vocabulary", [2, TOP, TOP + 1, 5000])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0])
def test_a_truncated_divergence_is_a_lower_bound(vocabulary, size):
    """Log-sum inequality: taking tokens as one loses information, and none where no token is lost."""
    rng = np.random.default_rng(vocabulary)
    P, E = (torch.from_numpy(rng.normal(0, 3, vocabulary)) for _ in range(2))
    Q = P + size * E
    f = between(P, Q)
    assert f.kl_top.mean == pytest.approx(plain(P[None], Q[None], np.array([0]))["kl_top"][0], rel=1e-9)
    assert -1e-12 < f.kl_top.mean <= f.kl.mean * (1 + 1e-12)
    assert (f.kl_top.mean == pytest.approx(f.kl.mean, rel=1e-9)) == (vocabulary <= TOP + 1)


@pytest.mark.parametrize("c", [0.1, 3.0, 60.0, 800.0])
def test_a_uniform_and_a_peaked_distribution_have_a_closed_form(c):
    """P uniform over V, Q with one logit at c: KL(P‖Q) = ln((V − 1 + eᶜ)/V) − c/V, however improbable."""
    V = 64
    P, Q = torch.zeros(V, dtype=torch.float64), torch.zeros(V, dtype=torch.float64)
    Q[0] = c
    f = between(P, Q)
    log_sum = np.logaddexp(math.log(V - 1), c)
    q0 = math.exp(c - log_sum)
    assert f.kl.mean == pytest.approx(log_sum - math.log(V) - c / V, rel=1e-12)
    assert f.reverse_kl.mean == pytest.approx(math.log(V) - log_sum + c * q0, rel=1e-12)
    assert f.total_variation.mean == pytest.approx(q0 - 1 / V, rel=1e-12)
    assert f.loss.mean == pytest.approx(log_sum - c, abs=1e-12)


def test_disjoint_distributions_are_as_far_apart_as_can_be():
    P, Q = torch.tensor([900.0, 0, 0]), torch.tensor([0, 900.0, 0])
    f = between(P, Q)
    assert f.total_variation.mean == 1 and f.kl.mean == f.reverse_kl.mean == 900 and f.agreement.mean == 0


# Not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_counted_and_not_averaged_away(bad):
    network, windows = tiny(), random_windows()
    reference = Reference(network, windows)
    logits = logits_of(network, windows).clone()
    logits[1, 3, 7] = bad
    logits[2, 5] = bad
    functional = compare_logits(logits, reference)
    assert functional.non_finite == 2 == functional.row["non_finite"]
    for name in QUANTITIES:
        values = getattr(functional, name).values
        assert np.argwhere(np.isnan(values)).tolist() == [[1, 3], [2, 5]]
        assert math.isnan(getattr(functional, name).mean)
    assert math.isnan(functional.kl.quantile(0.5)) and math.isnan(functional.perplexity)


# Errors, quantiles, tables


def test_errors_take_windows_as_clusters():
    """Predictions that are equal within a window are one observation, however many they are."""
    means = np.random.default_rng(0).standard_normal(30)
    alike = PerToken(np.repeat(means[:, None], 50, axis=1))
    assert alike.error == pytest.approx(means.std(ddof=1) / math.sqrt(30))
    apart = PerToken(np.random.default_rng(1).standard_normal((300, 50)))
    assert apart.error == pytest.approx(1 / math.sqrt(300 * 50), rel=0.2)
    assert math.isnan(PerToken(np.ones((1, 50))).error)


def test_the_error_is_that_of_the_mean():
    """Over many texts the mean lies within 1.96 errors of the truth in 95 % of them."""
    rng = np.random.default_rng(2)
    texts = rng.standard_normal((2000, 40, 1)) + 0.5 * rng.standard_normal((2000, 40, 10))
    covered = [abs((x := PerToken(text)).mean) < 1.96 * x.error for text in texts]
    assert 0.92 < np.mean(covered) < 0.97


def test_a_paired_difference_knows_what_two_networks_share():
    rng = np.random.default_rng(3)
    hardness = 5 * rng.standard_normal((20, 1))
    one, other = (PerToken(hardness + 0.1 * rng.standard_normal((20, 30))) for _ in range(2))
    assert (one - other).error < 0.02 * one.error
    assert (one - other).mean == pytest.approx(one.mean - other.mean)


def test_agreement_has_the_error_of_all_others():
    """That of the means of windows: tokens of one window are not independent draws."""
    network = tiny()
    reference = Reference(network, random_windows(40))
    with replaced(network, noisy(network, DOWN, size=1.0)):
        f = compare(network, reference)
    shares = f.agreement.values.mean(axis=1)
    assert 0.2 < f.agreement.mean < 1
    assert f.row["agreement_error"] == pytest.approx(shares.std(ddof=1) / math.sqrt(40))


def test_a_row_holds_every_number_and_the_protocol():
    network, windows = tiny(), random_windows(stride=5, bos=0)
    reference = Reference(network, windows)
    with replaced(network, noisy(network, DOWN)):
        f = compare(network, reference)
    row = pd.DataFrame([f.row]).iloc[0]
    assert row.kl == f.kl.values.mean() and row.kl_bits == pytest.approx(row.kl / math.log(2))
    assert row.kl_median <= row.kl_p90 <= row.kl_p99 <= row.kl_p999 <= row.kl_max == f.kl.values.max()
    assert row.kl_median == np.median(f.kl.values)
    assert row.ln_perplexity_ratio == pytest.approx(math.log(row.perplexity / row.reference_perplexity))
    assert (row.windows, row.window, row.stride, row.bos) == (5, 12, 5, True)
    assert (row.predictions, row.non_finite) == (25, 0)
    assert not pd.isna(row).any()


def test_a_quantile_is_what_so_many_predictions_do_not_exceed():
    values = np.random.default_rng(0).permutation(np.arange(10_001.0)).reshape(73, 137)
    shown = {"median": 5000, "p90": 9000, "p99": 9900, "p999": 9990, "max": 10_000}
    assert {name: PerToken(values).quantile(share) for name, share in QUANTILES.items()} == shown


def test_a_perplexity_beyond_all_numbers_is_infinite():
    f = between(torch.zeros(3), torch.tensor([-3000.0, 0, 0]))
    assert f.perplexity == math.inf and f.loss.mean > 2999


# The noise floor


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_bfloat16_costs_about_what_eight_bits_cost(folder):
    """The floor lies below four bits by far; an eight-bit grid is within a factor of ten of it."""
    network, checkpoint, windows = trained(folder)
    reference = Reference(network, windows)
    with bfloat16_rounding(network):
        floor = compare(network, reference).kl.mean
    found = {}
    for bits in (4, 8):
        quantizer = Uniform(bits, PerGroup(size=64))
        layers = [w for w in checkpoint.weights if w.layer >= 0]
        with replaced(
            network, {w.name: quantizer.decode(quantizer.encode(checkpoint.tensor(w))) for w in layers}
        ):
            found[bits] = compare(network, reference).kl.mean
    assert 0 < floor < found[4] / 50 and floor / 10 < found[8] < 10 * floor


def test_perplexity_is_that_of_every_token_once():
    """Windows side by side count what a loop over the stream counts."""
    network = tiny()
    tokens = np.random.default_rng(4).integers(0, VOCABULARY, 61)
    total = 0.0
    for start in range(0, 60, 12):
        part = torch.from_numpy(tokens[None, start : start + 13])
        total += float(network(part, labels=part).loss) * 12
    functional = compare(network, Reference(network, cut_windows(tokens, 12)))
    assert functional.perplexity == pytest.approx(math.exp(total / 60), rel=1e-5)
