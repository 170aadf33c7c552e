"""The points of a lattice around the origin, numbered: the checks of the lattice are a trellis, and a trellis counts.

After k coordinates, what matters to those that follow is the state: the remainders of Σ_{j<k} C_lj x_j modulo M_l for
all l ≥ k.  N(s, r) is how many ways there are to go on from state s with a squared norm of at most r: the sum of
N(s', r − a²x²) over the next coordinate x, after which the state is s'.  The number of a point is how many come before
it in lexicographic order: for every coordinate, the sum of N over the smaller values that it could have had.

References:
    Cover, Enumerative source encoding, IEEE Trans. Inf. Theory 19 (1973), doi:10.1109/TIT.1973.1054929; for lattices as
    trellises, Forney, Coset codes II, IEEE Trans. Inf. Theory 34 (1988), doi:10.1109/18.21246.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from rdlib.quantizers.lattice.lattice import Lattice


@dataclass(frozen=True)
class Numbered:
    """The points of a lattice of squared norm at most r, for any r up to a largest one, numbered from 0.

    Leech's lattice has 10,737 states, and up to r = 208 tables of 17 MB.

    Args:
        lattice: whose points have integer squared norms.
        largest: of the r; there are less than 2⁶³ points.
    """

    lattice: Lattice
    largest: int

    @cached_property
    def _trellis(self) -> tuple[np.ndarray, np.ndarray]:
        """The state after x, (states, period), by x modulo the period, −1 where x may not follow; and a², (states,).

        They are numbered coordinate by coordinate; the first is that of no remainders, the one after the last the end.
        """
        M, C, period = self.lattice.M, self.lattice.C, int(np.lcm.reduce(self.lattice.M))
        states, first, after, squares = np.zeros((1, len(M)), np.int64), 0, [], []
        for k, stretch in enumerate(self.lattice.stretch):
            first += len(states)
            state, x = np.nonzero((np.arange(period) - states[:, k, None]) % M[k] == 0)
            following = (states[state] + x[:, None] * C[:, k]) % M
            following[:, k] = 0  # it has been met
            after.append(np.full((len(states), period), -1))
            squares += [round(stretch**2)] * len(states)
            states, place = np.unique(following, axis=0, return_inverse=True)
            after[k][state, x] = first + place.ravel()
        return np.concatenate(after), np.array(squares)

    @cached_property
    def _counts(self) -> np.ndarray:
        """N(s, r) of the states and the end, int64 (states + 1, largest + 1)."""
        return _counted(*self._trellis, self.largest)

    @property
    def sizes(self) -> np.ndarray:
        """How many points have a squared norm of at most 0, 1, 2, …: int64 (largest + 1,)."""
        return self._counts[0]

    def numbers(self, x: np.ndarray, r: int) -> np.ndarray:
        """The numbers of points, int64 (n,).

        Args:
            x: their integers, (n, d).
            r: the largest squared norm.

        Raises:
            ValueError: one is no point of the lattice, or has a larger squared norm.
        """
        return _numbers(np.ascontiguousarray(x, np.int64), r, *self._trellis, self._counts)

    def points(self, numbers: np.ndarray, r: int) -> np.ndarray:
        """The integers x of the points of some numbers, int64 (n, d).

        Raises:
            ValueError: there are not so many points of squared norm at most r.
        """
        if numbers.size and not 0 <= numbers.min() <= numbers.max() < self.sizes[r]:
            raise ValueError(f"There are {self.sizes[r]} points, and no point of number {numbers.max()}.")
        x = np.empty((len(numbers), self.lattice.dimension), np.int64)
        _points(numbers, r, *self._trellis, self._counts, x)
        return x


@njit(cache=True)
def _counted(after: np.ndarray, squares: np.ndarray, largest: int) -> np.ndarray:
    """N of every state, from the end back: what follows a state has a larger number."""
    counts = np.zeros((len(after) + 1, largest + 1), np.int64)
    counts[-1] = 1
    for s in range(len(after) - 1, -1, -1):
        most = int(np.sqrt(largest / squares[s]))
        for x in range(-most, most + 1):
            following, spent = after[s, x % after.shape[1]], squares[s] * x**2
            if following >= 0:
                for r in range(spent, largest + 1):
                    counts[s, r] += counts[following, r - spent]
    return counts


@njit(cache=True)
def _numbers(
    points: np.ndarray, r: int, after: np.ndarray, squares: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """How many points come before each."""
    numbers, period = np.zeros(len(points), np.int64), after.shape[1]
    for n in range(len(points)):
        s, rest = 0, r
        for x in points[n]:
            left = rest - squares[s] * x**2
            if left < 0 or after[s, x % period] < 0:
                raise ValueError("not a point of the lattice within that norm")
            for smaller in range(-int(np.sqrt(rest / squares[s])), x):
                following = after[s, smaller % period]
                if following >= 0:
                    numbers[n] += counts[following, rest - squares[s] * smaller**2]
            s, rest = after[s, x % period], left
    return numbers


@njit(cache=True)
def _points(
    numbers: np.ndarray,
    r: int,
    after: np.ndarray,
    squares: np.ndarray,
    counts: np.ndarray,
    points: np.ndarray,
) -> None:
    """Write the point of each number: the coordinate is the first before which there are not too many."""
    period = after.shape[1]
    for n in range(len(points)):
        s, rest, number = 0, r, numbers[n]
        for k in range(points.shape[1]):
            x = -int(np.sqrt(rest / squares[s])) - 1
            before = np.int64(0)
            while before <= number:
                number -= before
                x += 1
                following = after[s, x % period]
                before = counts[following, rest - squares[s] * x**2] if following >= 0 else np.int64(0)
            points[n, k] = x
            s, rest = following, rest - squares[s] * x**2
