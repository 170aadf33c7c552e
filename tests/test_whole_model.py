"""The limit of a whole model, and the curvature of the KL that it takes, against brute force."""

import copy

import numpy as np
import pytest
import torch
from networks import VOCABULARY, one_torch_thread, saved, sliding, tiny  # noqa: F401
from torch.nn.attention import SDPBackend, sdpa_kernel

from rdlib.engine import curvature
from rdlib.measure import output_error
from rdlib.network.windows import Windows
from rdlib.quantizers import EcsqCentroid, FeedbackTrellis, Rotated, WaterSIC
from rdlib.theory import ModelLimit, Share, gaussian_rate, output_rate, spectrum, water_filling


def exponential(*sizes: int, seed: int = 0) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.exponential(size=n) for n in sizes]


def components(alpha: float, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """All shares of a matrix, written out."""
    return alpha * np.outer(rows / rows.sum(), columns / columns.sum()).ravel()


# --- theory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kl", [1e-9, 1e-4, 0.01, 0.3, 1.0, 2.4])
def test_it_is_reverse_water_filling_over_every_weight(kl):
    a, b, c, d = exponential(30, 20, 8, 12)
    d[:2] = 0  # outputs that nothing depends on
    limit = ModelLimit({"a": Share(0.5, a, b), "b": Share(2.0, c, np.ones(5)), "c": Share(0.1, a, d)})
    every = np.concatenate([components(0.5, a, b), components(2.0, c, np.ones(5)), components(0.1, a, d)])
    filled = water_filling(every, kl / len(every))
    assert limit.weights == len(every)
    assert limit.rate(kl) == pytest.approx(filled.rate, rel=1e-9)
    assert limit.level(kl) == pytest.approx(filled.level, rel=1e-9)
    assert limit.kl(filled.rate) == pytest.approx(kl, rel=1e-9)
    shared = limit.rates(kl)
    assert sum(shared[k] * limit.shares[k].weights for k in shared) == pytest.approx(filled.rate * len(every))


def test_of_one_matrix_it_is_the_limit_of_its_output():
    (λ,) = exponential(40)
    limit = ModelLimit({"only": Share(3.0, λ, np.ones(7))})
    for relative in (1e-3, 0.1, 0.7):
        assert limit.rate(3.0 * relative) == pytest.approx(output_rate(λ, relative * λ.sum()), rel=1e-9)


def test_two_white_matrices_share_bits_by_their_alpha():
    """Each has one variance, so that half a bit separates what differs twofold in KL a weight."""
    limit = ModelLimit({"a": Share(1.0, np.ones(8), np.ones(4)), "b": Share(16.0, np.ones(8), np.ones(4))})
    rates = limit.rates(1e-3)
    assert rates["b"] - rates["a"] == pytest.approx(2.0)
    assert rates["a"] == pytest.approx(gaussian_rate(0.5e-3, 1.0))


def test_beyond_all_of_it_nothing_is_spent():
    (λ,) = exponential(10)
    limit = ModelLimit({"a": Share(1.0, λ, np.ones(3)), "dead": Share(0.0, λ, np.ones(3))})
    assert limit.rate(1.0) == limit.rate(5.0) == 0
    assert limit.kl(0.0) == pytest.approx(limit.zero_rate_kl)
    assert limit.rates(0.01)["dead"] == 0


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_what_differs_more_costs_less(spread):
    """At equal α, inputs or outputs of unequal weight can only lower the rate."""
    z = np.random.default_rng(1).standard_normal(50)
    flat = ModelLimit({"a": Share(1.0, np.ones(50), np.ones(20))}).rate(0.01)
    assert ModelLimit({"a": Share(1.0, np.exp(spread * z), np.ones(20))}).rate(0.01) <= flat + 1e-12
    assert (
        ModelLimit({"a": Share(1.0, np.exp(spread * z), np.exp(spread * z[:20]))}).rate(0.01) <= flat + 1e-12
    )


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: Share(-1.0, np.ones(3), np.ones(2)), "α"),
        (lambda: Share(1.0, np.array([1, np.nan]), np.ones(2)), "NaN"),
        (lambda: Share(1.0, np.zeros(3), np.ones(2)), "direction"),
        (lambda: ModelLimit({}), "at least one matrix"),
        (lambda: ModelLimit({"a": Share(0.0, np.ones(3), np.ones(2))}), "at least one matrix"),
        (lambda: ModelLimit({"a": Share(1.0, np.ones(3), np.ones(2))}).rate(0.0), "not positive"),
        (lambda: ModelLimit({"a": Share(1.0, np.ones(3), np.ones(2))}).rate(np.nan), "not positive"),
        (lambda: ModelLimit({"a": Share(1.0, np.ones(3), np.ones(2))}).kl(-1.0), "negative"),
    ],
)
def test_refused_in_a_sentence(act, words):
    with pytest.raises(ValueError, match=words):
        act()


def test_no_code_of_gaussian_weights_passes_it():
    """Two matrices whose inputs differ in every direction; α weighs their outputs."""
    random, spent, errors, shares = np.random.default_rng(3), {}, {}, {}
    for name, (alpha, shape) in {"a": (1.0, (48, 32)), "b": (5.0, (32, 64))}.items():
        X = random.standard_normal((4 * shape[1], shape[1])) * np.exp(random.standard_normal(shape[1]))
        H, W = X.T @ X / len(X), random.standard_normal(shape).astype(np.float32)
        power = float(np.mean(W.astype(float) ** 2))
        shares[name] = Share(alpha, spectrum(H), np.ones(shape[0]))
        for q in (EcsqCentroid(3), WaterSIC(2), WaterSIC(3), FeedbackTrellis(3), Rotated(WaterSIC(3))):
            code = q.encode(W, H)
            relative = output_error(W - q.decode(code), H) / (power * np.trace(H))
            spent[q] = spent.get(q, 0) + code.rate * W.size
            errors[q] = errors.get(q, 0) + alpha * relative
    limit = ModelLimit(shares)
    assert all(spent[q] / limit.weights > limit.rate(errors[q]) for q in spent)


# --- curvature -------------------------------------------------------------------------------------------


def exact_hessian(network: torch.nn.Module, name: str, windows: Windows) -> torch.Tensor:
    """Of the mean KL(P‖Q) over the predictions that count, with respect to one matrix, by automatic differentiation."""
    ids, W = torch.from_numpy(windows.ids[:, :-1]), network.get_parameter(name).detach().double()
    network = copy.deepcopy(network).double()
    before = network(ids).logits[:, -windows.stride :].log_softmax(-1)

    def kl(flat: torch.Tensor) -> torch.Tensor:
        logits = torch.func.functional_call(network, {name: flat.view_as(W)}, (ids,)).logits
        after = logits[:, -windows.stride :].log_softmax(-1)
        return (before.exp() * (before - after)).sum(-1).mean()

    with sdpa_kernel(SDPBackend.MATH):  # the fast kernels have no second derivative
        return torch.autograd.functional.hessian(kl, W.flatten())


def repeated(ids: np.ndarray, times: int, stride: int) -> Windows:
    """The same windows many times, each with labels of its own."""
    return Windows(np.tile(ids, (times, 1)), stride)


MATRICES = ["model.layers.0.self_attn.v_proj.weight", "model.layers.1.self_attn.q_proj.weight"]
MATRICES += ["model.layers.0.mlp.down_proj.weight", "model.layers.1.mlp.gate_proj.weight"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    network = tiny(layers=2)
    return network, saved(network, tmp_path_factory.mktemp("toy"))


def found(checkpoint, windows, **how):
    return {name: c for layer in curvature(checkpoint, windows, **how) for name, c in layer.items()}


def test_with_one_token_the_kronecker_form_is_the_hessian_of_the_kl(toy):
    network, checkpoint = toy
    ids = np.array([[3, 5]])
    curved = found(checkpoint, repeated(ids, 2500, 1))
    for name in MATRICES[:1] + MATRICES[2:]:  # one token attends to itself, whatever its query
        hessian, form = exact_hessian(network, name, Windows(ids, 1)).numpy(), curved[name]
        assert np.abs(np.kron(form.G, form.H) - hessian).max() < 0.08 * np.abs(hessian).max()
        assert form.trace == pytest.approx(hessian.trace(), rel=0.06)
        assert form.kronecker_trace == pytest.approx(form.trace, rel=1e-4)


@pytest.mark.parametrize("stride", [6, 3])
def test_the_trace_is_that_of_the_hessian_of_the_kl(toy, stride):
    network, checkpoint = toy
    ids = np.random.default_rng(2).integers(0, VOCABULARY, (2, 7))
    curved = found(checkpoint, repeated(ids, 800, stride))
    for name in MATRICES:
        hessian = exact_hessian(network, name, Windows(ids, stride))
        assert curved[name].trace == pytest.approx(float(hessian.trace()), rel=0.08)


def test_gradients_pass_sliding_windows(tmp_path):
    network = sliding()
    checkpoint = saved(network, tmp_path / "model")
    ids = np.random.default_rng(2).integers(0, VOCABULARY, (1, 9))
    name = "model.layers.1.self_attn.k_proj.weight"
    curved = found(checkpoint, repeated(ids, 1500, 8))[name]
    assert curved.trace == pytest.approx(
        float(exact_hessian(network, name, Windows(ids, 8)).trace()), rel=0.08
    )


def test_it_does_not_depend_on_where_states_are_kept(toy):
    _, checkpoint = toy
    windows = repeated(np.random.default_rng(2).integers(0, VOCABULARY, (5, 9)), 1, 8)
    here, there = found(checkpoint, windows), found(checkpoint, windows, in_memory=0)
    assert here.keys() == there.keys() and len(here) == 14
    for name in here:
        np.testing.assert_array_equal(here[name].G, there[name].G)
        assert here[name].trace == there[name].trace
    other = found(checkpoint, windows, seed=1)
    assert other[MATRICES[0]].trace != here[MATRICES[0]].trace, "labels are drawn"
