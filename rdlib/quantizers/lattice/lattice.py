"""The lattices A2, D4, E8 and Leech's: which points they have, and which is the nearest."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import gamma, pi, prod

import numpy as np

from rdlib.quantizers.lattice.kernels import nearest_a2, nearest_d4, nearest_e8
from rdlib.quantizers.lattice.leech import leech_checks, nearest_leech

PRIMES = np.array(
    [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89]
)


@dataclass(frozen=True)
class Lattice:
    """Λ = {(a₁x₁, …, a_d x_d): x integer, x_k ≡ Σ_{j<k} C_kj x_j (mod M_k) for every k}.

    To name a point is to name one coordinate after the other: those before tell the remainder of x_k, and any integer
    with that remainder will do.  Every lattice with integer coordinates has such checks: the Hermite normal form of
    its basis.  The points are always given by their integers x.

    Args:
        name: in tables and plots.
        moduli: M.
        checks: C, a row for every coordinate; zeros at its end may be left out.
        stretch: a.
        decoder: from points, float64 (n, d), to the x of the nearest lattice points, int32 (n, d).

    References:
        Conway and Sloane, Sphere Packings, Lattices and Groups, 3rd edition (1999), chapters 4, 5 and 7.
    """

    name: str
    moduli: tuple[int, ...] = field(repr=False)
    checks: tuple[tuple[int, ...], ...] = field(repr=False)
    stretch: tuple[float, ...] = field(repr=False)
    decoder: Callable[[np.ndarray], np.ndarray] = field(repr=False)

    @property
    def dimension(self) -> int:
        """The dimension d: how many weights a point codes."""
        return len(self.stretch)

    @cached_property
    def M(self) -> np.ndarray:
        """The moduli, int64 (d,)."""
        return np.array(self.moduli)

    @cached_property
    def C(self) -> np.ndarray:
        """The checks, int64 (d, d): zero on and above the diagonal."""
        return np.array([[*row, *[0] * (self.dimension - len(row))] for row in self.checks])

    @property
    def volume(self) -> float:
        """Of a cell: Π M · Π a."""
        return prod(self.moduli) * prod(self.stretch)

    def nearest(self, points: np.ndarray) -> np.ndarray:
        """The integers x of the lattice point nearest to each point, int32 (n, d).

        Args:
            points: (n, d), within 2³⁰.
        """
        return self.decoder(np.ascontiguousarray(points, np.float64))

    def points(self, x: np.ndarray) -> np.ndarray:
        """(a₁x₁, …, a_d x_d), float64, shape of ``x`` (…, d)."""
        return x * np.array(self.stretch)

    def contains(self, x: np.ndarray) -> np.ndarray:
        """Whether integers x (…, d) are a point: bool (…)."""
        return ((x - x @ self.C.T) % self.M == 0).all(axis=-1)

    @cached_property
    def first_class(self) -> np.ndarray:
        """The class of each coordinate where its remainder is 0, int64 (d,); the other remainders follow."""
        kinds = list(zip(self.moduli, self.stretch, strict=True))
        order = sorted(set(kinds))
        starts = np.cumsum([0, *(modulus for modulus, _ in order)])
        return starts[[order.index(kind) for kind in kinds]]

    @property
    def class_count(self) -> int:
        """How many classes there are."""
        return int((self.first_class + self.M).max())

    def classes(self, x: np.ndarray) -> np.ndarray:
        """The class of each coordinate, shape of ``x`` (…, d): one for every modulus, remainder and stretch."""
        return self.first_class + x % self.M

    def within(self, centre: np.ndarray, radius: float) -> np.ndarray:
        """The integers x of all lattice points at most so far from a centre, int64 (n, d), in lexicographic order.

        Args:
            centre: (d,).
            radius: in units of the points.
        """
        x, spent = np.empty((1, 0), np.int64), np.zeros(1)
        for k, (a, m) in enumerate(zip(self.stretch, self.moduli, strict=True)):
            low, high = np.ceil((centre[k] - radius) / a), np.floor((centre[k] + radius) / a)
            multiples = m * np.arange(int(low) // m, int(high) // m + 1)
            candidates = multiples + (x @ self.C[k, :k] % m)[:, None]
            total = spent[:, None] + (a * candidates - centre[k]) ** 2
            inside = total <= radius**2
            x = np.column_stack([np.repeat(x, inside.sum(axis=1), axis=0), candidates[inside]])
            spent = total[inside]
        return x

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


A2 = Lattice("A2", (1, 2), ((), (1,)), (1.0, 3**0.5), nearest_a2)
D4 = Lattice("D4", (1, 1, 1, 2), ((), (), (), (1, 1, 1)), (1.0,) * 4, nearest_d4)
E8 = Lattice(
    "E8",
    (1, 1, 1, 2, 1, 2, 2, 2),
    ((), (), (), (1, 1, 1), (), (1, 1, 0, 0, 1), (1, 0, 1, 0, 1), (0, 1, 1, 0, 1)),
    (1.0,) * 8,
    nearest_e8,
)
LEECH = Lattice("Leech", *leech_checks(), (1.0,) * 24, nearest_leech)
