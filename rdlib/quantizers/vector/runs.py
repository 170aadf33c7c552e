"""Runs of neighbouring weights of a row, which are coded together."""

import numpy as np

FLOAT32_MAX = np.finfo(np.float32).max


def as_runs(values: np.ndarray, d: int) -> np.ndarray:
    """The rows of a matrix cut into runs of d weights, float64 (out, ⌈in / d⌉, d).

    Where d does not divide the row, zeros fill up the last run, and it costs as much as a whole one.
    """
    out, columns = values.shape
    count = -(-columns // d)
    runs = np.zeros((out, count * d))
    runs[:, :columns] = values
    return runs.reshape(out, count, d)


def from_runs(runs: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The float32 matrix (out, in) of runs (out, ⌈in / d⌉, d); what is beyond the type becomes its largest number.

    Raises:
        ValueError: there are not as many runs as the matrix has.
    """
    out, columns = shape
    d = runs.shape[2]
    if runs.shape[:2] != (out, -(-columns // d)):
        raise ValueError(f"{runs.shape[0]} × {runs.shape[1]} runs of {d} are no matrix {out} × {columns}.")
    flat = runs.reshape(out, runs.shape[1] * d)[:, :columns]
    return np.clip(flat, -FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)


def sample_of(runs: np.ndarray, weights: int) -> np.ndarray:
    """Runs of at most so many weights, (n, d): all, or some drawn at random, but always the same ones."""
    flat = runs.reshape(-1, runs.shape[-1])
    count = weights // runs.shape[-1]
    if len(flat) <= count:
        return flat
    return flat[np.random.default_rng(0).choice(len(flat), count, replace=False, shuffle=False)]
