"""A walk layer by layer gives what the whole network gives, and does nothing twice."""

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import device_table
import numpy as np
import pandas as pd
import pytest
import torch
from networks import (
    DEVICES,
    TRAINED,
    VOCABULARY,
    Reference,
    bfloat16_rounding,
    compare,
    inputs_of,
    logits_of,
    noisy,
    one_torch_thread,  # noqa: F401
    quantized_in_turn,
    random_windows,
    saved,
    tiny,
    trained,
)
from transformers import AutoConfig, AutoModelForCausalLM

import rdlib.engine.course
import rdlib.engine.room
import rdlib.functional.divergence
import rdlib.network.windows
from rdlib import weights
from rdlib.checkpoints import aligned, open_quantized
from rdlib.engine import Given, InBfloat16, Noisy, Quantized, Stored, Variant, Walk, bar, second_moments, walk
from rdlib.engine.bench import DAMPING
from rdlib.engine.course import Clock
from rdlib.engine.layers import Layer, Layers
from rdlib.engine.resume import question
from rdlib.engine.room import Room
from rdlib.engine.text import Text
from rdlib.functional.divergence import Distribution, Functional
from rdlib.functional.proxies import error_sizes, with_noise
from rdlib.measure import output_error
from rdlib.models.checkpoint import Checkpoint, open_checkpoint
from rdlib.network.architecture import LLAMA_SHAPED
from rdlib.network.network import load_network, replaced
from rdlib.network.windows import Windows
from rdlib.quantizers import GPTQ, LDLQ, ActOrder, PerGroup, Rotated, Uniform, UniformAsymmetric
from rdlib.quantizers.feedback import feedback
from rdlib.theory import output_rate, spectrum
from rdlib.weights import remembered

MATRICES = [f"self_attn.{g}_proj.weight" for g in "qkvo"] + [
    f"mlp.{g}_proj.weight" for g in ("gate", "up", "down")
]
NAMES = [f"model.layers.{layer}.{matrix}" for layer in (0, 1, 2) for matrix in MATRICES]
NORMS = [f"model.layers.{n}.{norm}_layernorm.weight" for n in (0, 2) for norm in ("input", "post_attention")]
EMBEDDING, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
SETS = {
    "whole": NAMES,
    "layer": NAMES[7:14],
    "group": NAMES[2::7],
    "neighbours": NAMES[6:8],
    "end": [NORM, NAMES[-1]],
    "embedding": [EMBEDDING, NAMES[9]],
}


def assert_same(one: Functional, other: Functional, rounding: float = 0.0) -> None:
    """To the last bit, or to the rounding of sums in float32."""
    for name in ("kl", "reverse_kl", "total_variation", "logits_mse", "loss", "reference_loss"):
        ours, theirs = (getattr(functional, name).values for functional in (one, other))
        np.testing.assert_allclose(ours, theirs, rtol=rounding, atol=rounding)


def given(label: object, tensors: dict[str, np.ndarray]) -> Variant:
    return Variant(label, {name: Given(tensor) for name, tensor in tensors.items()})


def assert_walk_is_the_network(network, checkpoint: Checkpoint, windows, changed: dict) -> None:
    """Every variant at once has the output that the whole network has with its tensors."""
    found = walk(
        checkpoint, [given(label, tensors) for label, tensors in changed.items()], windows, device="cpu"
    )
    reference = Reference(network, windows)
    for label, tensors in changed.items():
        with replaced(network, tensors):
            assert_same(found.outputs[label], compare(network, reference), 1e-5)


@pytest.mark.parametrize(("how", "tied"), [({}, False), ({"stride": 5, "bos": 0}, True)], ids=str)
def test_any_change_has_the_output_of_the_whole_network(tmp_path, monkeypatch, how, tied):
    """Also where a forward pass holds only some of the windows."""
    monkeypatch.setattr(rdlib.network.windows, "BATCH", 60)
    network = tiny(tied)
    single = [*NAMES, *NORMS, EMBEDDING, NORM, *([] if tied else [HEAD])]
    changed = {name: noisy(network, name) for name in single}
    changed |= {label: noisy(network, *names) for label, names in SETS.items()} | {"nothing": {}}
    windows = random_windows(12, **how)
    assert len(list(windows.batches)) == 3
    assert_walk_is_the_network(network, saved(network, tmp_path), windows, changed)


@pytest.mark.parametrize("kind", LLAMA_SHAPED)
def test_every_architecture_that_is_read_runs(tmp_path, kind):
    """Grouped and multiple heads, biases, normed queries, scaled ropes, sliding windows in some of the layers."""
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "initializer_range": 0.4}
    some = {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}
    more = {"llama": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}}
    more["llama"]["rope_parameters"] |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    more["llama"]["rope_parameters"] |= {"original_max_position_embeddings": 8}
    more |= {"mistral": {"sliding_window": 4}, "qwen2": some | {"use_sliding_window": True}}
    more |= {"smollm3": some | {"no_rope_layers": [1, 0, 1], "pad_token_id": 0}}
    config = AutoConfig.for_model(kind, **shape, **more.get(kind, {}))
    network = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    checkpoint = saved(network, tmp_path)
    changed = {name: noisy(network, name) for name in NAMES[7:]} | {"whole": noisy(network, *NAMES)}
    assert_walk_is_the_network(network, checkpoint, random_windows(6), changed)
    plain = load_network(checkpoint, "cpu")
    with torch.inference_mode():
        ids = torch.from_numpy(random_windows(6).ids[:, :-1])
        assert torch.equal(plain(ids).logits, network(ids).logits)


@pytest.mark.parametrize("folder", TRAINED, ids=lambda folder: folder.name)
def test_a_trained_network_is_no_exception(folder):
    network, checkpoint, windows = trained(folder)
    names = [w.name for w in [*checkpoint.layer(0)[2:], *checkpoint.layer(2)[3::3]]]
    changed = {name: noisy(network, name) for name in names} | {"all": noisy(network, *names)}
    assert_walk_is_the_network(network, checkpoint, windows, changed)


def test_running_in_bfloat16_is_a_variant(tmp_path):
    network, windows = tiny(), random_windows()
    found = walk(saved(network, tmp_path), [InBfloat16("b", Checkpoint(tmp_path))], windows, device="cpu")
    reference = Reference(network, windows)
    with bfloat16_rounding(network):
        expected = compare(network, reference)
    assert expected.kl.mean > 0
    assert_same(found.outputs["b"], expected, 1e-4)


def test_rows_are_measured_under_the_moments_of_either_text(tmp_path):
    network, known, judged = tiny(False), random_windows(250), random_windows(30, seed=1)
    checkpoint = saved(network, tmp_path)
    H, other = second_moments(checkpoint, known), second_moments(checkpoint, judged)
    quantizers = [Uniform(3), GPTQ(UniformAsymmetric(2, PerGroup(size=8)))]
    variants = [Variant.by(q.method, [*NAMES, HEAD], q) for q in quantizers]
    found = walk(checkpoint, variants, judged, known, [quantizers[1].method], limits=True, device="cpu")
    for quantizer, variant in zip(quantizers, variants, strict=True):
        rows = found.of(variant)
        for name in [*NAMES, HEAD]:
            W = checkpoint.tensor(name)
            code = quantizer.encode(W, H[name])
            W_hat = quantizer.decode(code)
            assert rows.rate[name] == code.rate
            for size, value in error_sizes(W, W_hat, H[name]).items():
                assert rows[size][name] == pytest.approx(value, rel=1e-9), (name, size)
            if name != HEAD:
                mse, signal = (output_error(E, other[name]) for E in (W - W_hat, W))
                assert rows.held_out_mse[name] == pytest.approx(mse, rel=1e-5)
                assert rows.held_out_db[name] == pytest.approx(10 * np.log10(signal / mse), abs=1e-4)
                bounds = {"output_limit": (H, rows.output_mse), "held_out_limit": (other, rows.held_out_mse)}
                for column, (moments, error) in bounds.items():
                    limit = output_rate(spectrum(moments[name]), error[name], np.mean(W.astype(float) ** 2))
                    assert rows[column][name] == pytest.approx(limit, abs=1e-5)
            assert rows.feedback_gain[name] == pytest.approx(
                feedback.feedback_gain(H[name], DAMPING), abs=1e-6
            )
            if variant.label in found.tensors:
                assert (found.tensors[variant.label][name] == W_hat).all()
        totals = found.totals(variant)
        assert totals["rate"] == pytest.approx((rows.rate * rows.weights).sum() / rows.weights.sum())
        assert totals["output"] == pytest.approx(rows.output.sum())
    assert len(found.points) == 2 * (len(NAMES) + 1)


@pytest.mark.parametrize("judged", [True, False])
def test_sequential_calibration_is_that_of_a_plain_loop(tmp_path, judged):
    """Beside the same plan calibrated on the model, and a part of it: each with its own matrices and rows."""
    network, known, text = tiny(), random_windows(250), random_windows(30, seed=1)
    checkpoint, quantizer = saved(network, tmp_path), GPTQ(UniformAsymmetric(2, PerGroup(size=8)))
    expected = quantized_in_turn(network, known, quantizer, NAMES)
    assert len(list(known.batches)) > 1
    plans = {"all": NAMES, "end": NAMES[7:]}
    variants = [Variant.by((s, p), plans[p], quantizer, s) for p in plans for s in (True, False)]
    found = walk(checkpoint, variants, text, known, [(True, "all")], outputs=judged, device="cpu")
    for name, W_hat in expected.items():
        np.testing.assert_allclose(found.tensors[True, "all"][name], W_hat, atol=1e-5)
    of = {variant.label: found.of(variant) for variant in variants}
    error = {label: rows.output.to_dict() for label, rows in of.items()}
    equal = [error[True, "all"][name] == error[False, "all"][name] for name in NAMES]
    assert all(equal[:7]) and not any(equal[7:]), "the first layer is the model's in both"
    assert all(error[True, "end"][name] == error[False, "all"][name] for name in NAMES[7:14])
    assert not any(error[True, "end"][name] == error[True, "all"][name] for name in NAMES[14:])
    H = second_moments(checkpoint, known)
    for name, W_hat in expected.items():
        E = checkpoint.tensor(name) - W_hat.astype(np.float64)
        assert of[True, "all"].output_mse[name] == pytest.approx(output_error(E, H[name]), rel=1e-4)
    if judged:
        reference = Reference(network, text)
        with replaced(network, expected):
            assert_same(found.outputs[True, "all"], compare(network, reference), 1e-4)


def test_sequential_calibration_of_the_head(tmp_path):
    network, windows = tiny(False), random_windows(60)
    checkpoint, quantizer = saved(network, tmp_path), GPTQ(Uniform(3))
    before = noisy(network, NAMES[3], size=1.0)
    sources = {NAMES[3]: Given(before[NAMES[3]]), HEAD: Quantized(quantizer)}
    variant = Variant("v", sources, sequential=True)
    found = walk(checkpoint, [variant], calibration=windows, keep=["v"], device="cpu")
    with replaced(network, before):
        X = inputs_of(network, windows, [HEAD])[HEAD].flatten(0, 1).double().numpy()
    W = checkpoint.tensor(HEAD)
    expected = quantizer.decode(quantizer.encode(W, X.T @ X / len(X)))
    np.testing.assert_allclose(found.tensors["v"][HEAD], expected, atol=1e-5)


def test_sequential_calibration_takes_a_text(tmp_path):
    variant = Variant.by("v", NAMES, GPTQ(Uniform(3)), sequential=True)
    with pytest.raises(ValueError, match="v is calibrated on its own inputs: give a calibration text"):
        walk(saved(tiny(), tmp_path), [variant], random_windows(), device="cpu")


def test_without_outputs_the_rows_are_the_same_and_the_walk_ends_with_the_last_change(tmp_path, monkeypatch):
    checkpoint, texts, ran = saved(tiny(), tmp_path), (random_windows(20), random_windows(30, seed=1)), []
    variants = [Variant.by("v", NAMES[:9], GPTQ(Uniform(3)))]
    every = walk(checkpoint, variants, *texts, limits=True, device="cpu")
    layer = Layers.layer
    monkeypatch.setattr(Layers, "layer", lambda self, number: ran.append(number) or layer(self, number))
    found = walk(checkpoint, variants, *texts, limits=True, outputs=False, device="cpu")
    pd.testing.assert_frame_equal(found.points, every.points)
    assert not found.outputs and ran == [0, 1]


def test_a_matrix_is_made_once_and_equal_prefixes_run_once(tmp_path, monkeypatch):
    made, runs = [], []
    monkeypatch.setattr(
        Quantized, "make", _counting(Quantized.make, lambda self, name, *_: made.append(name))
    )
    monkeypatch.setattr(Layer, "run", _counting(Layer.run, lambda self, x: runs.append(self.prefix)))
    checkpoint = saved(tiny(), tmp_path)
    scopes = {"model": NAMES, "first": NAMES[:7], "last": NAMES[14:], "down": NAMES[6::7]}
    variants = [Variant.by(scope, names, Uniform(3)) for scope, names in scopes.items()]
    variants += [Variant.by("twin", NAMES, Uniform(3)), Variant.by("nothing", [], Uniform(3))]
    found = walk(checkpoint, variants, random_windows(), device="cpu")
    assert sorted(made) == sorted(NAMES)
    assert_same(found.outputs["model"], found.outputs["twin"])
    # the model; "model" and its twin are one and equal "first" in the first layer; "down" resumes within it
    assert [runs.count(f"model.layers.{n}.") for n in range(3)] == [1 + 1, 1 + 3, 1 + 3 + 1]


def _counting(function, count):
    def counted(*arguments):
        count(*arguments)
        return function(*arguments)

    return counted


def test_hidden_states_that_are_large_go_to_a_file(tmp_path, monkeypatch):
    network = tiny()
    checkpoint, windows = saved(network, tmp_path), random_windows()
    variants = [given(name, noisy(network, name)) for name in NAMES[5:9]]
    expected = walk(checkpoint, variants, windows, device="cpu")
    found = walk(checkpoint, variants, windows, device="cpu", in_memory=100)
    for label, functional in expected.outputs.items():
        assert_same(found.outputs[label], functional)


def test_room_in_files_goes_with_its_tensor_and_room_in_memory_comes_back(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    room = Room(5000)
    small, large = room((30, 40)), room((30, 40))
    small[:] = large[:] = torch.arange(40)
    assert torch.equal(small, large) and not list(tmp_path.iterdir())
    assert room.left == 200, "the other lies in a file"
    view = small[3]
    del small
    assert room.left == 200 and (view == torch.arange(40)).all()
    del view
    assert room.left == 5000


def test_where_there_is_no_room_is_said(monkeypatch):
    monkeypatch.setattr(rdlib.engine.room.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ValueError, match="and 0.0 GB are free there: use fewer"):
        Room(1000)((30, 40))


def test_a_layer_is_forgotten(tmp_path):
    network = Layers(saved(tiny(), tmp_path), "cpu")
    with network.layer(1) as layer:
        assert not any(parameter.is_meta for parameter in layer.module.parameters())
    assert all(parameter.is_meta for parameter in layer.module.parameters())
    with pytest.raises(KeyboardInterrupt), network.layer(1) as layer:
        raise KeyboardInterrupt
    assert all(parameter.is_meta for parameter in layer.module.parameters())


def test_noise_is_a_source(tmp_path):
    checkpoint = saved(tiny(), tmp_path)
    noise = Variant.by("noise", NAMES[3:4], Noisy(0.01, seed=3))
    same = given("same", {NAMES[3]: with_noise(checkpoint.tensor(NAMES[3]), 0.01, seed=3)})
    found = walk(checkpoint, [noise, same], random_windows(), device="cpu").outputs
    assert_same(found["noise"], found["same"])


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"model.layers.7.mlp.down_proj.weight": np.zeros((16, 24), np.float32)}, "does not have"),
        ({"down": np.zeros((16, 24), np.float32)}, "does not have"),
        ({NAMES[6]: np.zeros((3, 3), np.float32)}, "has shape"),
        ({NAMES[6]: np.full((16, 24), np.nan, np.float32)}, "nan at"),
        ({EMBEDDING: np.zeros((3, 3), np.float32)}, "has shape"),
        ({NORM: np.zeros(3, np.float32)}, "has shape"),
    ],
    ids=str,
)
def test_what_cannot_be_replaced_is_refused(tmp_path, tensors, words):
    with pytest.raises(ValueError, match=words):
        walk(saved(tiny(), tmp_path), [given("v", tensors)], random_windows(), device="cpu")


def test_a_matrix_that_cannot_be_made_is_named(tmp_path):
    variant = Variant.by("v", NAMES, UniformAsymmetric(3, PerGroup(size=8)))
    network = tiny()
    network.get_parameter(NAMES[9])[0, 0] = float("inf")
    with pytest.raises(ValueError, match=NAMES[9]):
        walk(saved(network, tmp_path), [variant], random_windows(), device="cpu")


def test_a_model_that_is_not_finite_is_no_reference(tmp_path):
    network = tiny(tied=False)
    network.lm_head.weight.data[3] = 1e38
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        walk(saved(network, tmp_path), [], random_windows(), device="cpu")


def test_tokens_of_another_model_are_refused(tmp_path):
    checkpoint = saved(tiny(), tmp_path)
    for ids in (np.full((2, 9), VOCABULARY), np.full((2, 9), -1)):
        with pytest.raises(ValueError, match=f"the network knows 0 … {VOCABULARY - 1}: the tokenizer"):
            walk(checkpoint, [], Windows(ids, 8), device="cpu")


def test_the_size_of_a_chunk_does_not_matter(tmp_path, monkeypatch):
    network = tiny()
    checkpoint, variants, rows = saved(network, tmp_path), [given("v", noisy(network, NAMES[6]))], []
    for chunk in (1, 7 * VOCABULARY, 1 << 18):
        monkeypatch.setattr(rdlib.functional.divergence, "CHUNK", chunk)
        rows.append(walk(checkpoint, variants, random_windows(), device="cpu").outputs["v"].row)
    assert rows[0] == pytest.approx(rows[1], rel=1e-9)
    assert rows[0] == pytest.approx(rows[2], rel=1e-9)


def test_what_lies_in_memory_is_computed_on_the_device(tmp_path):
    """With a device that computes nothing, but refuses tensors of another, as CUDA does."""
    checkpoint = saved(tiny(), tmp_path)
    here, there = Layers(checkpoint, "cpu"), Layers(checkpoint, "meta")
    hidden = torch.randn(2, 12, 16)
    with here.layer(0) as layer:
        record = layer.record(hidden)[1]
    with there.layer(0) as layer, layer.replaced(noisy(tiny(), *layer.names)):
        assert all(layer.resume(stage, record).is_meta for stage in (1, 2, 3))
    output = there.output()
    logits = output(hidden)
    assert logits.is_meta
    with pytest.raises(NotImplementedError, match="meta"):  # not: tensors on different devices
        Text(random_windows(2), Room(), hidden).output(output)
    with pytest.raises(NotImplementedError, match="meta"):
        Distribution(logits[0]).compared(logits[1], torch.zeros(12, 1, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize("device", DEVICES)
def test_any_device_gives_the_same(tmp_path, device):
    network = tiny()
    checkpoint, windows = saved(network, tmp_path), random_windows()
    variants = [Variant.by("v", NAMES, Uniform(3))]
    here, there = (walk(checkpoint, variants, windows, windows, device=d) for d in ("cpu", device))
    for name in ("kl", "reverse_kl", "total_variation", "logits_mse", "loss"):
        ours, theirs = (getattr(found.outputs["v"], name).values for found in (here, there))
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=1e-5)
    assert here.of(variants[0]).output.to_numpy() == pytest.approx(
        there.of(variants[0]).output.to_numpy(), rel=1e-4
    )


def test_the_table_of_devices_compares_a_device_with_itself(tmp_path):
    windows = [random_windows(6), random_windows(40, seed=1)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(device_table, "QUANTIZERS", {"GPTQ": GPTQ(UniformAsymmetric(3, PerGroup(size=8)))})
        found = device_table.table(saved(tiny(), tmp_path), windows, ["cpu", "cpu:0"])
    assert (found.seconds > 0).all() and not found.drop(columns="seconds").to_numpy().any()


def test_rounding_makes_the_noise_of_a_network_that_runs_in_bfloat16(tmp_path):
    """Its size, to some tens of per cent; its values differ, as the order of sums in a matrix product does."""
    ratios = []
    for seed in range(4):
        network, windows = tiny(seed=seed), random_windows(seed=seed)
        checkpoint = saved(network, tmp_path / str(seed))
        ours = (
            walk(checkpoint, [InBfloat16("b", checkpoint)], windows, device="cpu")
            .outputs["b"]
            .logits_mse.mean
        )
        exact = logits_of(network, windows)
        theirs = logits_of(network.to(torch.bfloat16), windows).float() - exact
        ratios.append(ours / float(theirs.square().mean()))
    assert 0.6 < np.mean(ratios) < 1.2


@pytest.mark.parametrize("name", ["auto-gptq", "autoawq"])
def test_a_checkpoint_is_read_in_the_coordinates_of_its_model(name):
    checkpoint, quantized = open_checkpoint("embedded"), open_quantized(name)
    layers = dict(aligned(quantized, checkpoint))
    variant = Variant.by(name, layers, Stored(name, quantized.bits, layers))
    found = walk(checkpoint, [variant], keep=[name], device="cpu")
    rows = found.of(variant)
    assert set(rows.method) == {name} and set(rows.bits) == {4}
    assert all((found.tensors[name][layer] == packed.weight).all() for layer, packed in layers.items())
    assert (rows.nmse < 0.03).all(), "four bits in groups of 128 keep more than 15 dB"
    total = quantized.rates.loc["quantized layers", "rate"]
    assert found.totals(variant)["rate"] == pytest.approx(total)


def test_h_is_factored_once_for_all_methods_and_rates(tmp_path, monkeypatch):
    """Once a layer, input, damping, order and rotation: q, k and v share, and so do gate and up."""
    factored, factor = [], feedback._factor
    monkeypatch.setattr(
        feedback, "_factor", lambda H, damping: factored.append(damping) or factor(H, damping)
    )
    checkpoint, windows = saved(tiny(), tmp_path), random_windows(20)
    grid = UniformAsymmetric(2, PerGroup(size=8))
    methods = [GPTQ(grid), GPTQ(grid, damping=0.1), ActOrder(GPTQ(grid)), Rotated(GPTQ(grid)), LDLQ(grid)]
    variants = [Variant.by((q.method, q, b), NAMES, q.at(b)) for q in methods for b in (2, 3, 4)]
    walk(checkpoint, variants, calibration=windows, device="cpu")
    inputs, kinds = 4 * 3, 4  # as it is (GPTQ and LDLQ), more damped, ordered, rotated
    assert len(factored) == inputs * kinds


def test_what_follows_from_h_is_remembered_while_it_lives_and_cannot_change():
    H, calls = np.eye(3), []
    remembered(H, "a", lambda: calls.append(1) or np.ones(2))
    remembered(H, "a", lambda: calls.append(1) or np.ones(2))
    assert len(calls) == 2, "it could have been written to"
    H.setflags(write=False)
    first = remembered(H, "a", lambda: calls.append(1) or np.ones(2))
    again = remembered(H, "a", lambda: calls.append(1) or np.ones(2))
    assert first is again and len(calls) == 3 and not first.flags.writeable
    before = len(weights._KNOWN)
    del H
    assert len(weights._KNOWN) == before - 1


# A walk that is interrupted

KILLED = """
import os, signal, sys
import torch
from rdlib.engine.layers import Layers
from rdlib.models.checkpoint import Checkpoint
from test_engine import asked

torch.set_num_threads(1)
load = Layers.layer

def killed(number):
    began = []

    def layer(self, n):
        began.append(n)
        if n == number:
            print(began[0], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return load(self, n)

    Layers.layer = layer
    asked(Checkpoint(sys.argv[1]), sys.argv[2])

for number in range(3):  # forks: what is imported is imported once
    child = os.fork()
    if not child:
        killed(number)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
"""


def asked(checkpoint: Checkpoint, folder: object, **how: object) -> tuple[list[Variant], Walk]:
    """A walk in which variants leave the model, part, share matrices and are calibrated on their own inputs."""
    quantizer = GPTQ(UniformAsymmetric(2, PerGroup(size=8)))
    variants = [Variant.by((s, k), NAMES[k:], quantizer, s) for s in (True, False) for k in (0, 7, 20)]
    variants += [
        Variant(
            "noise",
            {
                NAMES[3]: Noisy(0.1),
                NAMES[10]: Quantized(quantizer),
                NORM: Given(np.full(16, 0.9, np.float32)),
            },
        )
    ]
    texts = random_windows(30), random_windows(200, seed=1)
    options = {"keep": ["noise"], "limits": True, "device": "cpu", "folder": folder} | how
    return variants, walk(checkpoint, variants, *texts, **options)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> tuple[Checkpoint, list[Variant], Walk]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the tests: the order of sums is part of the last bit
    checkpoint = saved(tiny(), tmp_path_factory.mktemp("model"))
    results = asked(checkpoint, None)
    torch.set_num_threads(threads)
    return checkpoint, *results


def assert_equal_to_the_last_bit(one: Walk, other: Walk, variants: list[Variant]) -> None:
    for variant in variants:
        pd.testing.assert_frame_equal(one.of(variant), other.of(variant), check_exact=True)
        assert one.totals(variant) == other.totals(variant)
        assert_same(one.outputs[variant.label], other.outputs[variant.label])
    pd.testing.assert_frame_equal(one.points, other.points, check_exact=True)
    for label, tensors in one.tensors.items():
        assert tensors.keys() == other.tensors[label].keys()
        assert all((tensors[name] == other.tensors[label][name]).all() for name in tensors)


def test_a_walk_that_is_killed_in_any_layer_goes_on_there(tmp_path, uninterrupted):
    checkpoint, variants, whole = uninterrupted
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", KILLED, checkpoint.folder, tmp_path / "state"]
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, capture_output=True, text=True, env=env)
    assert killed.returncode == 0, killed.stderr
    assert killed.stdout.split() == ["0", "0", "1"], "it goes on at the layer that it was killed in"
    again = asked(checkpoint, tmp_path / "state")[1]
    assert_equal_to_the_last_bit(again, whole, variants)


def interrupted(monkeypatch, number: int, error: BaseException) -> None:
    """Let a walk fail where it loads a layer."""
    load = Layers.layer

    def layer(self, n):
        if n == number:
            raise error
        return load(self, n)

    monkeypatch.setattr(Layers, "layer", layer)


@pytest.mark.parametrize("number", [1, 2])
def test_ctrl_c_and_a_new_start(tmp_path, monkeypatch, uninterrupted, number):
    (checkpoint, variants, whole), ran, told = uninterrupted, [], []
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        interrupted(patched, number, KeyboardInterrupt())
        asked(checkpoint, tmp_path / "state")
    layer = Layers.layer
    monkeypatch.setattr(Layers, "layer", lambda self, n: ran.append(n) or layer(self, n))
    again = asked(checkpoint, tmp_path / "state", progress=told.append)[1]
    assert_equal_to_the_last_bit(again, whole, variants)
    assert ran == list(range(number, 3))
    assert told[0].layer == number and told[-1].left == 0 < told[-2].left
    assert_equal_to_the_last_bit(asked(checkpoint, tmp_path / "state")[1], whole, variants)
    assert ran == list(range(number, 3)), "only the head is run again"


def test_another_question_is_not_continued(tmp_path, monkeypatch):
    checkpoint, ran, layer = saved(tiny(), tmp_path / "model"), [], Layers.layer
    asked(checkpoint, tmp_path / "state")
    monkeypatch.setattr(Layers, "layer", lambda self, n: ran.append(n) or layer(self, n))
    asked(checkpoint, tmp_path / "state", limits=False)
    other = saved(tiny(seed=1), tmp_path / "other")
    asked(other, tmp_path / "state")
    assert ran == [0, 1, 2] * 2


def test_questions_are_told_apart_by_what_would_change_the_answer(tmp_path):
    checkpoint, texts = saved(tiny(), tmp_path), {"evaluation": random_windows()}
    W = checkpoint.tensor(NAMES[0])
    sources = [Quantized(Uniform(3)), Quantized(Uniform(4)), Quantized(Rotated(Uniform(3))), Noisy(0.1)]
    sources += [Noisy(0.1, seed=1), Given(W), Given(W + 1)]
    variants = [[Variant("v", {NAMES[0]: source})] for source in sources]
    variants += [[Variant("v", {NAMES[1]: sources[0]})], [Variant("v", {NAMES[0]: sources[0]}, True)], []]
    questions = [question(checkpoint, v, texts) for v in variants]
    questions += [question(checkpoint, variants[0], {"evaluation": random_windows(seed=1)})]
    questions += [question(checkpoint, variants[0], texts, True)]
    again = shutil.copytree(tmp_path, tmp_path / "other")
    config = json.loads((again / "config.json").read_text())
    (again / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    questions += [question(Checkpoint(again), variants[0], texts)]
    assert len(set(questions)) == len(questions)
    assert question(checkpoint, [Variant("w", {NAMES[0]: Quantized(Uniform(3))})], texts) == questions[0]
    assert question(checkpoint, [Variant("v", {NAMES[0]: Given(W.copy())})], texts) == questions[5]


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch, uninterrupted):
    (checkpoint, variants, whole), written, save = uninterrupted, [], np.save

    def full(path, array):
        written.append(path)
        if len(written) > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, array)

    with monkeypatch.context() as patched:
        patched.setattr(np, "save", full)
        with pytest.raises(OSError, match="after layer . cannot be written .*No space left.* is whole"):
            asked(checkpoint, tmp_path / "state")
    states = list((tmp_path / "state").glob("*/layer *"))
    assert len(states) == 1 and not list((tmp_path / "state").rglob("*.unfinished"))
    assert_equal_to_the_last_bit(asked(checkpoint, tmp_path / "state")[1], whole, variants)


@pytest.mark.parametrize("what", ["gone", "cut"])
def test_a_layer_that_cannot_be_read_is_named_and_the_walk_goes_on_when_it_can(tmp_path, uninterrupted, what):
    (_, variants, whole), checkpoint = uninterrupted, saved(tiny(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    content = file.read_bytes()

    def spoil(progress):
        if progress.layer == 1:
            file.unlink(missing_ok=True) if what == "gone" else os.truncate(file, 2000)

    with pytest.raises(ValueError, match="model.layers.[12].* cannot be read from model.safetensors"):
        asked(checkpoint, tmp_path / "state", progress=spoil)
    file.write_bytes(content)
    assert_equal_to_the_last_bit(asked(checkpoint, tmp_path / "state")[1], whole, variants)


def test_disk_is_told_before_it_is_used_and_refused_where_it_lacks(tmp_path, monkeypatch, uninterrupted):
    checkpoint, told = uninterrupted[0], []
    asked(checkpoint, tmp_path / "state", in_memory=0, progress=told.append)
    held, largest = told[0].disk, 0
    assert sorted(held) == sorted([tempfile.gettempdir(), str(next((tmp_path / "state").iterdir()))])
    state = held[str(next((tmp_path / "state").iterdir()))]
    for file in (tmp_path / "state").rglob("layer */*.npy"):
        largest += file.stat().st_size
    assert 0.9 * largest < state / 2 < 1.1 * largest
    monkeypatch.setattr(rdlib.engine.room.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(ValueError, match="Hidden states take .* GB in .*, and 0.0 GB are free"):
        asked(checkpoint, tmp_path / "other")


# Progress


@pytest.mark.parametrize("how", [{}, {"outputs": False}], ids=str)
def test_every_step_is_foreseen(tmp_path, how):
    """What is left falls to nothing with the last step, whatever is made, shared, left and run."""
    told = []
    asked(saved(tiny(), tmp_path), None, progress=told.append, **how)
    assert told[-1].left == 0 < min(p.left for p in told[:-1])
    assert [p.layer for p in told] == sorted(p.layer for p in told) and told[0].layer == 0
    assert all(a.spent <= b.spent for a, b in itertools.pairwise(told))


def test_what_is_left_takes_as_long_as_its_kind_took(monkeypatch):
    now = iter([0, 1, 1, 4, 4, 5])
    monkeypatch.setattr(rdlib.engine.course.time, "perf_counter", lambda: next(now))
    told = []
    clock = Clock(Counter({("quick",): 3, ("slow",): 2, ("new",): 1}), told.append, 1, {})
    for kind in ("quick", "slow", "quick"):
        with clock.step(kind):
            pass
    assert [p.spent for p in told] == [1, 4, 5]
    assert told[0].left == 2 * 1 + 2 * 1 + 1
    assert told[2].left == pytest.approx(1 * 1 + 1 * 3 + 5 / 3)


def test_a_bar_shows_seconds_and_goes(tmp_path, capsys):
    asked(saved(tiny(), tmp_path), None, progress=bar())
    assert "Traceback" not in capsys.readouterr().err
