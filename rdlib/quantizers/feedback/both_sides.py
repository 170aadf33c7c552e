"""Feedback on both sides: an error is made up for by the columns after it, which H weighs, and the rows below, by G.

With H = R·Rᵀ, R upper triangular, and G = AᵀA, A lower triangular, tr(G E H Eᵀ) = ‖A·E·R‖².  Element (i, j) of A·E·R
holds the errors of the rows 0 … i and columns 0 … j only; so when weight (i, j) is rounded, what all these did to it is
known, and A_ii·R_jj times the rounding error is left.

References:
    Tseng, Sun and De Sa 2025 (YAQA), arXiv:2505.22988: two-sided LDL; for one side, :mod:`.feedback`.
"""

import numpy as np
from numba import njit

BLOCK = (
    32  # rows and columns among which errors are fed by the compiled loop; beyond, by a product of matrices
)


def cancelled_on_both_sides(
    x: np.ndarray, U: np.ndarray, V: np.ndarray, spacing: np.ndarray, lost: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """z_ij = round(t_ij / α_ij), t = W − (errors before) such that W − γ·α·z = V·N·U, N_ij of weight (i, j) alone.

    Args:
        x: W, float64 (out, in).
        U: R⁻¹, upper triangular, (in, in).
        V: A⁻¹, lower triangular, (out, out).
        spacing: α, (out, in).
        lost: 1 − γ, (out, in); no point is moved by more than α/2.

    Returns:
        z, int32 (out, in), and what was rounded, t.
    """
    N, z, targets = np.zeros_like(x), np.zeros(x.shape, np.int32), np.empty_like(x)
    for j in range(0, x.shape[1], BLOCK):
        columns = slice(j, j + BLOCK)
        before = N[:, :j] @ U[:j, columns]
        known = np.zeros_like(before)  # N·U of what is finished
        for i in range(0, len(x), BLOCK):
            rows = slice(i, i + BLOCK)
            rest = x[rows, columns] - V[rows, :i] @ known[:i]
            _round_block(
                rest,
                before[rows],
                np.ascontiguousarray(V[rows, rows]),
                np.ascontiguousarray(U[columns, columns]),
                spacing[rows, columns],
                lost[rows, columns],
                z[rows, columns],
                N[rows, columns],
                known[rows],
            )
            targets[rows, columns] = rest
    return z, targets


def power_of_others(U: np.ndarray, V: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """What the errors of all others add to the power of t_ij, if each is of power α², in units of α_ij².

    Args:
        U: R⁻¹, (in, in).
        V: A⁻¹, (out, out).
        ratios: of α, (out, in), those of a row to another the same in all columns.

    Returns:
        (out, in).
    """
    rows, columns = ratios[:, :1], ratios[:1] / ratios[0, 0]
    below = (V / np.diagonal(V)) ** 2 @ rows**2 / rows**2
    after = columns**2 @ (U / np.diagonal(U)[:, None]) ** 2 / columns**2
    return below * after - 1


@njit(cache=True)
def _round_block(
    rest: np.ndarray,
    before: np.ndarray,
    V: np.ndarray,
    U: np.ndarray,
    spacing: np.ndarray,
    lost: np.ndarray,
    z: np.ndarray,
    N: np.ndarray,
    known: np.ndarray,
) -> None:
    """The weights of a block, column by column from the top; ``rest`` becomes t, and z, N and N·U are filled in."""
    rows, columns = rest.shape
    for j in range(columns):
        for k in range(j):
            factor = U[k, j]
            for i in range(rows):
                before[i, j] += N[i, k] * factor
        for i in range(rows):
            t = rest[i, j] - V[i, i] * before[i, j]
            for k in range(i):
                t -= V[i, k] * known[k, j]
            near = np.rint(t / spacing[i, j])
            z[i, j], rest[i, j] = near, t
            moved = min(max(near * lost[i, j], -0.5), 0.5)
            N[i, j] = (t - (near - moved) * spacing[i, j]) / (V[i, i] * U[j, j])
            known[i, j] = before[i, j] + U[j, j] * N[i, j]
