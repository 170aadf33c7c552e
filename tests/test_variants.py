"""A variant holds what its method wrote, the price of it, and errors that add up."""

from pathlib import Path

import numpy as np
import pytest
from networks import random_windows, saved, tiny

from rdlib.checkpoints import IN_THE_BOX, aligned, open_quantized
from rdlib.functional.proxies import error_sizes
from rdlib.functional.variants import quantize_model, read_model
from rdlib.models.checkpoint import open_checkpoint
from rdlib.network.moments import Moments, second_moments
from rdlib.network.network import load_network
from rdlib.quantizers import LloydMax, PerGroup, UniformAsymmetric
from rdlib.quantizers.feedback.gptq import GPTQ

SIZES = ["squared", "relative", "diagonal", "output", "relative_output"]


@pytest.fixture
def model(tmp_path: Path):
    """Checkpoint, matrices of its linear layers, and their moments."""
    checkpoint = saved(tiny(), tmp_path / "tiny")
    weights = [w for w in checkpoint.weights if w.layer >= 0]
    return checkpoint, weights, second_moments(load_network(checkpoint, "cpu"), random_windows(20))


def test_a_variant_holds_what_the_quantizer_writes(model):
    checkpoint, weights, moments = model
    quantizer = LloydMax(3)
    variant = quantize_model(checkpoint, weights, quantizer, moments)
    assert (variant.method, variant.bits) == (quantizer.method, 3)
    assert list(variant.tensors) == list(variant.table.index) == [w.name for w in weights]
    for w in weights:
        W, row = checkpoint.tensor(w), variant.table.loc[w.name]
        code = quantizer.encode(W)
        assert (variant.tensors[w.name] == quantizer.decode(code)).all()
        assert (row.layer, row.group, row.weights, row.rate) == (w.layer, w.group, W.size, code.rate)
        assert row[SIZES].to_dict() == error_sizes(W, variant.tensors[w.name], moments[w])


def test_a_quantizer_is_given_the_moments(model):
    checkpoint, weights, moments = model
    plain = UniformAsymmetric(2, PerGroup(size=16))
    rounded, fed = (
        quantize_model(checkpoint, weights, q, moments).table for q in (plain, GPTQ(plain, damping=0.01))
    )
    assert fed.output.sum() < rounded.output.sum(), "feedback trades error of weights for that of outputs"
    assert fed.squared.sum() > rounded.squared.sum()


def test_totals_add_up(model):
    checkpoint, weights, moments = model
    variant = quantize_model(checkpoint, weights, LloydMax(2), moments)
    names = [w.name for w in weights]
    one, other, both = (variant.totals(part) for part in (names[:4], names[4:], names))
    for size in ("weights", *SIZES):
        assert both[size] == pytest.approx(one[size] + other[size])
    spent = one["rate"] * one["weights"] + other["rate"] * other["weights"]
    assert both["rate"] * both["weights"] == pytest.approx(spent)
    assert list(variant.part(names[2:4])) == names[2:4]
    assert variant.part(names[2:4])[names[2]] is variant.tensors[names[2]]


@pytest.mark.parametrize("name", ["auto-gptq", "autoawq"])
def test_a_checkpoint_is_read_in_the_coordinates_of_its_model(name):
    if name not in IN_THE_BOX:
        pytest.skip("not in the box yet")
    checkpoint, quantized = open_checkpoint("embedded"), open_quantized(name)
    widths = {w.name.removesuffix(".weight"): w.shape[1] for w in checkpoint.weights if w.layer >= 0}
    moments = Moments({module: np.eye(width) for module, width in widths.items()}, 1)
    variant = read_model(quantized, checkpoint, moments, method=name)
    assert (variant.method, variant.bits) == (name, 4)
    assert read_model(quantized, checkpoint, moments).method == quantized.method
    for layer, packed in aligned(quantized, checkpoint):
        assert (variant.tensors[layer] == packed.weight).all()
    assert (variant.table.relative < 0.03).all(), "four bits in groups of 128 keep more than 15 dB"
    total = quantized.rates.loc["quantized layers", "rate"]
    assert variant.totals(variant.tensors)["rate"] == pytest.approx(total)
