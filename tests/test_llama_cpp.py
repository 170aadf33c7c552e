"""Quantizers that are llama.cpp itself, through libgguf."""

import sys

import libgguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, quants
from sources import gaussian

from rdlib.checkpoints import aligned, open_quantized
from rdlib.checkpoints.llama_cpp import LlamaCpp, LlamaCppImportance, writable
from rdlib.checkpoints.lossless import entropies
from rdlib.checkpoints.readers.gguf import GGUFDecoder
from rdlib.measure import measure_code
from rdlib.models import EMBEDDED, open_checkpoint
from rdlib.models.gguf import named_type
from rdlib.network.network import load_network
from rdlib.network.texts import load_tokenizer

MSE = {  # of N(0, 1), measured once: rate, mean squared error
    "Q2_K": (2.625, 0.0854),
    "Q3_K": (3.4375, 0.0228),
    "Q4_K": (4.5, 0.00500),
    "Q5_K": (5.5, 0.00130),
    "Q6_K": (6.5625, 0.00031),
    "IQ4_XS": (4.25, 0.00589),
    "IQ3_S": (3.4375, 0.0272),
}


@pytest.mark.parametrize("kind", MSE)
def test_rates_and_errors_of_gaussian_weights(kind):
    W, quantizer = gaussian((64, 2048)), LlamaCpp(kind)
    rate, mse = MSE[kind]
    point = measure_code(W, quantizer, quantizer.encode(W))
    assert quantizer.bits == rate and point.rate == pytest.approx(rate, abs=0.005)
    assert point.mse == pytest.approx(mse, rel=0.05)


@pytest.mark.parametrize("kind", [*MSE, "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ4_NL"])
def test_what_it_wrote_is_decoded_as_the_package_decodes_it(kind):
    W, quantizer = gaussian((8, 512)), LlamaCppImportance(kind)
    number = GGMLQuantizationType[kind]
    rows = libgguf.quantize_rows(W, number.value, np.ones(512, np.float32))
    assert np.array_equal(quantizer.decode(quantizer.encode(W)), quants.dequantize(rows, number))


@pytest.mark.parametrize("kind", ["Q2_K", "Q4_K", "IQ2_XXS", "IQ3_XXS"])
def test_importance_lessens_the_error_that_is_weighed(kind):
    W = gaussian((64, 512))
    H = np.diag(np.random.default_rng(0).lognormal(0, 2, 512))
    given, equal = LlamaCppImportance(kind), LlamaCppImportance(kind)
    codes = given.encode(W, H), equal.encode(W)
    errors = [((W - given.decode(code)) ** 2 @ np.diag(H)).mean() for code in codes]
    assert errors[0] < 0.95 * errors[1]
    assert codes[0].rate == codes[1].rate


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="Rows of 100 weights are no whole blocks of Q4_K"):
        LlamaCpp("Q4_K").encode(gaussian((2, 100)))
    with pytest.raises(ValueError, match="only with importance: use LlamaCppImportance"):
        LlamaCpp("IQ2_XXS").encode(gaussian((2, 256)))


def test_what_can_be_written_and_why_not_the_rest(monkeypatch):
    kinds = ["Q4_0", "Q4_K", "IQ4_NL"]
    assert writable(kinds, {512, 1024}) == (kinds, "")
    some, why = writable(kinds, {512, 576})
    assert (
        some == ["Q4_0", "IQ4_NL"]
        and why == "Left out: Q4_K, whose blocks do not divide rows of 576 weights."
    )
    monkeypatch.setitem(sys.modules, "libgguf", None)
    assert writable(kinds) == (
        [],
        "Left out: Q4_0, Q4_K, IQ4_NL, written by libgguf: pip install 'rdlib[gguf]'",
    )


@pytest.mark.parametrize("kind", ["Q4_K", "Q6_K", "IQ4_XS"])
def test_a_file_of_the_model_in_the_box(tmp_path, kind):
    """Written by llama.cpp's code, read by ours: it is aligned with its model, and runs and reads text as that does."""
    from rdlib.tools.producers.llama_cpp import write

    path, reference = tmp_path / "small.gguf", open_checkpoint("embedded")
    write(EMBEDDED, path, kind)
    quantized = open_quantized(path)
    assert quantized.method == f"GGUF {kind}"
    limit = {"Q4_K": 0.01, "Q6_K": 0.001, "IQ4_XS": 0.01}[kind]
    for name, packed in aligned(quantized, reference).items():
        W = reference.tensor(name).astype(np.float32)
        assert ((packed.weight - W) ** 2).sum() < limit * (W**2).sum(), name
    text = "Once upon a time, there were 12 little ducks."
    assert load_tokenizer(path)(text)["input_ids"] == load_tokenizer("embedded")(text)["input_ids"]
    ours, theirs = (load_network(c, device="cpu") for c in (open_checkpoint(path), reference))
    tokens = torch.tensor([load_tokenizer(path)(text)["input_ids"]])
    with torch.no_grad():
        p, q = (network(tokens).logits.log_softmax(-1) for network in (theirs, ours))
    assert (p.exp() * (p - q)).sum(-1).mean() < 20 * limit


def test_the_lossless_price_of_the_small_model_is_that_of_the_reference():
    """In bits per weight of its linear layers: bfloat16 as it is, and the fields of Q4_K."""
    checkpoint, found = open_checkpoint("embedded"), {}
    linear = [checkpoint.tensor(weight.name) for weight in checkpoint.weights if weight.layer >= 0]
    for W in linear:
        floats = np.ascontiguousarray(W).view(np.uint8).reshape(len(W), -1)
        for kind, rows in (("BF16", floats), ("Q4_K", LlamaCpp("Q4_K").blocks(W))):
            for name, rate in entropies(GGUFDecoder(named_type(kind)).encoded(rows)).items():
                found[kind, name] = found.get((kind, name), 0) + rate * W.size
    rates = {key: bits / sum(W.size for W in linear) for key, bits in found.items()}
    of_floats = {name: rate for (kind, name), rate in rates.items() if kind == "BF16"}
    assert of_floats == pytest.approx({"sign": 1, "exponent": 2.59, "mantissa": 6.97}, abs=0.005)
    fields = {name: rate for (kind, name), rate in rates.items() if kind == "Q4_K"}
    assert sum(fields.values()) == pytest.approx(4.24, abs=0.005)
    assert fields["index"] == pytest.approx(3.86, abs=0.005)
    assert fields["scale"] + fields["minimum"] == pytest.approx(0.31, abs=0.005)
    assert fields["super_scale"] + fields["super_minimum"] == pytest.approx(0.07, abs=0.005)
