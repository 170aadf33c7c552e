"""Error feedback: columns are rounded one after the other, and the error of each is made up for by those to come.

With H = R·Rᵀ, R upper triangular, the error of a layer's output is tr(E H Eᵀ) = ‖E·R‖².  Column j of E·R holds
the errors of the columns 0 … j only; so when column j is rounded, what the columns before it did to it is known, and
rounding (W + feedback)_j instead of W_j leaves R_jj times the rounding error and nothing else.

References:
    Frantar et al. 2022 (GPTQ), arXiv:2210.17323; as an LDL decomposition, Chee et al. 2023 (QuIP),
    arXiv:2307.13304; as the nearest-plane algorithm of Babai, Chen et al. 2025, arXiv:2507.18553.
"""

from collections.abc import Callable

import numpy as np
from numba import njit
from scipy.linalg import LinAlgError, solve_triangular
from scipy.linalg.blas import get_blas_funcs

from rdlib.weights import SOLVER, as_moment, remembered

LAZY = 128  # columns whose errors reach the rest of the matrix in one product of matrices


def feedback_factor(H: np.ndarray, damping: float) -> np.ndarray:
    """U = R⁻¹, upper triangular, where R·Rᵀ = H + damping·mean(diag H)·I; then UᵀU is its inverse.

    1 / U_jj² is what is left of the power of input j when the inputs after it are known: what an error in column
    j costs that the columns after it cannot make up for.

    Args:
        H: E[x xᵀ], (in, in), symmetric and positive semidefinite.
        damping: ≥ 0, in units of the mean power of the inputs; keeps directions that no input took from having
            no weight at all.

    Returns:
        float64 (in, in); the identity where H is zero.

    Raises:
        ValueError: H is not positive definite even when damped, or is refused by
            :func:`rdlib.weights.as_moment`.
    """
    H = as_moment(H, len(H))
    return remembered(H, ("feedback", damping), lambda: _factor(H, damping))


def _factor(H: np.ndarray, damping: float) -> np.ndarray:
    """:func:`feedback_factor` of an H that was checked."""
    power = float(np.trace(H)) / max(len(H), 1)
    if power == 0:
        return np.eye(len(H))
    damped = H / power
    damped[np.diag_indices(len(H))] += damping
    try:
        return SOLVER.get().inverse_factor(damped) / np.sqrt(power)
    except LinAlgError:
        raise ValueError(
            f"H is singular with a damping of {damping:g}: raise the damping, or use more tokens."
        ) from None


def feedback_gain(H: np.ndarray, damping: float) -> float:
    """½·log₂(tr H / Σ R_jj²): bits that feedback saves at high rate on one grid for all columns, R·Rᵀ = H damped.

    Without feedback an error in column j counts H_jj-fold, with it R_jj²-fold, for which see :func:`feedback_factor`;
    0 where H is.
    """
    power = np.trace(H)
    return (
        float(np.log2(power / (np.diagonal(feedback_factor(H, damping)) ** -2.0).sum()) / 2) if power else 0.0
    )


def feed_forward(
    W: np.ndarray, U: np.ndarray, width: int, quantize: Callable[[int, np.ndarray], np.ndarray]
) -> np.ndarray:
    """Ŵ_B = Q(W_B − e_A·U_AB), e_B = (that − Ŵ_B)·U_BB⁻¹, for one block B of columns after the other.

    A are all columns before B.  With U = I it is Ŵ_B = Q(W_B), exactly.

    Args:
        W: (out, in), float32 or float64, in which the errors are added up; it is not changed.
        U: of :func:`feedback_factor`, (in, in).
        width: columns of a block; the last block may be narrower.
        quantize: (first column, (out, width) what should be written there) → its reproduction.

    Returns:
        Ŵ, in the type of W.

    Raises:
        ValueError: U does not fit W.
    """
    columns = W.shape[1]
    if U.shape != (columns, columns):
        raise ValueError(f"H of {len(U)} inputs does not fit a matrix of {columns} columns.")
    rest, L = W.T.copy(), np.ascontiguousarray(U.T, W.dtype)  # transposed: a column lies in one piece
    decoded = np.empty_like(rest)
    lazy = max(LAZY // width, 1) * width
    for start in range(0, columns, lazy):
        stop = min(start + lazy, columns)
        errors = np.empty((stop - start, len(W)), W.dtype)
        for i in range(start, stop, width):
            j = min(i + width, stop)
            _subtract(rest[i:j], L[i:j, start:i], errors[: i - start])
            decoded[i:j] = quantize(i, rest[i:j].T).T
            if j < columns:  # else there is nothing left to feed them to
                errors[i - start : j - start] = _divided(rest[i:j] - decoded[i:j], L[i:j, i:j])
        _subtract(rest[stop:], L[stop:, start:stop], errors)
    return decoded.T


def _subtract(rest: np.ndarray, L: np.ndarray, errors: np.ndarray) -> None:
    """rest −= L·errors, in place: at these sizes, memory for the product would take as long as the product."""
    if len(rest) and len(errors):
        gemm = get_blas_funcs("gemm", (rest,))  # of matrices column by column, hence transposed
        gemm(-1, errors.T, L.T, 1, rest.T, overwrite_c=True)


def _divided(errors: np.ndarray, L: np.ndarray) -> np.ndarray:
    """L⁻¹·errors, L lower triangular."""
    if len(L) == 1:
        return errors / L[0, 0]
    return solve_triangular(L, errors, lower=True, check_finite=False)


@njit(cache=True)
def fed(rest: np.ndarray, U: np.ndarray, errors: np.ndarray, j: int) -> np.ndarray:
    """Column j with the errors of the columns before it, for compiled loops over the columns of a block.

    Args:
        rest: the block, (columns, out).
        U: that block of the factor, (columns, columns).
        errors: of the columns 0 … j − 1, over U_kk, (columns, out).
        j: place of the column in the block.
    """
    target = rest[j].copy()
    for k in range(j):
        factor = U[k, j]
        for i in range(len(target)):
            target[i] -= factor * errors[k, i]
    return target
