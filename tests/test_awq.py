"""AWQ: scales are found, paid for, and never make the output worse."""

import numpy as np
from sources import gaussian, one_thread  # noqa: F401
from test_feedback import correlated

from rdlib.measure import measure
from rdlib.quantizers import AWQ, GPTQ, PerGroup, UniformAsymmetric

GRID = UniformAsymmetric(3, PerGroup(size=32))


def uneven(inputs: int) -> np.ndarray:
    """A few inputs a hundred times as strong as others."""
    return np.diag(np.where(np.arange(inputs) % 16 == 3, 100.0, 1.0))


def test_it_is_no_worse_than_its_inner_quantizer():
    W = gaussian((64, 96))
    for H in (np.eye(96), correlated(96), uneven(96)):
        assert measure(W, AWQ(GRID), H).output_mse <= measure(W, GRID, H).output_mse


def test_strong_inputs_are_worth_a_larger_scale():
    W, H = gaussian((64, 96)), uneven(96)
    code = AWQ(GRID).encode(W, H)
    scale = code["channel_scale"]
    assert scale[3] > 1.5 * scale[0]
    assert measure(W, AWQ(GRID), H).output_mse < 0.7 * measure(W, GRID, H).output_mse


def test_white_inputs_need_no_scales():
    W = gaussian((64, 96))
    for H in (None, np.eye(96)):
        code = AWQ(GRID).encode(W, H)
        assert (code["channel_scale"] == 1).all()
        assert np.array_equal(code["index"], GRID.encode(W)["index"])


def test_scales_cost_sixteen_bits_a_column():
    W, H = gaussian((64, 96)), uneven(96)
    scaled, plain = AWQ(GRID).encode(W, H).prices, GRID.encode(W).prices
    assert scaled == plain | {"channel_scale": 16 * 96, "header": plain["header"] + 8 * 2}


def test_feedback_may_be_inside():
    W, H = gaussian((64, 96)), correlated(96)
    assert measure(W, AWQ(GPTQ(GRID)), H).output_mse <= measure(W, GPTQ(GRID), H).output_mse
