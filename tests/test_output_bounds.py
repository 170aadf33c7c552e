"""The limit under a known covariance: inverses, limits, invariances, and what few tokens do to it."""

import numpy as np
import pytest
from test_feedback import correlated

from rdlib.quantizers.transform.rotated import rotate
from rdlib.theory.gaussian import gaussian_distortion, gaussian_rate
from rdlib.theory.output import det_distortion, output_distortion, output_rate, sample_size_bias, spectrum

H = correlated(32)


def test_rate_and_distortion_are_inverse():
    rates = np.linspace(0.05, 8, 40)
    assert np.allclose(output_rate(spectrum(H), output_distortion(spectrum(H), rates, 0.3), 0.3), rates)


def test_without_bits_the_output_is_lost():
    """D(0) = σ²·tr H: the power of the output."""
    assert output_distortion(spectrum(H), 0.0, 0.3) == pytest.approx(0.3 * np.trace(H))


def test_white_inputs_give_the_gaussian_source():
    flat = np.full(16, 2.0)
    assert np.allclose(
        output_distortion(flat, np.arange(5.0), 0.5), 16 * gaussian_distortion(np.arange(5.0), 1.0)
    )
    assert output_rate(flat, 3.2, 0.5) == pytest.approx(gaussian_rate(0.2))


def test_the_determinant_is_the_limit_of_high_rate_and_a_bound_at_every_rate():
    at = spectrum(H)
    rates = np.linspace(0, 12, 50)
    assert (det_distortion(at, rates) <= output_distortion(at, rates) * (1 + 1e-12)).all()
    assert det_distortion(at, 12.0) == pytest.approx(output_distortion(at, 12.0), rel=1e-9)
    power = np.exp(np.linalg.slogdet(H)[1] / 32)
    assert det_distortion(at, 2.0, 0.5) == pytest.approx(32 * 0.5 * power / 16)


def test_a_rotation_changes_neither():
    turned = spectrum(rotate(rotate(H, 3).T, 3).T)
    for bound in (output_distortion, det_distortion):
        assert bound(turned, 2.5) == pytest.approx(bound(spectrum(H), 2.5), rel=1e-8)


def test_correlation_lowers_the_limit():
    """At the same powers of the inputs (Hadamard's inequality)."""
    assert det_distortion(spectrum(H), 3) < det_distortion(np.diagonal(H), 3)


def test_a_singular_covariance_has_no_high_rate_limit():
    assert det_distortion(np.array([0.0, 1.0]), 2.0) == 0


def test_few_tokens_promise_too_much():
    """The mean of ½·log₂ det of Wishart matrices is the formula's, for any covariance."""
    rng, n, tokens = np.random.default_rng(0), 12, 40
    L = np.linalg.cholesky(correlated(n))
    estimates = []
    for _ in range(400):
        X = rng.standard_normal((tokens, n)) @ L.T
        estimates.append(np.linalg.slogdet(X.T @ X / tokens)[1])
    bias = (np.mean(estimates) - np.linalg.slogdet(L @ L.T)[1]) / (2 * n * np.log(2))
    error = np.std(estimates) / 20 / (2 * n * np.log(2))
    assert sample_size_bias(n, tokens) < 0
    assert bias == pytest.approx(sample_size_bias(n, tokens), abs=4 * error)


def test_many_tokens_tell_the_truth():
    assert sample_size_bias(64, 10**7) == pytest.approx(0, abs=1e-5)
    assert sample_size_bias(64, 63) == -np.inf


def test_what_is_negative_is_refused():
    for bound in (output_distortion, det_distortion):
        with pytest.raises(ValueError, match="negative"):
            bound(np.array([1.0, -0.1]), 1.0)
        with pytest.raises(ValueError, match="negative"):
            bound(np.array([1.0]), -1.0)
