"""Points of a lattice numbered without a table of them, and the shape–gain code whose index that number is."""

import numpy as np
import pytest
from sources import gaussian, heavy, one_thread  # noqa: F401

from rdlib.measure import measure
from rdlib.quantizers import A2, D4, E8, LDLQ, LEECH, LatticeCoded, ShapeGain
from rdlib.quantizers.lattice.numbered import Numbered
from rdlib.quantizers.lattice.shape_gain import LARGEST, SHELL, leech, on_sphere, towards
from rdlib.quantizers.vector.runs import as_runs

pytestmark = pytest.mark.filterwarnings("error")

AROUND = [(A2, 300), (D4, 30), (E8, 12)]  # lattice and largest squared norm


# Numbers


@pytest.mark.parametrize(("lattice", "largest"), AROUND, ids=[lattice.name for lattice, _ in AROUND])
def test_the_number_of_a_point_is_its_place_in_the_list_of_all(lattice, largest):
    """The list of :meth:`.Lattice.within`, which is made another way, is in lexicographic order."""
    numbered = Numbered(lattice, largest)
    for r in (0, largest // 2, largest):
        x = lattice.within(np.zeros(lattice.dimension), np.sqrt(r) + 1e-6)
        assert len(x) == numbered.sizes[r]
        assert np.array_equal(numbered.numbers(x, r), np.arange(len(x)))
        assert np.array_equal(numbered.points(np.arange(len(x)), r), x)


def test_there_are_as_many_points_on_the_shells_of_leech_as_published():
    """Conway and Sloane 1999, table 4.14; and the 280,974,212,784,720 of LLVQ's index of 48 bits."""
    shells = np.diff(leech().sizes[::SHELL])
    assert shells[:5].tolist() == [0, 196_560, 16_773_120, 398_034_000, 4_629_381_120]
    assert leech().sizes[LARGEST] == 280_974_212_784_720 + 1  # and the origin


@pytest.mark.parametrize("r", [12 * SHELL, LARGEST])
def test_a_number_is_one_point_and_a_point_is_one_number(r):
    size = leech().sizes[r]
    numbers = np.sort(np.append(np.random.default_rng(0).integers(0, size, 20_000), [0, size // 2, size - 1]))
    x = leech().points(numbers, r)
    assert LEECH.contains(x).all() and (x**2).sum(axis=1).max() == r
    assert np.array_equal(leech().numbers(x, r), numbers)
    first = (np.diff(x, axis=0) != 0).argmax(axis=1)
    assert (np.diff(x, axis=0)[np.arange(len(first)), first] >= 0).all(), "in lexicographic order"
    assert not x[numbers == size // 2].any(), "the origin is in the middle: with λ also −λ is a point"


def test_what_has_no_number_and_what_is_none_is_refused():
    x = np.zeros((1, 24), np.int64)
    for first in (1, 16):  # no point, and one too far away
        x[0, 0] = first
        with pytest.raises(ValueError, match="not a point"):
            leech().numbers(x, 12 * SHELL)
    for number in (-1, leech().sizes[32]):
        with pytest.raises(ValueError, match="There are 196561 points, and no point of number"):
            leech().points(np.array([number]), 32)


# The code


@pytest.mark.parametrize(
    ("gain_bits", "shells", "published"), [(0, 13, 0.085), (1, 12, 0.078), (2, 11, 0.080), (4, 10, 0.085)]
)
def test_the_error_is_that_of_llvq(gain_bits, shells, published):
    """Van der Ouderaa et al. 2026, table 8, N(0, 1) at 2 bits: within 2 % of the three digits that are printed."""
    quantizer = ShapeGain(gain_bits=gain_bits)
    point = measure(gaussian((60, 480)), quantizer)
    assert quantizer.norm == shells * SHELL
    assert point.rate - point.side_rate == pytest.approx(2, abs=1e-12)
    assert point.nmse == pytest.approx(published, rel=0.02)


def test_few_points_of_a_smaller_angle_are_missed():
    """Places a twentieth apart on each ray find almost all that there are."""
    runs, norm = gaussian((300, 24), np.float64), 12 * SHELL
    x = towards(runs, norm)
    assert LEECH.contains(x).all() and 0 < (x**2).sum(axis=1).min() and (x**2).sum(axis=1).max() <= norm
    rays, most = on_sphere(runs), np.zeros(len(runs))
    for radius in np.arange(9.5, 14.5, 0.05):
        near = LEECH.nearest(radius * rays)
        cosine = (rays * on_sphere(near)).sum(axis=1)
        most = np.where((near**2).sum(axis=1) <= norm, np.maximum(most, cosine), most)
    found = (rays * on_sphere(x)).sum(axis=1)
    assert (found <= most + 0.02).all()
    assert (1 - found**2).mean() <= 1.01 * (1 - most**2).mean()


@pytest.mark.parametrize("source", [gaussian, heavy])
def test_a_gain_is_the_mean_of_what_it_stands_for(source):
    W = source((40, 96))
    quantizer = ShapeGain(gain_bits=2)
    runs, decoded = (as_runs(w, 24).reshape(-1, 24) for w in (W, quantizer.decode(quantizer.encode(W))))
    gains, level = np.unique(np.linalg.norm(decoded, axis=1).round(6), return_inverse=True)
    assert len(gains) == 4 and gains[0] > 0
    along = (runs * on_sphere(decoded)).sum(axis=1)
    for k in range(4):
        assert along[level == k].mean() == pytest.approx(gains[k], rel=0.001)


def test_weights_nearer_to_zero_than_to_a_gain_become_zero():
    W = heavy((40, 96))
    W[3, 24:48] = 0
    W[5, :24] *= 1e-3
    decoded = ShapeGain().decode(ShapeGain().encode(W))
    assert not decoded[3, 24:48].any() and not decoded[5, :24].any()
    power, error = ((as_runs(w, 24) ** 2).sum(axis=-1) for w in (W, W - decoded))
    assert (error <= power * (1 + 1e-6)).all()


def test_feedback_runs_around_blocks_of_24_columns():
    W, x = gaussian((64, 72)), gaussian((400, 72), np.float64) @ gaussian((72, 72), np.float64, 1)
    H = x.T @ x / len(x)
    assert measure(W, LDLQ(ShapeGain(), 24), H).output_mse < 0.9 * measure(W, ShapeGain(), H).output_mse


def test_codes_and_gains_of_other_sizes_are_refused():
    W = gaussian((4, 48))
    with pytest.raises(ValueError, match="0 to 8 of the 48 bits, not 9"):
        ShapeGain(gain_bits=9)
    with pytest.raises(ValueError, match="not 2\\^2 levels"):
        ShapeGain(gain_bits=2).decode(ShapeGain().encode(W))
    with pytest.raises(ValueError, match="no stream 'levels'"):
        ShapeGain().decode(LatticeCoded(2, LEECH).encode(W))
