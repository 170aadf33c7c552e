"""Second moments are those of the inputs, predict the error of an output, and are shared by who reads the same."""

import re

import numpy as np
import pytest
import torch
from networks import (
    DEVICES,
    TRAINED,
    Reference,
    compare,
    noisy,
    one_torch_thread,  # noqa: F401
    random_windows,
    saved,
    tiny,
    trained,
)

from rdlib.engine import Layers, Moments, bias_of_limits, second_moments
from rdlib.engine.layers import STAGES
from rdlib.measure import measure, output_error
from rdlib.models.checkpoint import Weight
from rdlib.network.network import replaced
from rdlib.quantizers import Uniform

LINEAR = [f"self_attn.{g}_proj" for g in "qkvo"] + [f"mlp.{g}_proj" for g in ("gate", "up", "down")]


def observed(network, windows) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs and outputs of every linear module, in float64, window by window."""
    seen = {name: ([], []) for name, m in network.named_modules() if isinstance(m, torch.nn.Linear)}
    hooks = []
    for name, (inputs, outputs) in seen.items():

        def keep(_, x, y, inputs=inputs, outputs=outputs):
            inputs.append(x[0].flatten(0, -2).double())
            outputs.append(y.flatten(0, -2).double())

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        for ids in windows.ids:
            network(torch.from_numpy(ids[None, :-1]))
    for hook in hooks:
        hook.remove()
    return {name: tuple(torch.cat(part).numpy() for part in parts) for name, parts in seen.items()}


def assert_is_mean_of_products(moments: Moments, seen: dict) -> None:
    for name, (X, _) in seen.items():
        H = X.T @ X / len(X)
        scale = np.sqrt(np.outer(H.diagonal(), H.diagonal())) + 1e-30
        assert abs((moments[f"{name}.weight"] - H) / scale).max() < 2e-6, name


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", [{}, {"stride": 5, "bos": 0}], ids=str)
def test_they_are_the_mean_of_the_products_of_all_inputs(tmp_path, how, tied):
    network, windows = tiny(tied), random_windows(250, **how)
    assert len(list(windows.batches)) > 1
    moments = second_moments(saved(network, tmp_path), windows)
    assert moments.tokens == 250 * 12
    assert_is_mean_of_products(moments, observed(network, windows))


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_they_are_right_to_float32_on_a_trained_network(folder):
    network, checkpoint, windows = trained(folder)
    moments, seen = second_moments(checkpoint, windows), observed(network, windows)
    assert_is_mean_of_products(moments, seen)
    for weight in checkpoint.layer(0):
        X, H = seen[weight.name.removesuffix(".weight")][0], moments[weight]
        assert np.linalg.norm(H - X.T @ X / len(X)) < 1e-6 * np.linalg.norm(H)


def test_those_of_some_layers_are_the_same_and_the_network_runs_no_further(tmp_path, monkeypatch):
    checkpoint, windows, ran = saved(tiny(), tmp_path), random_windows(20), []
    every, layer = second_moments(checkpoint, windows), Layers.layer
    monkeypatch.setattr(Layers, "layer", lambda self, number: ran.append(number) or layer(self, number))
    some = second_moments(checkpoint, windows, layers=[0, 1])
    assert len(some.inputs) == 2 * len(STAGES) and ran == [0, 1]
    assert all((H == every.inputs[name]).all() for name, H in some.inputs.items())
    with pytest.raises(ValueError, match="has the layers 0 … 2, and no layer 3"):
        second_moments(checkpoint, windows, layers=[1, 3])


@pytest.mark.parametrize(
    ("tokens", "words"), [(1_536 * 20, "20 for each of the 1,536 .* by 0.02 bit"), (6_144, "0.10")]
)
def test_a_limit_from_few_tokens_is_shown_with_its_bias(tokens, words):
    assert re.search(words, bias_of_limits(1_536, tokens))


def test_they_are_symmetric_positive_and_read_only(tmp_path):
    moments = second_moments(saved(tiny(), tmp_path), random_windows(20))
    assert len(moments.inputs) == 3 * len(STAGES) + 1
    for H in moments.inputs.values():
        assert H.dtype == np.float64 and (H.T == H).all()
        assert np.linalg.eigvalsh(H)[0] > -1e-6 * np.trace(H)
        with pytest.raises(ValueError, match="read-only"):
            H[0, 0] = 1


def test_who_reads_the_same_input_has_the_same_array(tmp_path):
    moments = second_moments(saved(tiny(), tmp_path), random_windows())
    arrays = [id(moments[f"model.layers.1.{name}.weight"]) for name in LINEAR]
    q, k, v, o, gate, up, down = arrays
    assert q == k == v and gate == up and len({q, o, gate, down}) == 4


def test_a_weight_is_a_name(tmp_path):
    moments, name = (
        second_moments(saved(tiny(), tmp_path), random_windows()),
        "model.layers.2.mlp.up_proj.weight",
    )
    assert moments[Weight(name, 2, "up", (24, 16), "F32")] is moments[name]
    for other in ("model.embed_tokens.weight", "model.norm.weight", "model.layers.3.mlp.up_proj.weight"):
        with pytest.raises(ValueError, match=f"{other} is the matrix of no linear layer"):
            _ = moments[other]


def test_the_error_of_an_output_is_what_they_say(tmp_path):
    """tr(E H Eᵀ) / out is the mean squared change of the module's output on the very same inputs."""
    network, windows = tiny(), random_windows(30)
    moments, seen = second_moments(saved(network, tmp_path), windows), observed(network, windows)
    for name, (X, Y) in seen.items():
        W = network.get_submodule(name).weight.numpy()
        quantizer = Uniform(3)
        W_hat = quantizer.decode(quantizer.encode(W))
        change = ((Y - X @ W_hat.T.astype(np.float64)) ** 2).mean()
        H = moments[f"{name}.weight"]
        assert output_error(W - W_hat.astype(np.float64), H) == pytest.approx(change, rel=1e-5)
        assert measure(W, quantizer, H).output_mse == pytest.approx(change, rel=1e-5)


def test_the_error_of_an_untied_head_is_that_of_the_logits(tmp_path):
    network, windows = tiny(tied=False), random_windows(30)
    reference, H = (
        Reference(network, windows),
        second_moments(saved(network, tmp_path), windows)["lm_head.weight"],
    )
    new = noisy(network, "lm_head.weight")
    E = network.lm_head.weight.numpy() - new["lm_head.weight"].astype(np.float64)
    with replaced(network, new):
        mse = compare(network, reference).logits_mse.mean
    assert output_error(E, H) == pytest.approx(mse, rel=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_they_are_the_same_on_any_device(tmp_path, device):
    checkpoint, windows = saved(tiny(), tmp_path), random_windows()
    there = second_moments(checkpoint, windows, device=device)
    for name, H in second_moments(checkpoint, windows, device="cpu").inputs.items():
        np.testing.assert_allclose(there.inputs[name], H, atol=1e-4 * abs(H).max())
