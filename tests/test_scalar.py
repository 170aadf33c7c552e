"""Uniform quantizers: where their levels lie, what they are charged, and how good they are."""

import math
from itertools import product

import numpy as np
import pytest
import scipy.stats
from quantizer_list import CLIPPINGS, GRANULARITIES, UNIFORM, method
from sources import DTYPES, gaussian, gaussian_quantiles, heavy, one_thread  # noqa: F401

from rdlib.measure import measure
from rdlib.quantizers import (
    LeastSquares,
    LloydMax,
    MinMax,
    PerChannel,
    PerGroup,
    PerTensor,
    Sigmas,
    Uniform,
    UniformAsymmetric,
    UniformMidTread,
)

pytestmark = pytest.mark.filterwarnings("error")

FAMILIES = (Uniform, UniformMidTread, UniformAsymmetric)
EXACT = [PerTensor(), PerChannel(scale_format="float32"), PerGroup(size=32, scale_format="float32")]

# ../shared/REFERENCE.md: step and MSE of the optimal uniform quantizer of N(0, 1) with N mid-rise levels.
OPTIMAL = {
    2: (2 * math.sqrt(2 / math.pi), 1 - 2 / math.pi),
    4: (0.995687, 0.1188460504),
    8: (0.586019, 0.0374396594),
    16: (0.335201, 0.0115428844),
    256: (0.030762, 0.0000876862),
}

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.family)
every_uniform = pytest.mark.parametrize("quantizer", UNIFORM, ids=method)


def encode(quantizer, W: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decoded weights, and the scale and the nominal step of each weight."""
    code = quantizer.encode(W)
    scale = quantizer.granularity.expand(code["scale"], W.shape).astype(np.float64)
    span = scale if isinstance(quantizer, UniformAsymmetric) else 2 * scale
    return quantizer.decode(code).astype(np.float64), scale, span / max(quantizer.levels - 1, 1)


def per_group(f, W: np.ndarray, granularity) -> np.ndarray:
    """``f`` of the weights that share a scale, at every weight."""
    width = granularity.width(W.shape[1])
    out = np.empty(W.shape)
    for i, j in product(range(len(W)), range(0, W.shape[1], width)):
        out[i, j : j + width] = f(W if isinstance(granularity, PerTensor) else W[i, j : j + width])
    return out


# Levels


@pytest.mark.parametrize("bits", range(1, 17))
def test_mid_rise_has_two_to_the_b_levels_and_none_is_zero(bits):
    W = np.linspace(-1, 1, 1 << 17, dtype=np.float32)[None]
    levels = np.unique(encode(Uniform(bits), W)[0])
    assert len(levels) == 2**bits
    assert np.array_equal(levels, -levels[::-1])
    assert 0 not in levels
    assert np.diff(levels) == pytest.approx(2 / (2**bits - 1), abs=2**-23)
    assert (levels[0], levels[-1]) == (-1, 1)


@pytest.mark.parametrize("bits", range(2, 17))
def test_mid_tread_has_one_level_fewer_one_of_them_zero_and_pays_for_so_many(bits):
    W = np.linspace(-1, 1, (1 << 17) + 1, dtype=np.float32)[None]
    levels = np.unique(encode(UniformMidTread(bits), W)[0])
    assert len(levels) == 2**bits - 1
    assert np.array_equal(levels, -levels[::-1])
    assert 0 in levels
    price = UniformMidTread(bits).encode(W).streams["index"].bits / W.size
    assert math.log2(2**bits - 1) - 1e-9 <= price <= min(1.001 * math.log2(2**bits - 1), bits) + 8 / W.size


@pytest.mark.parametrize("bits", range(1, 17))
def test_asymmetric_has_two_to_the_b_levels_and_one_of_them_is_zero(bits):
    W = np.linspace(-0.3, 1, 1 << 17, dtype=np.float32)[None]
    W[0, 0] = 0
    levels = np.unique(encode(UniformAsymmetric(bits), W)[0])
    assert len(levels) <= 2**bits
    assert len(levels) >= 2**bits - 1  # the range may be shifted by half a step
    assert 0 in levels


@pytest.mark.parametrize("family", [UniformMidTread, UniformAsymmetric], ids=lambda family: family.family)
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda granularity: granularity.label)
@pytest.mark.parametrize("clipping", CLIPPINGS, ids=lambda clipping: clipping.label or "min-max")
def test_zero_is_decoded_as_zero(family, granularity, clipping):
    """Also where all other weights of its group lie far away on one side."""
    rng = np.random.default_rng(0)
    for W in (heavy((12, 172)), 1 + gaussian((12, 172)) / 9, -3 + gaussian((12, 172)) / 9):
        zeros = rng.random(W.shape) < 0.2
        W[zeros] = 0
        for bits in (2, 3, 4, 8):
            assert not encode(family(bits, granularity, clipping), W)[0][zeros].any()


@every_family
def test_a_positive_matrix_wastes_no_level_on_negative_weights(family):
    W = np.linspace(0, 1, 4096, dtype=np.float32)[None]
    decoded, _, step = encode(family(4), W)
    assert len(np.unique(decoded)) == {Uniform: 8, UniformMidTread: 8, UniformAsymmetric: 16}[family]


# Errors


@every_uniform
def test_each_weight_goes_to_its_nearest_level(quantizer):
    W = heavy((8, 172))
    decoded, _, _ = encode(quantizer, W)
    granularity = quantizer.granularity
    width = granularity.width(W.shape[1])
    for i, j in product(range(len(W)), range(0, W.shape[1], width)):
        place = (slice(None), slice(None)) if isinstance(granularity, PerTensor) else (i, slice(j, j + width))
        group, chosen = W[place].ravel().astype(np.float64), decoded[place].ravel()
        found = np.unique(chosen)
        least = np.abs(group[:, None] - found).min(axis=1)
        assert np.abs(group - chosen) == pytest.approx(least, rel=1e-5, abs=1e-9)


@every_family
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("granularity", [*GRANULARITIES, *EXACT[1:]], ids=repr)
def test_unclipped_errors_are_at_most_half_a_step(family, dtype, granularity):
    """And what the scale was rounded by; a zero point lies on the grid, so that one end may lose half a step."""
    W = heavy((16, 172), dtype)
    wide = W.astype(np.float64)
    asymmetric = family is UniformAsymmetric
    for bits in (2, 4, 8, 12):
        decoded, scale, step = encode(family(bits, granularity), W)
        if asymmetric:
            exact = per_group(lambda w: max(w.max(), 0) - min(w.min(), 0), wide, granularity)
        else:
            exact = per_group(lambda w: np.abs(w).max(), wide, granularity)
        assert np.abs(scale - exact).max() <= 2**-11 * exact.max()
        lost = np.maximum(exact - scale, 0) + 4e-7 * exact
        assert np.all(np.abs(wide - decoded) <= step / 2 + lost)


@every_family
@pytest.mark.parametrize("granularity", EXACT, ids=lambda granularity: granularity.label)
@pytest.mark.parametrize("source", [gaussian, heavy], ids=lambda source: source.__name__)
def test_the_best_clip_is_never_worse_than_none(family, granularity, source):
    """In every group, for scales that are not rounded."""
    W = source((16, 172))
    for bits in range(family.bits_allowed[0], 9):
        clipped, whole = (
            per_group(np.sum, (W - encode(family(bits, granularity, clipping), W)[0]) ** 2, granularity)
            for clipping in (LeastSquares(), MinMax())
        )
        assert np.all(clipped <= whole * (1 + 1e-5))


@every_family
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda granularity: granularity.label)
def test_the_best_clip_is_about_as_good_as_any_factor(family, granularity):
    """Against 40 clips at k·σ: the error of a group has many local minima, and the search finds a good one.

    A clip at k·σ cuts an asymmetric range on its longer side only, which the one factor of the range cannot.
    """
    W, worse = heavy((6, 172)), 1.1 if family is UniformAsymmetric else 1.01
    for bits in (2, 4):
        best = measure(W, family(bits, granularity, LeastSquares())).mse
        sigmas = (float(k) for k in np.geomspace(0.2, 8, 40))
        assert best <= worse * min(measure(W, family(bits, granularity, Sigmas(k))).mse for k in sigmas)


@every_family
@pytest.mark.parametrize("granularity", GRANULARITIES, ids=lambda granularity: granularity.label)
def test_a_clip_at_k_sigma_is_a_range_of_k_sigma(family, granularity):
    W = heavy((16, 172))
    for k in (0.5, 2.0, 3.0):
        decoded, _, _ = encode(family(4, granularity, Sigmas(k)), W)
        limit = k * np.sqrt(per_group(lambda w: np.mean(w.astype(np.float64) ** 2), W, granularity))
        half = limit / 15 if family is UniformAsymmetric else 0  # the zero point was rounded
        assert np.all(np.abs(decoded) <= limit * (1 + 2**-10) + half)


@every_family
def test_a_clip_beyond_all_weights_is_none(family):
    W = heavy((16, 172))
    for granularity in GRANULARITIES:
        codes = (family(4, granularity, clipping).encode(W) for clipping in (Sigmas(1e6), MinMax()))
        assert len({code.to_bytes() for code in codes}) == 1


# How good they are


@every_uniform
def test_no_uniform_quantizer_of_a_tensor_is_better_than_lloyd_max(quantizer):
    if isinstance(quantizer.granularity, PerTensor):
        for W in (heavy((20, 172)), gaussian((20, 172))):
            for bits in range(2, 9):
                optimum = measure(W, LloydMax(bits)).mse
                assert measure(W, quantizer.at(bits)).mse >= optimum * (1 - 1e-3)  # its levels are float16


@pytest.mark.parametrize("levels", OPTIMAL)
def test_the_best_clip_of_a_gaussian_is_the_optimal_uniform_quantizer(levels):
    W = gaussian_quantiles(1 << (20 if levels == 256 else 17))
    bits = levels.bit_length() - 1
    decoded, _, step = encode(Uniform(bits, clipping=LeastSquares()), W)
    tail = (
        scipy.stats.norm.sf(W.max()) * 2
    )  # of the source beyond the last quantile, where |w − ŵ| is about 1
    assert np.mean((W - decoded) ** 2) == pytest.approx(OPTIMAL[levels][1], rel=1e-4, abs=tail)
    assert step[0, 0] == pytest.approx(OPTIMAL[levels][0], rel=5e-3)


def test_one_bit_per_tensor_is_the_mean_magnitude():
    W = heavy((30, 40))
    _, scale, _ = encode(Uniform(1, clipping=LeastSquares()), W)
    assert scale[0, 0] == pytest.approx(np.abs(W).mean(), rel=1e-3)


def test_finer_scales_cost_more_and_err_less_on_rows_of_different_variance():
    W = gaussian((64, 256)) * np.geomspace(0.1, 10, 64, dtype=np.float32)[:, None]
    points = [measure(W, Uniform(4, granularity)) for granularity in GRANULARITIES]
    assert all(a.side_rate < b.side_rate and a.mse > b.mse for a, b in zip(points, points[1:], strict=False))


@every_family
def test_the_histogram_is_the_tensor(family):
    """Per-tensor ranges come from the histogram; a tensor of one row has the same ranges per channel."""
    row = heavy((1, 700), np.float16)
    for clipping in CLIPPINGS:
        whole, channel = (encode(family(4, g, clipping), row)[0] for g in EXACT[:2])
        assert whole == pytest.approx(channel, rel=1e-4, abs=1e-9)


@every_uniform
def test_a_group_does_not_see_its_neighbours(quantizer):
    if not isinstance(quantizer.granularity, PerTensor):
        W = heavy((6, 172))
        decoded = encode(quantizer, W)[0]
        width = quantizer.granularity.width(172)
        for j in range(0, 172, width):
            alone = quantizer.decode(quantizer.encode(W[2:3, j : j + width]))
            assert np.array_equal(alone, decoded[2:3, j : j + width])
