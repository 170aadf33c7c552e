"""Committed checkpoints, decoded by the packages that wrote them: where a package is installed.

bitsandbytes always is, but for the legacy environment; `make checkpoints` runs these tests in those of the others.
"""

from importlib import import_module

import numpy as np
import pytest

from rdlib.checkpoints import IN_THE_BOX, open_quantized

MODULES = (
    *("bitsandbytes", "gptqmodel", "autoawq", "auto_gptq"),
    *("compressed_tensors", "compressed_tensors_legacy"),
    *("mlx_lm", "exl3", "hqq"),
    *("finegrained_fp8", "modelopt"),
)


@pytest.mark.parametrize("module", MODULES)
def test_decoded_as_the_package_decodes_it(module):
    try:
        producer = import_module(f"rdlib.tools.producers.{module}")
    except ImportError as error:
        pytest.skip(f"{module} is not installed here: {error}")
    for name in producer.CHECKPOINTS:
        quantized, theirs = open_quantized(name), producer.dequantize(IN_THE_BOX[name])
        assert sorted(theirs) == sorted(quantized.layers)
        for layer, W in theirs.items():
            assert np.array_equal(quantized.tensor(layer), W), (name, layer)
