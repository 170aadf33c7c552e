"""A replay gives the output of the whole network to the last bit, and runs no layer that need not run."""

import numpy as np
import pytest
from networks import (
    TRAINED,
    bits_of,
    noisy,
    one_torch_thread,  # noqa: F401
    random_windows,
    saved,
    sliding,
    tiny,
    trained,
)

import rdlib.functional.sensitivity
from rdlib.functional.divergence import Functional, Reference, compare
from rdlib.functional.sensitivity import Replay
from rdlib.network.network import load_network, replaced

GROUPS = {f"self_attn.{g}": g for g in "qkvo"} | {f"mlp.{g}": g for g in ("gate", "up", "down")}
NAMES = [f"model.layers.{layer}.{group}_proj.weight" for layer in (0, 1, 2) for group in GROUPS]
REST = ["model.embed_tokens.weight", "model.norm.weight"]
REST += [f"model.layers.{n}.{norm}_layernorm.weight" for n in (0, 2) for norm in ("input", "post_attention")]


def assert_same(one: Functional, other: Functional) -> None:
    for name in ("kl", "reverse_kl", "total_variation", "logits_mse", "loss", "agreement"):
        assert getattr(one, name).values.tobytes() == getattr(other, name).values.tobytes()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("how", [{}, {"stride": 5, "bos": 0}], ids=str)
def test_one_changed_tensor_gives_the_output_of_the_whole_network(how, tied):
    network = tiny(tied)
    reference = Reference(network, random_windows(200, **how))
    replay = Replay(network, reference)
    for name in [*NAMES, *REST, *([] if tied else ["lm_head.weight"])]:
        new = noisy(network, name)
        with replaced(network, new):
            expected = compare(network, reference)
        assert expected.kl.mean > 0
        assert_same(replay.compare(new), expected)


def test_a_layer_that_looks_back_a_few_tokens_does_so_in_every_replay():
    network = sliding()
    reference = Reference(network, random_windows(20))
    replay = Replay(network, reference)
    for name in (f"model.layers.{n}.{group}_proj.weight" for n in range(4) for group in GROUPS):
        new = noisy(network, name)
        with replaced(network, new):
            expected = compare(network, reference)
        assert_same(replay.compare(new), expected)


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_a_trained_network_is_no_exception(folder):
    network, checkpoint, windows = trained(folder)
    reference = Reference(network, windows)
    replay = Replay(network, reference)
    for weight in [*checkpoint.layer(0)[2:], *checkpoint.layer(2)[3::3]]:
        new = noisy(network, weight.name)
        with replaced(network, new):
            expected = compare(network, reference)
        assert_same(replay.compare(new), expected)


@pytest.mark.parametrize(
    "names",
    [
        NAMES,
        NAMES[7:14],
        NAMES[2::7],
        NAMES[6:8],
        NAMES[-2:],
        ["model.norm.weight", NAMES[-1]],
        [REST[0], NAMES[9]],
    ],
    ids=["whole", "layer", "group", "neighbours", "end", "norm", "embedding"],
)
def test_many_changed_tensors_give_the_output_of_the_whole_network(names):
    network = tiny()
    reference = Reference(network, random_windows())
    new = noisy(network, *names)
    with replaced(network, new):
        expected = compare(network, reference)
    assert_same(Replay(network, reference).compare(new), expected)


def test_any_order_gives_the_same():
    network = tiny()
    reference = Reference(network, random_windows())
    replay = Replay(network, reference)
    order = np.random.default_rng(0).permutation(NAMES + NAMES)
    found = {}
    for name in order:
        functional = replay.compare(noisy(network, name))
        assert_same(found.setdefault(name, functional), functional)


def test_no_change_is_no_distance():
    network = tiny()
    replay = Replay(network, Reference(network, random_windows()))
    assert not replay.compare({}).kl.values.any()
    for name in NAMES:
        assert not replay.compare({name: network.get_parameter(name).numpy()}).kl.values.any()


def test_layers_before_the_change_do_not_run():
    network = tiny()
    replay = Replay(network, Reference(network, random_windows()))
    runs = []
    for number, layer in enumerate(network.model.layers):
        for group in GROUPS:
            module, label = layer.get_submodule(f"{group}_proj"), f"{number}.{group}"
            module.register_forward_hook(lambda *_, label=label: runs.append(label))
    layer = list(GROUPS)
    for name, again in {
        "q": layer,
        "v": layer,
        "o": ["self_attn.o", "mlp.gate", "mlp.up", "mlp.down"],
        "gate": ["mlp.gate", "mlp.down"],
        "up": ["mlp.up", "mlp.down"],
        "down": ["mlp.down"],
    }.items():
        (name,) = (n for n in NAMES if n.startswith("model.layers.1.") and n.endswith(f".{name}_proj.weight"))
        new = noisy(network, name)
        replay.compare(new)  # what is kept of the layer is there now
        runs.clear()
        replay.compare(new)
        assert runs == [f"1.{g}" for g in again] + [f"2.{g}" for g in layer]


def test_the_network_is_whole_again_also_after_an_error(monkeypatch):
    network = tiny()
    before, layers = bits_of(network), list(network.model.layers)
    replay = Replay(network, Reference(network, random_windows()))
    replay.compare(noisy(network, NAMES[8]))

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(rdlib.functional.divergence, "_compare", fail)
    for name in NAMES[::4]:
        with pytest.raises(KeyboardInterrupt) as error:
            replay.compare(noisy(network, name))
        assert bits_of(network) == before, "while the error is still held"
        assert list(network.model.layers) == layers
        del error
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in network.modules())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("model.layers.7.mlp.down_proj.weight", "no tensor 'model.layers.7"),
        ("down", "no tensor 'down'"),
        (NAMES[6], "has shape"),
    ],
)
def test_what_cannot_be_replaced_is_refused(name, words):
    network = tiny()
    replay = Replay(network, Reference(network, random_windows()))
    with pytest.raises(ValueError, match=words):
        replay.compare({name: np.zeros((3, 3), np.float32)})


def test_large_inputs_of_layers_are_kept_in_a_file():
    network = tiny()
    reference = Reference(network, random_windows())
    small, large = Replay(network, reference), Replay(network, reference, in_memory=100)
    for name in NAMES[8:12]:
        new = noisy(network, name)
        assert_same(small.compare(new), large.compare(new))


def test_a_network_that_accelerate_fetches_from_disk_is_replayed(tmp_path):
    device_map = {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    network = load_network(saved(tiny(), tmp_path / "m"), device_map=device_map | {"model.rotary_emb": "cpu"})
    assert network.get_parameter(NAMES[0]).is_meta
    replay = Replay(network, Reference(network, random_windows()))
    alone = tiny()
    expected = Replay(alone, Reference(alone, random_windows()))
    for name in NAMES[::3]:
        new = noisy(alone, name)
        assert_same(replay.compare(new), expected.compare(new))
