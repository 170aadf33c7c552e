"""Second moments are those of the inputs, predict the error of an output, and are shared by who reads the same."""

import json
import re

import numpy as np
import pytest
import torch
from networks import (
    DEVICES,
    TRAINED,
    bits_of,
    noisy,
    one_torch_thread,  # noqa: F401
    random_windows,
    saved,
    tiny,
    trained,
)

import rdlib.network.moments
from rdlib.functional.divergence import Reference, compare
from rdlib.measure import measure, output_error
from rdlib.models.checkpoint import Checkpoint, Weight
from rdlib.network.moments import INPUTS, Moments, cached_moments, second_moments
from rdlib.network.network import load_network, replaced
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
def test_they_are_the_mean_of_the_products_of_all_inputs(how, tied):
    network, windows = tiny(tied), random_windows(250, **how)
    assert len(list(windows.batches)) > 1
    moments = second_moments(network, windows)
    assert moments.tokens == 250 * 12
    assert_is_mean_of_products(moments, observed(network, windows))


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_they_are_right_to_float32_on_a_trained_network(folder):
    network, checkpoint, windows = trained(folder)
    moments, seen = second_moments(network, windows), observed(network, windows)
    assert_is_mean_of_products(moments, seen)
    for weight in checkpoint.layer(0):
        X, H = seen[weight.name.removesuffix(".weight")][0], moments[weight]
        assert np.linalg.norm(H - X.T @ X / len(X)) < 1e-6 * np.linalg.norm(H)


def test_those_of_some_layers_are_the_same_and_the_network_runs_no_further():
    network, windows = tiny(), random_windows(20)
    every, ran = second_moments(network, windows), []
    network.model.layers[2].register_forward_hook(lambda *_: ran.append(2))
    some = second_moments(network, windows, layers=[0, 1])
    assert len(some.inputs) == 2 * len(INPUTS) and not ran
    assert all((H == every.inputs[name]).all() for name, H in some.inputs.items())


@pytest.mark.parametrize(
    ("tokens", "words"), [(1_536 * 20, "20 for each of the 1,536 .* by 0.02 bit"), (6_144, "0.10")]
)
def test_a_limit_from_few_tokens_is_shown_with_its_bias(tokens, words):
    moments = Moments({"a": np.eye(16), "b": np.eye(1_536)}, tokens)
    assert re.search(words, moments.bias)


def test_they_are_symmetric_positive_and_read_only():
    moments = second_moments(tiny(), random_windows(20))
    assert len(moments.inputs) == 3 * len(INPUTS) + 1
    for H in moments.inputs.values():
        assert H.dtype == np.float64 and (H.T == H).all()
        assert np.linalg.eigvalsh(H)[0] > -1e-6 * np.trace(H)
        with pytest.raises(ValueError, match="read-only"):
            H[0, 0] = 1


def test_who_reads_the_same_input_has_the_same_array():
    moments = second_moments(tiny(), random_windows())
    arrays = [id(moments[f"model.layers.1.{name}.weight"]) for name in LINEAR]
    q, k, v, o, gate, up, down = arrays
    assert q == k == v and gate == up and len({q, o, gate, down}) == 4


def test_a_weight_is_a_name():
    moments, name = second_moments(tiny(), random_windows()), "model.layers.2.mlp.up_proj.weight"
    assert moments[Weight(name, 2, "up", (24, 16), "F32")] is moments[name]
    for other in ("model.embed_tokens.weight", "model.norm.weight", "model.layers.3.mlp.up_proj.weight"):
        with pytest.raises(ValueError, match=f"{other} is the matrix of no linear layer"):
            _ = moments[other]


def test_the_error_of_an_output_is_what_they_say():
    """tr(E H Eᵀ) / out is the mean squared change of the module's output on the very same inputs."""
    network, windows = tiny(), random_windows(30)
    moments, seen = second_moments(network, windows), observed(network, windows)
    for name, (X, Y) in seen.items():
        W = network.get_submodule(name).weight.numpy()
        quantizer = Uniform(3)
        W_hat = quantizer.decode(quantizer.encode(W))
        change = ((Y - X @ W_hat.T.astype(np.float64)) ** 2).mean()
        H = moments[f"{name}.weight"]
        assert output_error(W - W_hat.astype(np.float64), H) == pytest.approx(change, rel=1e-5)
        assert measure(W, quantizer, H).output_mse == pytest.approx(change, rel=1e-5)


def test_the_error_of_an_untied_head_is_that_of_the_logits():
    network, windows = tiny(tied=False), random_windows(30)
    reference, H = Reference(network, windows), second_moments(network, windows)["lm_head.weight"]
    new = noisy(network, "lm_head.weight")
    E = network.lm_head.weight.numpy() - new["lm_head.weight"].astype(np.float64)
    with replaced(network, new):
        mse = compare(network, reference).logits_mse.mean
    assert output_error(E, H) == pytest.approx(mse, rel=1e-5)


def test_the_network_is_left_as_it_was():
    network = tiny()
    before = bits_of(network)
    second_moments(network, random_windows())
    assert bits_of(network) == before
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("device", DEVICES)
def test_they_are_the_same_on_any_device(tmp_path, device):
    network, windows = tiny(), random_windows()
    there = second_moments(load_network(saved(network, tmp_path / "m"), device), windows)
    for name, H in second_moments(network, windows).inputs.items():
        np.testing.assert_allclose(there.inputs[name], H, atol=1e-4 * abs(H).max())


# In a file


def test_they_are_computed_once_for_the_same_weights_and_text(tmp_path, monkeypatch):
    network, windows = tiny(), random_windows()
    checkpoint = saved(network, tmp_path / "m")
    first = cached_moments(network, checkpoint, windows, tmp_path / "results")
    calls = []
    compute = second_moments

    def counted(*arguments):
        calls.append(arguments)
        return compute(*arguments)

    monkeypatch.setattr(rdlib.network.moments, "second_moments", counted)
    again = cached_moments(network, checkpoint, windows, str(tmp_path / "results"))
    assert not calls and again.tokens == first.tokens == 60
    for moments in (first, again):
        for name, H in compute(network, windows).inputs.items():
            assert moments.inputs[name].tobytes() == H.tobytes()
            assert not moments.inputs[name].flags.writeable
    other = saved(tiny(seed=1), tmp_path / "other")
    cached_moments(network, checkpoint, random_windows(stride=5), tmp_path / "results")
    cached_moments(network, other, windows, tmp_path / "results")
    cached_moments(network, other, windows, tmp_path / "results", layers=[1])
    assert len(calls) == 3
    files = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert len(files) == 4 and all(name.endswith(".safetensors") for name in files)
    assert sum(name.split("-")[1] == checkpoint.sha256[:16] for name in files) == 2


def test_a_model_of_the_same_weights_and_another_configuration_has_moments_of_its_own(tmp_path):
    """Rotary embedding that was corrected in config.json changes what every layer sees."""
    windows, name = random_windows(), "model.layers.2.mlp.down_proj.weight"
    checkpoint = saved(tiny(), tmp_path / "m")
    cached_moments(load_network(checkpoint, "cpu"), checkpoint, windows, tmp_path)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 100.0}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    corrected = Checkpoint(tmp_path / "m")
    network = load_network(corrected, "cpu")
    found = cached_moments(network, corrected, windows, tmp_path)[name]
    assert np.array_equal(found, second_moments(network, windows)[name])


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    checkpoint = saved(tiny(), tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    cached_moments(tiny(), checkpoint, random_windows(), "")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("kept", [0, 5, 300, -1])
def test_a_truncated_file_is_named(tmp_path, kept):
    network, windows = tiny(), random_windows()
    checkpoint = saved(network, tmp_path / "m")
    cached_moments(network, checkpoint, windows, tmp_path)
    (file,) = tmp_path.glob("moments-*")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{file.name} cannot be read .*: delete it and run again"):
        cached_moments(network, checkpoint, windows, tmp_path)


def test_a_run_that_is_stopped_leaves_no_file(tmp_path, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("rdlib.files.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_moments(tiny(), saved(tiny(), tmp_path / "m"), random_windows(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
