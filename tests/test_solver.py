"""H is factored, its eigenvalues are found and errors of outputs summed on the device that runs the model."""

import numpy as np
import pytest
import torch
from networks import DEVICES, random_windows, saved, tiny

from rdlib.engine import Variant, walk
from rdlib.engine.solver import on_device, solver_on
from rdlib.quantizers import GPTQ, PerGroup, UniformAsymmetric
from rdlib.weights import LAPACK, SOLVER, Solver


def moment(n: int = 40) -> np.ndarray:
    X = np.random.default_rng(0).standard_normal((2 * n, n))
    return X.T @ X / len(X)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_solves_as_lapack_does(device):
    """By torch's own routines, on the CPU as on CUDA."""
    A, ours, theirs = moment(), on_device(torch.device(device)), LAPACK
    assert np.allclose(ours.inverse_factor(A), theirs.inverse_factor(A.copy()), rtol=1e-9, atol=1e-11)
    assert np.allclose(ours.eigenvalues(A), theirs.eigenvalues(A), rtol=1e-9)
    E = np.random.default_rng(1).standard_normal((7, len(A)))
    assert ours.quadratic_form(E, A) == pytest.approx(np.trace(E @ A @ E.T), rel=1e-12)
    assert ours.quadratic_form(E.astype(np.float32), A) == pytest.approx(np.trace(E @ A @ E.T), rel=1e-6)
    with pytest.raises(np.linalg.LinAlgError):
        ours.inverse_factor(-A)


def test_what_a_device_has_no_memory_for_is_solved_by_lapack(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(torch.linalg, "cholesky_ex", full)
    there = on_device(torch.device("cpu")).inverse_factor(moment())
    assert np.array_equal(there, LAPACK.inverse_factor(moment()))


def test_the_walk_solves_on_its_device(tmp_path, monkeypatch):
    """All factors of a walk come from the solver of its device, and give what LAPACK gives."""
    checkpoint, texts = saved(tiny(), tmp_path), [random_windows(), random_windows(40, seed=1)]
    names = [weight.name for weight in checkpoint.weights if weight.layer >= 0]
    variants = [Variant.by("v", names, GPTQ(UniformAsymmetric(4, PerGroup(size=8))))]
    expected = walk(checkpoint, variants, *texts, limits=True, device="cpu").of(variants[0])
    solver, factored, spectra, forms = on_device(torch.device("cpu")), [], [], []
    counted = Solver(
        lambda A: factored.append(len(A)) or solver.inverse_factor(A),
        lambda A: spectra.append(len(A)) or solver.eigenvalues(A),
        lambda E, H: forms.append(E.shape) or solver.quadratic_form(E, H),
    )
    monkeypatch.setattr("rdlib.engine.solver.LAPACK", counted)  # what the CPU would have
    found = walk(checkpoint, variants, *texts, limits=True, device="cpu").of(variants[0])
    inputs = 4 * checkpoint.config["num_hidden_layers"]
    assert len(factored) == 2 * inputs  # one damping for GPTQ, another for what feedback is worth
    assert len(spectra) == 2 * inputs  # H of either text
    assert len(forms) >= 2 * len(names)  # errors by either text, and outputs
    assert found.held_out_mse.to_numpy() == pytest.approx(expected.held_out_mse.to_numpy(), rel=1e-3)
    assert found.output_limit.to_numpy() == pytest.approx(expected.output_limit.to_numpy(), rel=1e-6)


def test_the_solver_before_comes_back():
    with pytest.raises(KeyError), solver_on(torch.device("meta")):
        assert SOLVER.get() != LAPACK
        raise KeyError
    assert SOLVER.get() == LAPACK
