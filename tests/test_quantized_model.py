"""A quantized model has what its quantizers wrote, what that costs, and errors that add up."""

from pathlib import Path

import numpy as np
import pytest
from networks import random_windows, saved, tiny

from rdlib.checkpoints import IN_THE_BOX, aligned, open_quantized
from rdlib.functional.proxies import error_sizes
from rdlib.functional.quantized_model import quantize_model, read_model
from rdlib.models.checkpoint import open_checkpoint
from rdlib.network.moments import Moments, second_moments
from rdlib.network.network import load_network
from rdlib.quantizers import LloydMax, PerGroup, UniformAsymmetric
from rdlib.quantizers.feedback.gptq import GPTQ

SIZES = ["squared", "relative", "diagonal", "output", "relative_output"]


@pytest.fixture
def model(tmp_path: Path):
    """Checkpoint, names of the matrices of its linear layers, and their moments."""
    checkpoint = saved(tiny(), tmp_path / "tiny")
    names = [w.name for w in checkpoint.weights if w.layer >= 0]
    return checkpoint, names, second_moments(load_network(checkpoint, "cpu"), random_windows(20))


def test_it_has_what_the_quantizer_writes(model):
    checkpoint, names, moments = model
    quantizer = LloydMax(3)
    written = quantize_model(checkpoint, dict.fromkeys(names, quantizer), moments)
    assert (written.method, written.bits) == (quantizer.method, 3)
    assert list(written.tensors) == list(written.table.index) == names
    for w in checkpoint.weights:
        if w.layer < 0:
            continue
        W, row = checkpoint.tensor(w), written.table.loc[w.name]
        code = quantizer.encode(W)
        assert (written.tensors[w.name] == quantizer.decode(code)).all()
        assert (row.layer, row.group, row.weights, row.rate) == (w.layer, w.group, W.size, code.rate)
        assert row[SIZES].to_dict() == error_sizes(W, written.tensors[w.name], moments[w])


def test_a_quantizer_is_given_the_moments(model):
    checkpoint, names, moments = model
    plain = UniformAsymmetric(2, PerGroup(size=16))
    rounded, fed = (
        quantize_model(checkpoint, dict.fromkeys(names, q), moments).table
        for q in (plain, GPTQ(plain, damping=0.01))
    )
    assert fed.output.sum() < rounded.output.sum(), "feedback trades error of weights for that of outputs"
    assert fed.squared.sum() > rounded.squared.sum()


def test_totals_add_up(model):
    checkpoint, names, moments = model
    written = quantize_model(checkpoint, dict.fromkeys(names, LloydMax(2)), moments)
    one, other, both = (written.totals(part) for part in (names[:4], names[4:], names))
    for size in ("weights", *SIZES):
        assert both[size] == pytest.approx(one[size] + other[size])
    spent = one["rate"] * one["weights"] + other["rate"] * other["weights"]
    assert both["rate"] * both["weights"] == pytest.approx(spent)
    assert list(written.part(names[2:4])) == names[2:4]
    assert written.part(names[2:4])[names[2]] is written.tensors[names[2]]


def test_several_quantizers_and_no_moments(model):
    checkpoint, names, _ = model
    several = {names[0]: LloydMax(2), names[1]: LloydMax(3), "model.embed_tokens.weight": LloydMax(4)}
    written = quantize_model(checkpoint, several)
    assert written.method == "plan" and np.isnan(written.bits) and list(written.tensors) == list(several)
    assert list(written.table) == ["layer", "group", "weights", "rate"]
    assert written.rates == {n: q.encode(checkpoint.tensor(n)).rate for n, q in several.items()}
    nothing = quantize_model(checkpoint, {})
    assert nothing.rate == 0 and nothing.rates == {}


def test_the_embedding_has_no_moments_and_is_quantized_without(model):
    checkpoint, names, moments = model
    both = dict.fromkeys([names[0], "model.embed_tokens.weight"], LloydMax(3))
    table = quantize_model(checkpoint, both, moments).table
    assert table[SIZES].notna().all(axis=1).to_list() == [True, False]


@pytest.mark.parametrize(
    "name", ["nothing.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight"]
)
@pytest.mark.parametrize("weighed", [True, False])
def test_a_matrix_that_cannot_be_quantized_is_named(model, name, weighed):
    checkpoint, _, moments = model
    with pytest.raises(ValueError, match=rf"^{name}, Lloyd–Max tensor: "):
        quantize_model(checkpoint, {name: LloydMax(3)}, moments if weighed else None)


@pytest.mark.parametrize("name", ["auto-gptq", "autoawq"])
def test_a_checkpoint_is_read_in_the_coordinates_of_its_model(name):
    if name not in IN_THE_BOX:
        pytest.skip("not in the box yet")
    checkpoint, quantized = open_checkpoint("embedded"), open_quantized(name)
    widths = {w.name.removesuffix(".weight"): w.shape[1] for w in checkpoint.weights if w.layer >= 0}
    moments = Moments({module: np.eye(width) for module, width in widths.items()}, 1)
    written = read_model(quantized, checkpoint, moments, method=name)
    assert (written.method, written.bits) == (name, 4)
    assert read_model(quantized, checkpoint, moments).method == quantized.method
    for layer, packed in aligned(quantized, checkpoint):
        assert (written.tensors[layer] == packed.weight).all()
    assert (written.table.relative < 0.03).all(), "four bits in groups of 128 keep more than 15 dB"
    total = quantized.rates.loc["quantized layers", "rate"]
    assert written.totals(written.tensors)["rate"] == pytest.approx(total)
