"""The Leech lattice: 24 dimensions, and the nearest of its points, exactly.

x is a point where x = m + 2c + 4z: m is 0 or 1, the same for all coordinates; c is a word of the Golay code; and z are
integers whose sum is even for m = 0 and odd for m = 1.

The bits of a Golay word fill 6 columns of 4.  A column is a symbol of GF(4), the sum of i·bᵢ over i = 0, 1, ω, ω̄, and
the six symbols are a word of the hexacode.  Either all columns and the top row are even, or all are odd.  So where m,
this parity and the symbols are given, a column is free to choose its top bit t and the parity q of the sum of its z,
as long as Σ t and Σ q have their parities.  The search adds up costs and keeps, at every step, the least for each
(t, q): from coordinates to columns, pairs of columns and words.

References:
    Conway and Sloane, Sphere Packings, Lattices and Groups, 3rd edition (1999), chapters 4 and 11, and Soft decoding
    techniques for codes and lattices, IEEE Trans. Inf. Theory 32 (1986), doi:10.1109/TIT.1986.1057135; Vardy and
    Be'ery, Maximum likelihood decoding of the Leech lattice, IEEE Trans. Inf. Theory 39 (1993), doi:10.1109/18.243466.
"""

import numpy as np
from numba import njit

# Products in GF(4) = {0, 1, ω, ω̄}; sums are XOR.
TIMES = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]])


def hexacode() -> np.ndarray:
    """The 64 words (a, b, c, f(1), f(ω), f(ω̄)), f(x) = ax² + bx + c, int64 (64, 6)."""
    a, b, c = np.indices((4, 4, 4)).reshape(3, -1)
    return np.stack([a, b, c, *(TIMES[a, TIMES[x, x]] ^ TIMES[b, x] ^ c for x in (1, 2, 3))], axis=1)


def columns() -> np.ndarray:
    """Four bits, the top one lowest, for each parity, symbol and top bit: int64 (2, 4, 2)."""
    v = np.arange(16)
    top, one, two, three = v & 1, v >> 1 & 1, v >> 2 & 1, v >> 3
    found = np.empty((2, 4, 2), np.int64)
    found[top ^ one ^ two ^ three, one ^ 2 * two ^ 3 * three, top] = v
    return found


HEXACODE, COLUMNS = hexacode(), columns()


def golay_words() -> np.ndarray:
    """The 4096 words of the Golay code, int64 (4096, 24), column after column."""
    tops = np.arange(64)[:, None] >> np.arange(6) & 1
    parity = tops.sum(axis=1, keepdims=True) & 1
    bits = COLUMNS[parity, HEXACODE[:, None], tops][..., None] >> np.arange(4) & 1
    return bits.reshape(-1, 24)


def leech_checks() -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """M and C of :class:`rdlib.quantizers.lattice.lattice.Lattice`.

    Twelve bits of a Golay word are free, the first among them, and each of the others is the sum of w of these; w is
    odd, because ones everywhere are a word.  So x₁ is any integer; x_k ≡ x₁ (mod 2) at the free bits; at the others,
    x_k is the sum of the same w coordinates + (1 − w)·x₁ (mod 4).  The last follows from Σ x ≡ 4m ≡ 4·x₁ (mod 8).
    """
    words = golay_words()
    heads = [len(np.unique(words[:, :k] @ (1 << np.arange(k)))) for k in range(25)]
    free = np.flatnonzero(np.diff(heads))  # where another bit makes twice as many words
    units = words[words[:, free].sum(axis=1) == 1]
    units = units[units[:, free].argmax(axis=1).argsort()]
    M, C = np.full(24, 4), np.zeros((24, 24), np.int64)
    C[:, free] = units.T
    C[:, 0] += 1 - units.sum(axis=0)
    M[free], C[free] = 2, np.eye(24, dtype=np.int64)[0]
    M[0], M[-1], C[-1] = 1, 8, -1
    C[-1, 0] += 4
    return tuple(M.tolist()), tuple(tuple(row[:k]) for k, row in enumerate(C.tolist()))


@njit(cache=True)
def _coordinates(y: np.ndarray, cost: np.ndarray) -> None:
    """(y − x)² / 16 of the nearest x = r + 4z with z even and with z odd: (24, 4, 2)."""
    for i in range(24):
        for r in range(4):
            u = (y[i] - r) / 4
            z = np.rint(u)
            far = abs(u - z)
            odd = np.int64(z) & 1
            cost[i, r, odd] = far**2
            cost[i, r, 1 - odd] = (1 - far) ** 2


@njit(cache=True)
def _of_columns(cost: np.ndarray, found: np.ndarray) -> None:
    """The least cost of a column for each m, parity, place, symbol, and 2t + q: (2, 2, 6, 4, 4)."""
    half = np.empty((2, 4, 2))
    for m in range(2):
        for k in range(6):
            for i in range(2):
                for v in range(4):
                    a, b = cost[4 * k + 2 * i, m + 2 * (v & 1)], cost[4 * k + 2 * i + 1, m + 2 * (v >> 1)]
                    half[i, v, 0] = min(a[0] + b[0], a[1] + b[1])
                    half[i, v, 1] = min(a[0] + b[1], a[1] + b[0])
            for parity in range(2):
                for s in range(4):
                    for t in range(2):
                        v = COLUMNS[parity, s, t]
                        a, b = half[0, v & 3], half[1, v >> 2]
                        found[m, parity, k, s, 2 * t] = min(a[0] + b[0], a[1] + b[1])
                        found[m, parity, k, s, 2 * t + 1] = min(a[0] + b[1], a[1] + b[0])


@njit(cache=True, inline="always")
def _least_sums(a: np.ndarray, b: np.ndarray, sums: np.ndarray) -> None:
    """The least a[i] + b[i ⊕ j] for every j, without a loop: three times as fast."""
    sums[0], sums[1], sums[2], sums[3] = (
        min(min(a[0] + b[0], a[1] + b[1]), min(a[2] + b[2], a[3] + b[3])),
        min(min(a[0] + b[1], a[1] + b[0]), min(a[2] + b[3], a[3] + b[2])),
        min(min(a[0] + b[2], a[1] + b[3]), min(a[2] + b[0], a[3] + b[1])),
        min(min(a[0] + b[3], a[1] + b[2]), min(a[2] + b[1], a[3] + b[0])),
    )


@njit(cache=True)
def nearest_leech(points: np.ndarray) -> np.ndarray:
    """The x of least Σ (p − x)² that is a point of the Leech lattice.

    Args:
        points: float64, (n, 24).

    Returns:
        int32, (n, 24).
    """
    x = np.empty(points.shape, np.int32)
    cost, column = np.empty((24, 4, 2)), np.empty((2, 2, 6, 4, 4))
    pair, least, two, three = np.empty((3, 4, 4, 4)), np.empty((3, 4, 4)), np.empty(4), np.empty(4)
    for n in range(len(points)):
        _coordinates(points[n], cost)
        _of_columns(cost, column)
        best, best_m, best_parity, best_word = np.inf, 0, 0, 0
        for m in range(2):
            for parity in range(2):
                f = column[m, parity]
                for k in range(3):
                    for r in range(4):
                        for s in range(4):
                            sums = pair[k, r, s]
                            _least_sums(f[2 * k, r], f[2 * k + 1, s], sums)
                            least[k, r, s] = min(min(sums[0], sums[1]), min(sums[2], sums[3]))
                for w in range(64):
                    word = HEXACODE[w]
                    if (
                        least[0, word[0], word[1]] + least[1, word[2], word[3]] + least[2, word[4], word[5]]
                        >= best
                    ):
                        continue
                    _least_sums(pair[0, word[0], word[1]], pair[1, word[2], word[3]], two)
                    _least_sums(two, pair[2, word[4], word[5]], three)
                    total = three[2 * parity + m]
                    if total < best:
                        best, best_m, best_parity, best_word = total, m, parity, w
        _write(points[n], column[best_m, best_parity], best_m, best_parity, HEXACODE[best_word], x[n])
    return x


@njit(cache=True)
def _write(y: np.ndarray, column: np.ndarray, m: int, parity: int, word: np.ndarray, x: np.ndarray) -> None:
    """The nearest x of a given m, parity and word of the hexacode."""
    reached = np.full((7, 4), np.inf)  # least cost of the first k columns
    reached[0, 0] = 0
    for k in range(6):
        _least_sums(reached[k], column[k, word[k]], reached[k + 1])
    state = 2 * parity + m
    for k in range(5, -1, -1):
        own = 0
        for i in range(4):
            if reached[k, state ^ i] + column[k, word[k], i] == reached[k + 1, state]:
                own = i
        state ^= own
        v = COLUMNS[parity, word[k], own >> 1]
        odd, furthest, worst = own & 1, -1.0, 0
        for i in range(4 * k, 4 * k + 4):
            r = m + 2 * (v >> (i - 4 * k) & 1)
            z = np.rint((y[i] - r) / 4)
            odd ^= np.int64(z) & 1
            x[i] = r + 4 * np.int64(z)
            if abs(y[i] - x[i]) > furthest:
                worst, furthest = i, abs(y[i] - x[i])
        if odd:
            x[worst] += 4 if y[worst] > x[worst] else -4
