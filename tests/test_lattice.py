"""Lattices: decoders against brute force, published constants, and codes that reach what theory says of them."""

from itertools import product

import numpy as np
import pytest
from sources import gaussian, heavy, one_thread  # noqa: F401

from rdlib.code.code import Code, Stream
from rdlib.measure import measure
from rdlib.quantizers import A2, D4, E8, E8P, LEECH, LatticeBall, LatticeCoded
from rdlib.quantizers.lattice.ball import ball_codebook
from rdlib.quantizers.lattice.e8p import e8p_codebook, magnitudes
from rdlib.quantizers.lattice.lattice import Lattice
from rdlib.quantizers.lattice.leech import golay_words
from rdlib.quantizers.vector.codebook import Codebook
from rdlib.quantizers.vector.runs import as_runs, from_runs
from rdlib.theory.gaussian import to_db
from rdlib.theory.high_resolution import NORMALIZED_SECOND_MOMENTS, space_filling_loss_db

pytestmark = pytest.mark.filterwarnings("error")

LATTICES, BALLS = [A2, D4, E8, LEECH], [A2, D4, E8]
every_lattice = pytest.mark.parametrize("lattice", LATTICES, ids=lambda lattice: lattice.name)
every_ball = pytest.mark.parametrize("lattice", BALLS, ids=lambda lattice: lattice.name)
E8_CHECKS = np.array([[1] * 8, [0, 1] * 4, [0, 0, 1, 1] * 2, [0] * 4 + [1] * 4])  # the code is its own dual


def is_point(x: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Membership by parity checks, of a code that is its own dual where it is not a single check."""
    if lattice is LEECH:
        m = x[..., :1] & 1
        alike = ((x - m) % 2 == 0).all(axis=-1)
        golay = (((x - m) // 2).astype(float) @ golay_words().T % 2 == 0).all(axis=-1)
        return alike & golay & ((x.sum(axis=-1) - 4 * m[..., 0]) % 8 == 0)
    checks = E8_CHECKS if lattice is E8 else np.ones((1, lattice.dimension), int)
    return (x @ checks.T % 2 == 0).all(axis=-1)


def squared(error: np.ndarray) -> np.ndarray:
    return (error.astype(np.float64) ** 2).sum(axis=-1)


def nearest_by_force(points: np.ndarray, codewords: np.ndarray) -> np.ndarray:
    """Squared distance to the nearest of all codewords."""
    blocks = np.array_split(points, -(-len(points) * len(codewords) // 10**7))
    best = [codewords[(squared(codewords) - 2 * block @ codewords.T).argmin(axis=1)] for block in blocks]
    return squared(points - np.concatenate(best))


def nearest_in_cosets(points: np.ndarray) -> np.ndarray:
    """Squared distance to the nearest point of the Leech lattice: m + 2c + 4z for all 2 × 4096 of m and c.

    z is rounded; where its sum is odd and should not be, or the other way, the worst goes to the other side.
    """
    words, best = golay_words().astype(np.float64), np.full((len(points), 4096), np.inf)
    for m in (0, 1):
        u = (points[..., None] - m - [0, 2]) / 4  # (n, 24, 2), of both bits
        z = np.rint(u)
        far = np.abs(u - z)
        total, odd = (f[..., 0].sum(axis=1)[:, None] + (f[..., 1] - f[..., 0]) @ words.T for f in (far**2, z))
        worst = np.zeros_like(best)
        for k in range(24):
            np.maximum(worst, far[:, k, golay_words()[:, k]], out=worst)
        np.minimum(best, total + ((odd - m) % 2) * (1 - 2 * worst), out=best)
    return 16 * best.min(axis=1)


def nearest_in_box(points: np.ndarray, lattice: Lattice) -> np.ndarray:
    """Squared distance to the nearest lattice point, by force.

    2Z^d (stretched) is in the lattice.  So a point may be moved to 0 ≤ y < 2, and no coordinate of its nearest
    lattice point is further away than 1: that is in −1 … 3.
    """
    if lattice is LEECH:
        return np.concatenate(
            [nearest_in_cosets(block) for block in np.split(points % 8, len(points) // 200)]
        )
    box = np.array(list(product(range(-1, 4), repeat=lattice.dimension)))
    period = 2 * np.array(lattice.stretch)
    return nearest_by_force(points % period, lattice.points(box[is_point(box, lattice)]))


# Decoders


@every_lattice
def test_the_decoded_point_is_of_the_lattice_and_none_is_nearer(lattice):
    points = gaussian((2_000 if lattice is LEECH else 12_000, lattice.dimension), np.float64)
    points *= np.array([0.3, 3, 1000])[np.arange(len(points)) % 3, None]
    x = lattice.nearest(points)
    assert is_point(x, lattice).all()
    assert squared(points - lattice.points(x)) == pytest.approx(nearest_in_box(points, lattice), abs=1e-8)


@pytest.mark.parametrize("grid", [1, 2, 4])
@every_lattice
def test_on_the_walls_of_cells_one_of_the_nearest_is_returned(lattice, grid):
    """Coordinates of halves and quarters: corners, edges and faces, up to the deep holes."""
    count = 400 if lattice is LEECH else 2000
    y = np.random.default_rng(0).integers(-8 * grid, 8 * grid, (count, lattice.dimension)) / grid
    points = lattice.points(y)
    x = lattice.nearest(points)
    assert is_point(x, lattice).all()
    assert squared(points - lattice.points(x)) == pytest.approx(nearest_in_box(points, lattice), abs=1e-10)


@every_lattice
def test_a_lattice_point_is_its_own_nearest(lattice):
    x = lattice.nearest(1000 * gaussian((1000, lattice.dimension), np.float64))
    assert np.array_equal(lattice.nearest(lattice.points(x)), x)


@every_lattice
def test_moving_by_a_lattice_vector_moves_the_nearest_point(lattice):
    points = gaussian((1000, lattice.dimension), np.float64)
    moved = points + lattice.points(lattice.nearest(2**16 * gaussian(points.shape, np.float64, 1)))
    distance, after = (squared(p - lattice.points(lattice.nearest(p))) for p in (points, moved))
    assert after == pytest.approx(distance, abs=1e-9)


@every_ball
def test_the_mirrors_of_shortest_vectors_keep_the_lattice(lattice):
    """A2, D4 and E8 are root lattices: w − 2(w·r)/(r·r)·r is a symmetry for every shortest vector r."""
    points = 3 * gaussian((200, lattice.dimension), np.float64)
    distance = squared(points - lattice.points(lattice.nearest(points)))
    for root in shells(lattice)[1]:
        mirrored = points - 2 * np.outer(points @ root, root) / (root @ root)
        assert squared(mirrored - lattice.points(lattice.nearest(mirrored))) == pytest.approx(distance)


def test_signs_on_a_word_of_the_golay_code_keep_the_leech_lattice():
    points = 3 * gaussian((200, 24), np.float64)
    turned = points * (1 - 2 * golay_words()[1000:1200])
    distance, after = (squared(p - LEECH.nearest(p)) for p in (points, turned))
    assert after == pytest.approx(distance)


def test_the_golay_code_is_linear_its_own_dual_and_of_distance_8():
    words = golay_words().astype(np.float32)
    assert len(np.unique(words, axis=0)) == 4096
    sizes, counts = np.unique(words.sum(axis=1), return_counts=True)
    assert dict(zip(sizes, counts, strict=True)) == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}
    assert not (words @ words.T % 2).any()


def test_points_are_not_changed():
    points = gaussian((100, 8), np.float64)
    before = points.copy()
    E8.nearest(points)
    assert np.array_equal(points, before)


# Constants of the lattices


def shells(lattice: Lattice) -> list[np.ndarray]:
    """The lattice points within 4 of the origin, by distance."""
    points = lattice.points(lattice.within(np.zeros(lattice.dimension), 4.01))
    norms = np.rint(squared(points)).astype(int)
    return [points[norms == norm] for norm in np.unique(norms)]


@pytest.mark.parametrize(
    ("lattice", "theta"),
    [(A2, [1, 6, 6, 6]), (D4, [1, 24, 24, 96, 24]), (E8, [1, 240, 2160, 6720, 17520])],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_theta_series_is_the_published_one(lattice, theta):
    """Conway and Sloane 1999, chapter 4; of E8, 240 times the sum of the cubes of the divisors."""
    assert [len(shell) for shell in shells(lattice)][: len(theta)] == theta


def test_a_point_of_the_leech_lattice_has_196560_neighbours_and_none_of_them_is_nearer_than_another():
    """Conway and Sloane 1999, chapter 4: no vector is shorter than √32, in these units."""
    norms, counts = np.unique(squared(LEECH.within(np.zeros(24), 5.66)), return_counts=True)
    assert dict(zip(norms, counts, strict=True)) == {0: 1, 32: 196_560}


@every_lattice
def test_checks_tell_points_from_other_integers(lattice):
    """Points, and every other one with some coordinates moved."""
    rng = np.random.default_rng(0)
    x = lattice.nearest(rng.uniform(-50, 50, (4_000, lattice.dimension)))
    assert lattice.contains(x).all()
    x[::2] += rng.choice([0, 0, 0, 0, -1, 1, 2, 4, 8], x[::2].shape)
    inside = is_point(x, lattice)
    assert np.array_equal(lattice.contains(x), inside)
    assert 0 < inside.mean() < 1


@every_lattice
def test_every_remainder_is_as_frequent(lattice):
    """A period of 8 has 8^d / Π M points; uniform over it, all are equally near."""
    x = lattice.nearest(np.random.default_rng(0).uniform(0, 8, (20_000, lattice.dimension)))
    for k, modulus in enumerate(lattice.moduli):
        counts = np.bincount(x[:, k] % modulus, minlength=modulus)
        assert counts == pytest.approx(np.full(modulus, len(x) / modulus), rel=0.1)


@every_lattice
def test_the_normalised_second_moment_is_the_published_one(lattice):
    """Uniform over a period of the lattice the error is uniform over its cell; within 4 standard errors."""
    rng = np.random.default_rng(0)
    points = lattice.points(rng.uniform(0, 8, (960_000 // lattice.dimension, lattice.dimension)))
    moments = squared(points - lattice.points(lattice.nearest(points))) / lattice.dimension
    moments /= lattice.volume ** (2 / lattice.dimension)
    error = moments.std() / np.sqrt(len(moments))
    assert error < 0.001 * moments.mean()
    assert abs(moments.mean() - NORMALIZED_SECOND_MOMENTS[lattice.name]) < 4 * error


# Balls of lattice points


@pytest.mark.parametrize(("lattice", "cube"), [(A2, 20), (D4, 5)], ids=["A2", "D4"])
def test_no_lattice_point_is_nearer_to_the_centre_than_one_of_the_ball(lattice, cube):
    x = np.array(list(product(range(-cube, cube + 1), repeat=lattice.dimension)))
    points = lattice.points(x[is_point(x, lattice)])
    centre = (np.sqrt([2, 3, 5, 7, 11, 13, 17, 19][: lattice.dimension]) % 1 - 0.5) / 2
    distances = np.sort(squared(points - centre))
    for bits in range(1, 9):
        inside = squared(lattice.points(lattice.ball(1 << bits)) - centre)
        assert np.sort(inside) == pytest.approx(distances[: 1 << bits])


@every_ball
def test_a_ball_has_as_many_different_points_as_its_index_tells(lattice):
    quantizer = LatticeBall(1, lattice)
    for bits in quantizer.bits_allowed:
        size = 1 << round(bits * lattice.dimension)
        x = lattice.ball(size)
        assert len(np.unique(x, axis=0)) == len(x) == size
        assert is_point(x, lattice).all()
        words = quantizer.codebook(size).vectors
        assert words.mean(axis=0) == pytest.approx(0, abs=1e-12)
        assert squared(words).mean() <= squared(lattice.points(x)).mean() + 1e-12


# The nearest codeword


CODEBOOKS = {
    "A2 ball of 256": lambda: ball_codebook(A2, 256),
    "D4 ball of 4096": lambda: ball_codebook(D4, 4096),
    "E8 ball of 256": lambda: ball_codebook(E8, 256),
    "E8 ball of 65536": lambda: ball_codebook(E8, 65536),
    "E8P": e8p_codebook,
    "without structure": lambda: Codebook(gaussian((300, 5), np.float64)),
    "one word": lambda: Codebook(np.ones((1, 3))),
    "one axis": lambda: Codebook(gaussian((50, 1), np.float64)),
    "twice the same": lambda: Codebook(np.repeat(gaussian((40, 3), np.float64), 2, axis=0)),
}


@pytest.mark.parametrize("name", CODEBOOKS)
def test_no_codeword_is_nearer(name):
    """Of points inside, on the edge of, and far outside of the codebook."""
    book = CODEBOOKS[name]()
    size, d = book.vectors.shape
    points = gaussian((1200 if size > 10_000 else 10_000, d), np.float64)
    spread = np.sqrt((book.vectors**2).mean())
    points *= spread * np.array([0.5, 1, 1.5, 10])[np.arange(len(points)) % 4, None]
    found = squared(points - book.vectors[book.nearest(points)])
    assert found == pytest.approx(nearest_by_force(points, book.vectors), abs=1e-9 * spread**2)


def test_halfway_between_codewords_one_of_the_nearest_is_returned():
    words = e8p_codebook().vectors
    pairs = np.random.default_rng(0).integers(0, len(words), (2, 400))
    points = words[pairs].mean(axis=0)
    found = squared(points - words[e8p_codebook().nearest(points)])
    assert found == pytest.approx(nearest_by_force(points, words), abs=1e-12)


def test_a_codeword_is_its_own_nearest():
    for book in (e8p_codebook(), ball_codebook(E8, 65536)):
        assert np.array_equal(book.nearest(book.vectors), np.arange(65536))


@pytest.mark.parametrize("quantizer", [LatticeBall(2, A2), LatticeBall(2, D4), LatticeBall(1, E8), E8P()])
def test_a_run_is_written_as_the_codeword_nearest_at_the_scale_that_is_sent(quantizer):
    W = heavy((20, 160))
    code = quantizer.encode(W)
    runs = as_runs(W, quantizer.dimension).reshape(-1, quantizer.dimension)
    words = code["scale"][0] * quantizer.codebook(code.streams["index"].format.size).vectors
    decoded = as_runs(quantizer.decode(code), quantizer.dimension).reshape(runs.shape)
    assert squared(runs - decoded) == pytest.approx(nearest_by_force(runs, words), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("quantizer", [LatticeBall(2, A2), LatticeBall(2, D4), LatticeBall(1, E8), E8P()])
@pytest.mark.parametrize("source", [gaussian, heavy])
def test_no_other_scale_is_better(quantizer, source):
    W = source((64, 256))
    point, code = measure(W, quantizer), quantizer.encode(W)
    runs, scale = as_runs(W, quantizer.dimension), float(code["scale"][0])
    book = quantizer.codebook(code.streams["index"].format.size)
    for factor in (0.25, 0.5, 0.7, 0.9, 0.95, 1.05, 1.1, 1.4, 2, 4, 8):
        points = (runs / (factor * scale)).reshape(-1, quantizer.dimension)
        error = squared(points - book.vectors[book.nearest(points)]).sum() * (factor * scale) ** 2
        assert point.mse <= 1.002 * error / W.size, factor


# E8P


def test_the_magnitudes_of_e8p_are_those_of_quip_sharp():
    """227 of the shifted D8 within √10, and 29 of the next shell."""
    table = magnitudes()
    norms, counts = np.unique(squared(table), return_counts=True)
    assert dict(zip(norms, counts, strict=True)) == {2: 1, 4: 8, 6: 28, 8: 64, 10: 126, 12: 29}
    assert len(np.unique(table, axis=0)) == 256
    assert set(np.unique(table)) == {0.5, 1.5, 2.5}


def test_an_index_of_e8p_is_a_row_seven_signs_and_a_shift():
    table = magnitudes()
    for index in np.random.default_rng(0).integers(0, 1 << 16, 500):
        bits = f"{index:016b}"
        signs = [-1 if bit == "1" else 1 for bit in bits[8:15]]
        shift = 0.25 if bits[15] == "1" else -0.25
        row = table[int(bits[:8], 2)]
        word = e8p_codebook().vectors[index] - shift
        assert np.array_equal(word[1:], row[1:] * signs)
        assert abs(word[0]) == row[0]
        assert word.sum() % 2 == 0


def test_the_codewords_of_e8p_are_a_quarter_off_points_of_e8():
    """E8 = D8 ∪ (D8 + ½): all integers or all half integers, with an even sum; then none is nearer than √2."""
    words = e8p_codebook().vectors
    points = words - 0.25
    assert (points.sum(axis=1) % 2 == 0).all()
    assert ((points % 1 == 0).all(axis=1) | (points % 1 == 0.5).all(axis=1)).all()
    assert len(np.unique(words, axis=0)) == 1 << 16
    assert np.array_equal(np.unique(-words, axis=0), np.unique(words, axis=0))


def test_a_code_of_another_size_is_no_code_of_e8p():
    with pytest.raises(ValueError, match="E8P has 65536 codewords, but the index is one of 256"):
        E8P().decode(LatticeBall(1, E8).encode(gaussian((4, 16))))


# Entropy-coded lattices


@pytest.mark.parametrize("bits", [2, 3, 4])
@every_lattice
def test_an_entropy_coded_lattice_is_as_far_from_the_bound_as_its_cell_from_a_ball(lattice, bits):
    """D·4^R = 2πe·G·σ² on a million samples of a Gaussian: the payload within 0.02 dB, and all bits within 0.03."""
    point = measure(gaussian((1000, 1008)), LatticeCoded(bits, lattice))
    theory, payload = (
        space_filling_loss_db(NORMALIZED_SECOND_MOMENTS[lattice.name]),
        point.rate - point.side_rate,
    )
    assert abs(to_db(point.nmse * 4**payload) - theory) < (0.01 if lattice is LEECH else 0.02)
    assert abs(to_db(point.nmse * 4**point.rate) - theory) < 0.03
    assert payload == pytest.approx(bits, abs=0.005), "the step is that of a sample"


@pytest.mark.parametrize("bits", range(2, 9))
@every_lattice
def test_the_payload_costs_the_nominal_rate(lattice, bits):
    for W in (gaussian((200, 200)), heavy((200, 200))):
        code = LatticeCoded(bits, lattice).encode(W)
        assert code.rates["index"] == pytest.approx(bits, abs=0.01)


@every_lattice
def test_what_is_decoded_is_the_scale_times_lattice_points(lattice):
    W = heavy((40, 96))
    code = LatticeCoded(3, lattice).encode(W)
    decoded = LatticeCoded(3, lattice).decode(code)
    points = as_runs(decoded, lattice.dimension) / float(code["scale"][0])
    x = lattice.nearest(points.reshape(-1, lattice.dimension)).reshape(points.shape)
    assert points == pytest.approx(lattice.points(x), abs=1e-4)
    assert lattice.contains(x).all()


@every_lattice
def test_the_scale_is_the_regression_of_the_weights_on_their_points(lattice):
    """The error is orthogonal to what is decoded, so that E[w²] = E[ŵ²] + D."""
    W = heavy((40, 96))
    decoded = LatticeCoded(2, lattice).decode(LatticeCoded(2, lattice).encode(W)).astype(np.float64)
    assert ((W - decoded) * decoded).sum() == pytest.approx(0, abs=1e-6 * (decoded**2).sum())


@every_lattice
def test_weights_of_few_values_are_coded_all_the_same(lattice):
    """Fewer bits than the nominal rate: the step follows from the largest weight."""
    signs = np.sign(gaussian((8, 64))) * np.float32(0.3)
    sparse = np.zeros((8, 64), np.float32)
    sparse[3, 17] = 5
    for W in (signs, sparse, np.full((8, 64), 0.7, np.float32)):
        for bits in (4, 8):
            point = measure(W, LatticeCoded(bits, lattice))
            assert point.mse < 4.0 ** (2 - bits) * np.abs(W).max() ** 2


# Runs


@pytest.mark.parametrize("quantizer", [LatticeBall(3, D4), LatticeBall(2, E8), E8P()])
def test_a_short_last_run_costs_as_much_as_a_whole_one(quantizer):
    W = gaussian((6, 13))
    filled = np.zeros((6, 16), np.float32)
    filled[:, :13] = W
    short, whole = quantizer.encode(W), quantizer.encode(filled)
    for code in (short, whole):
        assert (code.prices["index"], code.prices["scale"]) == (6 * 16 * quantizer.bits, 32)
    assert np.array_equal(quantizer.decode(short), quantizer.decode(whole)[:, :13])


def test_a_short_last_run_has_integers_like_any():
    assert LatticeCoded(3, E8).encode(gaussian((6, 13)))["index"].size == 6 * 16


def test_classes_of_other_sizes_are_refused():
    """A compiled loop would read beyond the end of the index."""
    code = LatticeCoded(3, E8).encode(gaussian((6, 16)))
    counts = code["counts"].copy()
    for other in (counts[:-1], np.roll(counts, 1), counts + 1):
        streams = dict(code.streams) | {"counts": Stream.fixed(other, 1 << 32)}
        with pytest.raises(ValueError, match="class"):
            LatticeCoded(3, E8).decode(Code(code.shape, streams))


@pytest.mark.parametrize("quantizer", [LatticeCoded(4, E8), LatticeCoded(4, A2), LatticeBall(4, D4), E8P()])
def test_a_column_is_coded_however_much_it_costs(quantizer):
    W = gaussian((300, 1))
    point = measure(W, quantizer)
    assert point.nmse < 0.15
    assert point.rate > quantizer.bits


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (3, 8), (2, 13)])
def test_runs_come_back(shape):
    W = gaussian(shape)
    runs = as_runs(W, 8)
    assert runs.shape == (shape[0], -(-shape[1] // 8), 8)
    assert np.array_equal(from_runs(runs, shape), W)


def test_runs_of_another_matrix_are_refused():
    with pytest.raises(ValueError, match="3 × 2 runs of 8 are no matrix 3 × 40"):
        from_runs(np.zeros((3, 2, 8)), (3, 40))


def test_what_does_not_fit_float32_becomes_its_largest_number():
    largest = np.finfo(np.float32).max
    assert from_runs(np.array([[[1e39, -1e39]]]), (1, 2)).tolist() == [[largest, -largest]]


# The ladder on a Gaussian


@pytest.mark.parametrize(
    ("quantizer", "limit"),
    [
        (E8P(), 0.0925),
        (LatticeBall(2, E8), 0.0915),
        (LatticeBall(1, E8), 0.0810),  # D = .324; k-means of 256 entries has .3218 without its codebook
        (LatticeBall(2, D4), 0.1035),
        (LatticeBall(2, A2), 0.1135),
    ],
    ids=lambda value: f"{value.method} {value.bits}" if isinstance(value, (E8P, LatticeBall)) else None,
)
def test_public_codebooks_reach_their_distortion(quantizer, limit):
    """D·4^(R − 2) on a million samples, with all bits counted."""
    point = measure(gaussian((1000, 1000)), quantizer)
    assert 1 / 16 < point.nmse * 4 ** (point.rate - 2) <= limit
    assert point.rate == pytest.approx(quantizer.bits, abs=2e-4)


def test_a_public_codebook_is_not_sent():
    code = LatticeBall(2, E8).encode(gaussian((8, 64)))
    assert set(code.streams) == {"index", "scale"}
    assert code.bits == 16 * 64 + 32 + code.prices["header"]
    decoded = LatticeBall(1, E8).decode(Code.from_bytes(code.to_bytes()))
    assert np.array_equal(decoded, LatticeBall(2, E8).decode(code))
