"""Rotations: orthogonal, the same on every machine, and good for nothing but to make weights Gaussian."""

import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.stats import kurtosis
from sources import gaussian, heavy

from rdlib.measure import measure
from rdlib.quantizers import LloydMax, Rotated, Scaled, UniformMidTread
from rdlib.quantizers.transform.rotated import rotate, rotate_back

SIZES = [1, 2, 3, 4, 5, 7, 12, 64, 97, 172]


@pytest.mark.parametrize("size", SIZES)
def test_a_rotation_is_orthogonal(size):
    V = rotate(np.eye(size), seed=3)
    assert V @ V.T == pytest.approx(np.eye(size), abs=1e-12)
    x = gaussian((5, size))
    assert rotate_back(rotate(x, seed=3), seed=3) == pytest.approx(x, abs=1e-12)
    assert rotate(x, seed=3) == pytest.approx(x @ V, abs=1e-12)


@pytest.mark.parametrize("size", [s for s in SIZES if s > 1])
def test_every_output_mixes_all_inputs(size):
    V = rotate(np.eye(size), seed=0)
    assert np.abs(V).max() <= np.sqrt(2 / (size & -size) / max(size // (size & -size), 1)) + 1e-12
    if size & (size - 1) == 0:
        assert np.abs(V) == pytest.approx(np.full((size, size), size**-0.5))


def test_for_a_power_of_two_it_is_the_randomised_hadamard_transform():
    V = rotate(np.eye(64), seed=9)
    signs = np.sign(V[:, 0])
    assert signs[:, None] * V == pytest.approx(hadamard(64) / 8, abs=1e-12)
    assert abs(signs.sum()) < 30


def splitmix64(state: int) -> int:
    """The published generator, in whole numbers: its output after a step from ``state``."""
    z = (state + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_signs_are_the_top_bits_of_a_published_generator():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # its first number for the seed 0
    for seed in (0, 1, 77):
        states = [seed + i * 0x9E3779B97F4A7C15 for i in range(16)]
        signs = [1 - 2 * (splitmix64(state) >> 63) for state in states]
        assert np.sign(rotate(np.eye(16), seed)[:, 0]).tolist() == signs
    assert not np.array_equal(rotate(np.eye(64), seed=0), rotate(np.eye(64), seed=1))


def test_the_seed_is_in_the_code():
    W = gaussian((16, 48))
    code = Rotated(UniformMidTread(8), seed=5).encode(W)
    assert code.streams["seed"].bits == 32
    other = Rotated(UniformMidTread(8), seed=99)
    assert np.array_equal(other.decode(code), Rotated(UniformMidTread(8), seed=5).decode(code))
    for seed in (-1, 1 << 32):
        with pytest.raises(ValueError, match="32 bits"):
            Rotated(UniformMidTread(8), seed=seed)


def test_rotated_heavy_tails_are_gaussian_and_gaussians_stay_so():
    for W, before in ((heavy((256, 256)), 20), (gaussian((256, 256)), -0.1)):
        turned = rotate(rotate(W, 1).T, 0)
        assert kurtosis(W, axis=None) > before
        assert abs(kurtosis(turned, axis=None)) < 0.2
        assert np.mean(turned**2) == pytest.approx(np.mean(W.astype(float) ** 2), rel=1e-6)


def test_what_rotation_buys_on_heavy_tails_and_not_on_gaussians():
    heavy_gain, gaussian_gain = (
        10 * np.log10(measure(W, q).mse / measure(W, Rotated(q)).mse)
        for W, q in ((heavy((256, 256)), UniformMidTread(4)), (gaussian((256, 256)), LloydMax(3)))
    )
    assert heavy_gain > 10
    assert abs(gaussian_gain) < 0.1


def test_the_error_of_a_layers_output_is_the_one_of_the_rotated_problem():
    """E·V has tr(E V · Vᵀ H V · Vᵀ Eᵀ) = tr(E H Eᵀ): the inner quantizer may minimise what it sees."""
    W, x = heavy((24, 40)), gaussian((500, 40), np.float64)
    H = x.T @ x / len(x)
    seen = []

    class Spy(UniformMidTread):
        uses_H = True

        def quantize(self, W, H):
            seen.append((W, H))
            return super().quantize(W, H)

    quantizer = Rotated(Spy(3), seed=2)
    outer = measure(W, quantizer, H)
    inner = measure(*[seen[0][0], UniformMidTread(3), seen[0][1]])
    assert outer.output_mse == pytest.approx(inner.output_mse, rel=1e-4)
    assert outer.mse == pytest.approx(inner.mse, rel=1e-4)
    assert np.linalg.slogdet(seen[0][1]) == pytest.approx(np.linalg.slogdet(H))


def test_rotation_works_outside_of_scales():
    W = heavy((64, 172))
    point = measure(W, Rotated(Scaled(LloydMax(3))))
    assert point.nmse < 0.05
