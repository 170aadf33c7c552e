"""A network is that of its checkpoint, holds other tensors for a while, and is then what it was, bit for bit."""

import json

import ml_dtypes
import numpy as np
import pytest
import torch
from networks import (
    DEVICES,
    TRAINED,
    bits_of,
    logits_of,
    noisy,
    one_torch_thread,  # noqa: F401
    random_windows,
    saved,
    tiny,
)
from safetensors.numpy import load_file, save_file

from rdlib.models.checkpoint import Checkpoint
from rdlib.network.network import load_network, replaced

Q = "model.layers.1.self_attn.q_proj.weight"
DOWN = "model.layers.2.mlp.down_proj.weight"
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def edit(folder, **changes):
    """Change tensors (None: take one out) of a saved checkpoint."""
    file = folder / "model.safetensors"
    tensors = load_file(file) | changes
    save_file({k: v for k, v in tensors.items() if v is not None}, file, {"format": "pt"})


def configure(folder, **changes):
    """Change entries of config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Loading


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_the_network_holds_what_the_checkpoint_holds(folder):
    checkpoint = Checkpoint(folder)
    network = load_network(checkpoint, "cpu")
    parameters = dict(network.named_parameters())
    assert sorted(parameters) == checkpoint.names
    for name, parameter in parameters.items():
        assert parameter.dtype == torch.float32 and not parameter.requires_grad
        assert (parameter.numpy() == checkpoint.tensor(name).astype(np.float32)).all()
    assert not network.training


@pytest.mark.parametrize("tied", [True, False])
def test_a_sharded_checkpoint_is_the_same_network(tmp_path, tied):
    network = tiny(tied)
    checkpoint = saved(network, tmp_path / "m", max_shard_size="8KB")
    assert len(list(checkpoint.folder.glob("*.safetensors"))) > 1
    assert bits_of(load_network(checkpoint, "cpu")) == bits_of(network)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_is_a_wish(tmp_path, device):
    network = load_network(saved(tiny(), tmp_path / "m"), device)
    assert {p.device.type for p in network.parameters()} == {device}


def test_without_a_wish_cuda_comes_before_the_cpu(tmp_path):
    network = load_network(saved(tiny(), tmp_path / "m"))
    assert network.device.type == DEVICES[-1]


def test_code_that_comes_with_a_model_is_not_run(tmp_path):
    checkpoint = saved(tiny(), tmp_path / "m")
    trap = f"open({str(tmp_path / 'sprung')!r}, 'w')\n"
    (checkpoint.folder / "modeling_trap.py").write_text(trap)
    configure(checkpoint.folder, auto_map={"AutoModelForCausalLM": "modeling_trap.Trap"})
    load_network(Checkpoint(checkpoint.folder), "cpu")
    assert not (tmp_path / "sprung").exists()


def assert_says(error: pytest.ExceptionInfo, *words: str) -> None:
    sentence = str(error.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, ["'gpt2'", "only a 'llama'"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["is quantized", "decoded tensors"]),
    ],
)
def test_a_model_of_another_kind_is_refused(tmp_path, change, words):
    checkpoint = saved(tiny(), tmp_path / "mine")
    configure(checkpoint.folder, **change)
    with pytest.raises(ValueError) as error:
        load_network(Checkpoint(checkpoint.folder))
    assert_says(error, "mine", *words)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (None, ["lacks", Q]),
        (np.zeros((16, 12), np.float32), ["another shape", Q]),
        (np.full((16, 16), np.nan, np.float32), [Q, "NaN"]),
    ],
    ids=["missing", "shape", "nan"],
)
def test_a_checkpoint_that_does_not_fit_its_config_is_refused(tmp_path, values, words):
    """transformers would fill the gap with random numbers and only warn."""
    checkpoint = saved(tiny(), tmp_path / "mine")
    edit(checkpoint.folder, **{Q: values})
    with pytest.raises(ValueError) as error:
        load_network(Checkpoint(checkpoint.folder), "cpu")
    assert_says(error, "mine", *words)


# Replacing


@pytest.mark.parametrize("tied", [True, False])
def test_replaced_tensors_are_what_the_network_computes_with(tmp_path, tied):
    """As if the changed tensors had been loaded."""
    network, windows = tiny(tied), random_windows()
    new = noisy(network, Q, DOWN, EMBED, "model.norm.weight", *([] if tied else [HEAD]))
    checkpoint = saved(network, tmp_path / "m")
    edit(checkpoint.folder, **new)
    expected = logits_of(load_network(Checkpoint(checkpoint.folder), "cpu"), windows)
    with replaced(network, new) as same:
        assert same is network
        assert torch.equal(logits_of(network, windows), expected)
    assert not torch.equal(logits_of(network, windows), expected)


@pytest.mark.parametrize("tied", [True, False])
def test_afterwards_every_bit_is_back_where_it_was(tied):
    network = tiny(tied)
    network.get_parameter(Q).data[0, 0] = -0.0
    before, places = bits_of(network), {n: p.data_ptr() for n, p in network.named_parameters()}
    with replaced(network, noisy(network, Q, EMBED, "model.norm.weight")):
        assert bits_of(network) != before
    with pytest.raises(KeyboardInterrupt):
        with replaced(network, noisy(network, Q, DOWN)):
            raise KeyboardInterrupt
    assert bits_of(network) == before
    assert {n: p.data_ptr() for n, p in network.named_parameters()} == places, "set aside, not copied"


def test_replacements_nest():
    network = tiny()
    before, outer = bits_of(network), noisy(network, Q, DOWN)
    with replaced(network, outer):
        between = bits_of(network)
        with replaced(network, noisy(network, Q, EMBED, seed=5)):
            assert (network.get_parameter(DOWN).numpy() == outer[DOWN]).all()
        assert bits_of(network) == between
    assert bits_of(network) == before


def test_a_tied_head_changes_with_its_embedding():
    network = tiny(tied=True)
    with replaced(network, noisy(network, EMBED)):
        assert network.lm_head.weight.data_ptr() == network.model.embed_tokens.weight.data_ptr()
    with pytest.raises(ValueError) as error:
        with replaced(network, {HEAD: np.zeros((50, 16), np.float32)}):
            pass
    assert_says(error, f"{HEAD} is tied to {EMBED}")


def test_an_untied_head_changes_alone():
    network = tiny(tied=False)
    before = network.model.embed_tokens.weight.clone()
    with replaced(network, {HEAD: np.zeros((50, 16), np.float32)}):
        assert not logits_of(network, random_windows()).any()
        assert torch.equal(network.model.embed_tokens.weight, before)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32], ids=lambda d: d.__name__)
def test_weights_of_every_type_are_taken_exactly_and_copied(dtype):
    network = tiny()
    W = noisy(network, Q)[Q].astype(dtype)
    W.setflags(write=False)
    with replaced(network, {Q: W}):
        assert (network.get_parameter(Q).numpy() == W.astype(np.float32)).all()
    W = np.asfortranarray(W.astype(np.float32))
    with replaced(network, {Q: W}):
        W[:] = 0
        assert network.get_parameter(Q).numpy().all()


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("model.layers.3.self_attn.q_proj.weight", np.zeros((16, 16), np.float32), ["no tensor", "layers.3"]),
        ("q_proj", np.zeros((16, 16), np.float32), ["no tensor 'q_proj'"]),
        (DOWN, np.zeros((24, 16), np.float32), [DOWN, "(16, 24)", "(24, 16)"]),
        (DOWN, np.zeros((384,), np.float32), [DOWN, "(16, 24)", "(384,)"]),
        (DOWN, np.full((16, 24), np.inf, np.float32), [DOWN, "inf at (0, 0)"]),
        (DOWN, np.full((16, 24), np.nan, np.float16), [DOWN, "nan at (0, 0)"]),
        (DOWN, np.zeros((16, 24)), [DOWN, "float64", "cast"]),
        (DOWN, np.zeros((16, 24), np.uint8), [DOWN, "uint8"]),
    ],
)
def test_what_cannot_stand_for_a_tensor_is_refused_and_nothing_is_changed(name, values, words):
    network = tiny()
    before = bits_of(network)
    with pytest.raises(ValueError) as error:
        with replaced(network, noisy(network, Q) | {name: values}):
            pytest.fail("it was taken")
    assert_says(error, *words)
    assert bits_of(network) == before


# Any device


@pytest.mark.parametrize("device", DEVICES)
def test_tensors_are_made_on_the_cpu_and_moved(tmp_path, device):
    network, windows = load_network(saved(tiny(), tmp_path / "m"), device), random_windows()
    with replaced(network, noisy(network, Q)):
        assert network.get_parameter(Q).device.type == device
        moved = network(torch.from_numpy(windows.ids).to(device)).logits.cpu()
    reference = tiny()
    with replaced(reference, noisy(reference, Q)):
        torch.testing.assert_close(moved, reference(torch.from_numpy(windows.ids)).logits)
