"""The lattices A2, D4 and E8: which points they have, and which is the nearest."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import gamma, pi, prod

import numpy as np

from rdlib.quantizers.lattice.kernels import nearest_a2, nearest_d4, nearest_e8

PRIMES = np.array([2, 3, 5, 7, 11, 13, 17, 19])


@dataclass(frozen=True)
class Lattice:
    """Λ = {(a₁x₁, …, a_d x_d): x integer, x mod 2 a word of a linear binary code}.

    This is Construction A, with axes stretched by a.  Whatever the code, Λ is a union of shifted copies of 2Z^d,
    one for each word: to tell a point is to tell its word and then d integers, free of each other.  The points
    are always given by their integers x.

    Args:
        name: in tables and plots.
        generator: words that span the code, each of d bits.
        stretch: a.
        decoder: from points, float64 (n, d), to the x of the nearest lattice points, int32 (n, d).

    References:
        Conway and Sloane, Sphere Packings, Lattices and Groups, 3rd edition (1999), chapters 4, 5 and 7.
    """

    name: str
    generator: tuple[tuple[int, ...], ...]
    stretch: tuple[float, ...]
    decoder: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    @property
    def dimension(self) -> int:
        """The dimension d: how many weights a point codes."""
        return len(self.stretch)

    @cached_property
    def words(self) -> np.ndarray:
        """The words of the code, uint8 (2^k, d)."""
        choices = np.array(list(product((0, 1), repeat=len(self.generator))))
        return (choices @ np.array(self.generator) % 2).astype(np.uint8)

    @property
    def volume(self) -> float:
        """Of a cell: 2^d / 2^k · Π a."""
        return 2**self.dimension / len(self.words) * prod(self.stretch)

    @property
    def axis_class(self) -> np.ndarray:
        """Which of the different stretches each axis has, (d,): integers of one class are alike."""
        return np.unique(self.stretch, return_inverse=True)[1]

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """The integers x of the lattice point nearest to each point, int32 (n, d).

        Args:
            points: (n, d), within 2³⁰.
        """
        return self.decoder(np.ascontiguousarray(points, np.float64))

    def points(self, x: np.ndarray) -> np.ndarray:
        """(a₁x₁, …, a_d x_d), float64, shape of ``x`` (…, d)."""
        return x * np.array(self.stretch)

    def coset(self, x: np.ndarray) -> np.ndarray:
        """Which of the words x mod 2 is, shape (…); −1 for integers that are no point of the lattice.

        Args:
            x: integers (…, d).
        """
        binary = 1 << np.arange(self.dimension)
        place = np.full(1 << self.dimension, -1)
        place[self.words @ binary] = np.arange(len(self.words))
        return place[(x & 1) @ binary]

    def within(self, centre: np.ndarray, radius: float) -> np.ndarray:
        """The integers x of all lattice points at most so far from a centre, int64 (n, d), in lexicographic order.

        Args:
            centre: (d,).
            radius: in units of the points.
        """
        found = []
        for word in self.words:
            x, spent = np.empty((1, 0), np.int64), np.zeros(1)
            for k, a in enumerate(self.stretch):
                low, high = np.ceil((centre[k] - radius) / a), np.floor((centre[k] + radius) / a)
                column = np.arange(int(low), int(high) + 1)
                column = column[(column & 1) == word[k]]
                total = spent[:, None] + (a * column - centre[k]) ** 2
                rows, columns = np.nonzero(total <= radius**2)
                x, spent = np.column_stack([x[rows], column[columns]]), total[rows, columns]
            found.append(x)
        points = np.concatenate(found)
        return points[np.lexsort(points.T[::-1])]

    def ball(self, count: int) -> np.ndarray:
        """The integers x of the ``count`` lattice points nearest to a centre near the origin, int64 (count, d).

        The centre, (√p mod 1 − ½) / 2 with another prime p on every axis, is in general position: square roots of
        primes are independent over the rational numbers, so no two points are equally far, and there are no ties.
        """
        d = self.dimension
        centre = (np.sqrt(PRIMES[:d]) % 1 - 0.5) / 2
        radius = (count * self.volume * gamma(d / 2 + 1)) ** (1 / d) / np.sqrt(pi)  # of a ball of that volume
        while len(x := self.within(centre, radius)) < count:
            radius *= 1.03
        distance = ((self.points(x) - centre) ** 2).sum(axis=1)
        return x[distance <= np.partition(distance, count - 1)[count - 1]]


A2 = Lattice("A2", ((1, 1),), (1.0, 3**0.5), nearest_a2)
D4 = Lattice("D4", ((1, 1, 0, 0), (0, 1, 1, 0), (0, 0, 1, 1)), (1.0,) * 4, nearest_d4)
E8 = Lattice(
    "E8",
    ((1, 1, 1, 1, 1, 1, 1, 1), (0, 1, 0, 1, 0, 1, 0, 1), (0, 0, 1, 1, 0, 0, 1, 1), (0, 0, 0, 0, 1, 1, 1, 1)),
    (1.0,) * 8,
    nearest_e8,
)
