"""Committed checkpoints, decoded by the packages that wrote them: where a package is installed.

bitsandbytes always is.  `make checkpoints` runs these tests in the environments of the others.
"""

from importlib import import_module
from types import ModuleType

import numpy as np
import pytest

from rdlib.checkpoints import IN_THE_BOX, open_quantized
from rdlib.models import open_checkpoint


@pytest.mark.parametrize("module", ["bitsandbytes", "gptqmodel", "autoawq", "auto_gptq"])
def test_decoded_as_the_package_decodes_it(module):
    try:
        producer = import_module(f"rdlib.producers.{module}")
    except ImportError as error:
        pytest.skip(f"{module} is not installed here: {error}")
    for name in producer.CHECKPOINTS:
        quantized, theirs = open_quantized(name), producer.dequantize(IN_THE_BOX[name])
        assert sorted(theirs) == sorted(quantized.layers)
        for layer, W in theirs.items():
            assert np.array_equal(quantized.tensor(layer), W), (name, layer)


def _package() -> ModuleType:
    """rdlib's way to bitsandbytes, which the legacy environment lacks."""
    pytest.importorskip("bitsandbytes")
    return import_module("rdlib.checkpoints.package")


@pytest.mark.parametrize(("kind", "double"), [("nf4", False), ("nf4", True), ("fp4", False), ("int8", False)])
def test_straight_through_the_package(kind, double):
    """A dense weight matrix by bitsandbytes itself: as close as its bits allow, at the price of its streams."""
    W = open_checkpoint("embedded").tensor("model.layers.1.mlp.up_proj.weight")
    packed = _package().quantize_by_package(W, kind, double)
    wide = W.astype(np.float64)
    snr = wide.var() / ((wide - packed.weight) ** 2).mean()
    assert {"nf4": 80, "fp4": 40, "int8": 5000}[kind] < snr
    rows, columns = W.shape
    scales = {"nf4": 32 / 64, "fp4": 32 / 64, "int8": 32 / columns}[kind]
    expected = (8 if kind == "int8" else 4) + scales
    if double:
        expected = 4 + 8 / 64 + 32 / (64 * 256) + 32 / W.size
    assert packed.code.rate == pytest.approx(expected)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="not 'nf3'"):
        _package().quantize_by_package(np.ones((2, 64), np.float32), "nf3")
