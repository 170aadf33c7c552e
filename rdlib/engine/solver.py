"""Factor, eigenvalues and quadratic forms of H on the device that runs the model.

A model of 8 billion weights has layers of 14,336 inputs: the eigenvalues of such an H take two cores minutes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from rdlib.weights import LAPACK, SOLVER, Solver


@contextmanager
def solver_on(device: torch.device) -> Iterator[None]:
    """Within it, :data:`rdlib.weights.SOLVER` computes on a device; on the CPU that is LAPACK."""
    token = SOLVER.set(LAPACK if device.type == "cpu" else on_device(device))
    try:
        yield
    finally:
        SOLVER.reset(token)


def on_device(device: torch.device) -> Solver:
    """The solver that computes on a device, and by LAPACK what the device has no memory for."""

    def with_room(solve: Callable[..., torch.Tensor], here: Callable) -> Callable:
        def there(*arrays: np.ndarray) -> np.ndarray:
            try:
                return solve(*(torch.tensor(A, device=device) for A in arrays)).cpu().numpy()
            except torch.OutOfMemoryError:
                return here(*arrays)

        return there

    return Solver(*map(with_room, Solver(_inverse_factor, torch.linalg.eigvalsh, _quadratic_form), LAPACK))


def _inverse_factor(A: torch.Tensor) -> torch.Tensor:
    """As :func:`rdlib.weights.inverse_factor`; A stays as it is."""
    L, refused = torch.linalg.cholesky_ex(A.flip(0, 1))
    if refused.item():
        raise np.linalg.LinAlgError(f"The leading minor of order {refused.item()} is not positive definite.")
    one = torch.eye(len(A), dtype=A.dtype, device=A.device)
    return torch.linalg.solve_triangular(L.flip(0, 1), one, upper=True)


def _quadratic_form(E: torch.Tensor, H: torch.Tensor) -> torch.Tensor:
    """As :func:`rdlib.weights.quadratic_form`."""
    power = H.diagonal().max().clamp(min=torch.finfo(H.dtype).tiny)
    return ((E @ (H / power).to(E.dtype)) * E).sum(dtype=torch.float64) * power
