"""What every module asks of weights W, two axes, a narrow float type, finite values, and of H = E[x xᵀ]."""

import weakref
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

import ml_dtypes
import numpy as np
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32))
COLUMNS = 1024  # of H that are multiplied at once


def as_matrix(W: np.ndarray) -> np.ndarray:
    """``W`` itself, if it is a matrix (out, in) of float16, bfloat16 or float32.

    Raises:
        ValueError: it is not; the message says what it is.
    """
    W = np.asarray(W)
    if W.ndim != 2:
        raise ValueError(f"W must be a matrix (out, in), but its shape is {W.shape}.")
    if W.dtype not in DTYPES:
        raise ValueError(f"W must be float16, bfloat16 or float32, but it is {W.dtype}: cast it first.")
    return W


def as_float32(W: np.ndarray) -> np.ndarray:
    """A finite ``W`` as contiguous float32, exactly: float32 includes the values of all three types.

    Raises:
        ValueError: ``W`` is no weight matrix, or holds NaN or Inf; the message names the first place.
    """
    W = as_matrix(W)
    if W.dtype == BFLOAT16:  # the upper half of a float32
        wide = np.ascontiguousarray(W).view(np.uint16).astype(np.uint32)
        wide <<= 16
        values = wide.view(np.float32)
    else:
        values = np.ascontiguousarray(W, np.float32)
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        total = values.sum(dtype=np.float64)
    if not np.isfinite(total):  # one pass; the search only where it fails
        refuse_non_finite(values)
    return values


def mean_square(W: np.ndarray) -> float:
    """P = mean w², the power of a weight matrix (out, in), in float64.

    Raises:
        ValueError: as :func:`as_float32`.
    """
    return float(np.mean(as_float32(W).astype(np.float64) ** 2))


def as_moment(H: np.ndarray, size: int, name: str = "H", of: str = "inputs") -> np.ndarray:
    """H = E[x xᵀ] as float64 (in, in), or G of the outputs.

    Args:
        H: second moments of the inputs of a layer.
        size: how many inputs its weights have.
        name: in sentences.
        of: what it is of, in sentences.

    Raises:
        ValueError: H is not square, not of that size, not finite, or not symmetric to 10⁻⁶ of its largest entry.
    """
    H = np.asarray(H)
    H = H if H.dtype == np.float64 else H.astype(np.float64)  # the same object, for what is remembered of it
    if H.shape != (size, size):
        raise ValueError(f"{name} must be ({size}, {size}) for weights of {size} {of}, but it is {H.shape}.")
    return remembered(H, "moment", lambda: _symmetric(H, name))


def _symmetric(H: np.ndarray, name: str) -> np.ndarray:
    refuse_non_finite(H, name)
    skew = max((float(np.abs(H[a] - H[b].T).max()) for a, b in tiles(len(H))), default=0.0)
    if skew > 1e-6 * max(H.max(initial=0), -H.min(initial=0)):
        i, j = (int(k) for k in np.unravel_index(np.argmax(np.abs(H - H.T)), H.shape))
        raise ValueError(
            f"{name} must be symmetric, but {float(H[i, j]):.6g} at {(i, j)} is not {float(H[j, i]):.6g} at {(j, i)}."
        )
    return H


def tiles(n: int, side: int = 512) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """The tiles of the upper half of a square matrix of n rows, and where the mirror of each is; they fit a cache."""
    starts = range(0, n, side)
    for i, j in ((i, j) for i in starts for j in starts if i <= j):
        rows, columns = slice(i, i + side), slice(j, j + side)
        yield (rows, columns), (columns, rows)


def remembered(H: np.ndarray, what: Hashable, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """What follows from H, such as its factor: computed once while H lives, if H cannot be written to.

    All methods that quantize the matrices of one input are given the same array.

    Args:
        H: second moments.
        what: name and parameters of the result.
        compute: gives the result, which is read-only from then on.
    """
    if H.flags.writeable:
        return compute()
    if id(H) not in _KNOWN:
        _KNOWN[id(H)] = {}
        weakref.finalize(H, _KNOWN.pop, id(H))
    known = _KNOWN[id(H)]
    if what not in known:
        result = compute()
        if result is H:  # would keep itself alive
            known[what] = None
            return H
        result.setflags(write=False)
        known[what] = result
    return H if known[what] is None else known[what]


_KNOWN: dict[int, dict[Hashable, np.ndarray | None]] = {}  # of arrays that are alive


def inverse_factor(A: np.ndarray) -> np.ndarray:
    """U = R⁻¹ by LAPACK, upper triangular, where R·Rᵀ = A; then UᵀU = A⁻¹.

    Args:
        A: float64, (n, n), symmetric; it is overwritten.

    Raises:
        numpy.linalg.LinAlgError: A is not positive definite.
    """
    # of the matrix turned upside down, whose lower factor is the upper one of A
    return dtrtri(cholesky(A[::-1, ::-1], lower=True, overwrite_a=True, check_finite=False)[::-1, ::-1])[0]


def quadratic_form(E: np.ndarray, H: np.ndarray) -> float:
    """tr(E H Eᵀ): products in the precision of E, (out, in), and their sum in float64; H is symmetric, (in, in)."""
    total, power = 0.0, np.diagonal(H).max() or 1  # H / power does not leave the range of float32
    for begin in range(0, len(H), COLUMNS):
        # with the columns before, twice, for those behind: half the work of E·H
        own = slice(begin, begin + COLUMNS)
        columns = (H[: own.stop, own] / power).astype(E.dtype)
        columns[:begin] *= 2
        total += np.einsum("ij,ij->i", E[:, : own.stop] @ columns, E[:, own]).sum(dtype=np.float64)
    return float(total * power)


class Solver(NamedTuple):
    """How symmetric float64 matrices are factored, their eigenvalues found and their quadratic forms summed."""

    inverse_factor: Callable[[np.ndarray], np.ndarray] = inverse_factor
    eigenvalues: Callable[[np.ndarray], np.ndarray] = np.linalg.eigvalsh
    quadratic_form: Callable[[np.ndarray, np.ndarray], float] = quadratic_form


LAPACK = Solver()
SOLVER = ContextVar("solver", default=LAPACK)  # the engine sets one of the device that runs the model


def with_room(values: np.ndarray) -> np.ndarray:
    """The same weights, for methods that add or scale them in float32.

    Raises:
        ValueError: sixteen times the largest of them does not fit float32.
    """
    largest = float(np.abs(values).max(initial=0))
    if 16 * largest > float(np.finfo(np.float32).max):
        raise ValueError(f"16 times the weight {largest:.3g} does not fit float32: scale W down.")
    return values


def unit_power(values: np.ndarray) -> tuple[float, np.ndarray]:
    """√E[w²], and w / √E[w²] as float64; both are 0 where all weights are."""
    wide = values.astype(np.float64)
    root = np.sqrt(np.mean(wide**2)) if values.size else np.float64(0)
    return root, wide / (root or 1)


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0: of the shape of ``a``, and of its type where that is a float, else float64."""
    out = np.zeros(a.shape, np.result_type(a, np.float16))
    return np.divide(a, b, out=out, where=b != 0)


def refuse_non_finite(W: np.ndarray, name: str = "W") -> None:
    """Raise a ValueError that names the tensor and the first NaN or Inf in it, if there is one."""
    with np.errstate(invalid="ignore"):  # what ml_dtypes says of a NaN
        finite = np.isfinite(W)
    if not finite.all():
        place = tuple(int(i) for i in np.unravel_index(np.argmin(finite), W.shape))
        raise ValueError(f"{name} holds {float(W[place])} at {place}: quantizers need finite numbers.")
