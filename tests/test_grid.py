"""Weights on a grid are recognised from their values, and weights on none are not."""

import ml_dtypes
import numpy as np
import pandas as pd
import pytest
from gguf import GGMLQuantizationType, quants
from sources import gaussian

from rdlib.grid import dithered, find_grid, twin_note
from rdlib.quantizers import NF4, LLMInt8, LloydMax
from rdlib.weights import BFLOAT16


def heavy_tailed(shape: tuple[int, int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_t(4, shape).astype(np.float32)


def requantized(W: np.ndarray, kind: str) -> np.ndarray:
    return quants.dequantize(quants.quantize(W, GGMLQuantizationType[kind]), GGMLQuantizationType[kind])


SOURCES = pytest.mark.parametrize("source", [gaussian, heavy_tailed])


@SOURCES
@pytest.mark.parametrize(
    ("kind", "levels", "rate"),
    [("Q4_0", 16, 4.5), ("Q4_1", 16, 5.0), ("Q5_0", 32, 5.5), ("Q5_1", 32, 6.0), ("Q8_0", 256, 8.5)],
)
@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_blocks_of_gguf(source, kind, levels, rate, scale):
    found = find_grid(requantized(source((96, 576), seed=1) * np.float32(scale), kind))
    assert found.size == 32 and found.levels <= levels
    assert found.rate == pytest.approx(rate, abs=0.03)


@SOURCES
def test_nf4(source):
    W = source((64, 512), seed=2)
    found = find_grid(NF4().decode(NF4().encode(W)))
    assert (found.size, found.levels) == (64, 16)
    assert 4.25 <= found.rate <= 4.5


@pytest.mark.parametrize(("kind", "levels"), [("Q4_0", 16), ("Q4_1", 16)])
def test_grids_survive_bfloat16(kind, levels):
    found = find_grid(requantized(gaussian((96, 576), seed=3), kind).astype(BFLOAT16))
    assert found.size == 32 and found.levels <= levels


def test_one_grid_for_all_weights():
    W = gaussian((64, 512), seed=4)
    quantizer = LloydMax(bits=3)
    found = find_grid(quantizer.decode(quantizer.encode(W)))
    assert found.levels == 8 and found.size == W.size and found.rate == pytest.approx(3, abs=0.01)
    assert find_grid(W.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)).size == W.size


def test_one_grid_for_each_row():
    W = gaussian((64, 512), seed=5)
    found = find_grid(LLMInt8().decode(LLMInt8().encode(W)))
    assert found.size == 512 and 240 < found.levels <= 255 and found.rate == pytest.approx(8, abs=0.1)


@SOURCES
@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16])
@pytest.mark.parametrize("shape", [(512, 576), (33, 48), (4, 4096), (3, 20)])
@pytest.mark.parametrize("scale", [1.0, 0.02])
def test_no_false_alarm(source, dtype, shape, scale):
    for seed in range(2):
        assert find_grid((source(shape, seed=seed) * np.float32(scale)).astype(dtype)) is None


@SOURCES
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_a_dithered_twin_is_on_no_grid_and_as_far_as_its_steps_say(source, kind):
    W = requantized(source((96, 576), seed=6), kind)
    twin = dithered(W, find_grid(W))
    assert find_grid(twin) is None and twin.dtype == np.float32
    assert (twin == dithered(W, find_grid(W))).all() and (twin != dithered(W, find_grid(W), seed=1)).any()
    noise = (twin - W).reshape(-1, 32)
    ends = W.reshape(-1, 32).max(axis=1), W.reshape(-1, 32).min(axis=1)
    span = ends[0] - ends[1] if kind == "Q4_1" else abs(np.array(ends)).max(axis=0)
    steps = span / {"Q4_1": 15, "Q4_0": 8, "Q8_0": 127}[kind]
    assert np.quantile(abs(noise).max(axis=1) / steps, 0.99) <= 0.5001, (
        "a block may show every second level only"
    )
    assert (noise**2).mean() == pytest.approx((steps**2).mean() / 12, rel=0.02)


def test_where_the_grid_decides_a_result():
    rows = pd.MultiIndex.from_tuples([("uniform", 4), ("Lloyd–Max", 4)])
    gaps = pd.DataFrame({"weights": [0.86, 0.970], "twin": [0.89, 0.975]}, index=rows)
    assert twin_note(gaps).endswith(": uniform at 4 bits") and twin_note(gaps[1:]).endswith(": none")


def test_a_twin_of_one_grid_for_all_weights():
    W = np.float32(0.5) * np.random.default_rng(0).integers(0, 4, (6, 50)).astype(np.float32)
    noise = dithered(W, find_grid(W)) - W
    assert 0.24 < abs(noise).max() <= 0.25


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 7)])
def test_small_and_constant_matrices(shape):
    found = find_grid(np.zeros(shape, np.float32))
    assert found is None or found.levels == 1
