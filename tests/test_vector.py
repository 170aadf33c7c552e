"""Vector quantizers: what any codebook obeys, what k-means reaches, and what codebooks cost."""

import numpy as np
import pytest
from sources import gaussian, heavy

from rdlib.measure import measure
from rdlib.quantizers import (
    LloydMax,
    MultiCodebook,
    ProductQuantizer,
    Quantizer,
    ResidualQuantizer,
    Scaled,
    UniformMidTread,
    VectorQuantizer,
)
from rdlib.quantizers.vector.kmeans import _stages, centroids
from rdlib.quantizers.vector.lloyd import lloyd, nearest
from rdlib.quantizers.vector.runs import as_runs

TRAINED = [VectorQuantizer(2, 2), VectorQuantizer(2, 4), MultiCodebook(1.5, 4), ProductQuantizer(1.5, 4)]
every_trained = pytest.mark.parametrize("quantizer", TRAINED, ids=lambda quantizer: quantizer.method)


def index_efficiency(W: np.ndarray, quantizer: Quantizer) -> float:
    """D·4^(R − 2), R the rate of the index alone: what the codebook would reach if it were free."""
    point = measure(W, quantizer)
    return point.mse * 4 ** (point.rate - point.side_rate - 2)


# What every codebook obeys


@every_trained
def test_every_run_is_written_with_the_nearest_entry(quantizer):
    W = heavy((64, 96))
    code = quantizer.encode(W)
    d = quantizer.dimension
    books = code["scale"][0] * code["codebook"].astype(np.float64)
    which = quantizer._codebook_of(code["index"].shape)
    distances = ((as_runs(W, d)[:, :, None] - books[which]) ** 2).sum(axis=-1)
    chosen = ((as_runs(W - quantizer.decode(code), d)) ** 2).sum(axis=-1)
    assert chosen == pytest.approx(distances.min(axis=-1), rel=1e-3, abs=1e-9)


@every_trained
def test_the_entries_are_centroids(quantizer):
    """D = E[w²] − E[ŵ²], if the last step of the training was one of centroids."""
    W = gaussian((128, 128))
    decoded = quantizer.decode(quantizer.encode(W)).astype(np.float64)
    assert np.mean((W - decoded) ** 2) == pytest.approx(np.mean(W.astype(float) ** 2 - decoded**2), rel=0.02)


@every_trained
def test_the_price_is_that_of_index_and_codebooks(quantizer):
    W = gaussian((128, 128))
    code = quantizer.encode(W)
    books = {VectorQuantizer: 1, MultiCodebook: 4, ProductQuantizer: 128 // quantizer.dimension}[
        type(quantizer)
    ]
    assert code.streams["index"].bits == quantizer.bits * W.size
    assert code.streams["codebook"].bits == books * quantizer.entries * quantizer.dimension * 16


def test_64_entries_are_3_and_a_half_of_that_and_a_half_of_that():
    """The points of the seed notebook: 64 entries for 2, 4 and 8 weights."""
    for d, bits in ((2, 3), (4, 1.5), (8, 0.75)):
        assert VectorQuantizer(bits, d).entries == ProductQuantizer(bits, d).entries == 64


def test_a_codebook_has_no_more_entries_than_there_are_runs():
    W = gaussian((8, 32))
    for quantizer in (VectorQuantizer(4, 4), ProductQuantizer(2, 4), VectorQuantizer(2, 8)):
        code = quantizer.encode(W)
        assert code["codebook"].shape[1] <= as_runs(W, quantizer.dimension)[..., 0].size
        assert quantizer.decode(code) == pytest.approx(W, rel=1e-3, abs=1e-3)  # as float16 rounds it


def test_repeated_runs_share_an_entry():
    W = np.tile(gaussian((1, 8)), (100, 1))
    code = VectorQuantizer(4, 4).encode(W)
    assert code["codebook"].shape == (1, 2, 4)
    assert code.streams["index"].bits == 200


# What k-means reaches


def test_in_one_dimension_k_means_is_nearly_the_optimum():
    W = gaussian((256, 256))
    for bits in (1, 2, 3):
        best, found = measure(W, LloydMax(bits)).mse, measure(W, VectorQuantizer(bits, 1)).mse
        assert best * 0.999 <= found <= best * 1.02


HELD_OUT = [(1, 2, 0.3631), (2, 2, 0.1085), (2, 4, 0.0969), (1, 4, 0.3414)]


@pytest.mark.parametrize(("bits", "dimension", "distortion"), HELD_OUT)
def test_k_means_of_a_gaussian_is_what_others_measured(bits, dimension, distortion):
    """The index alone; a codebook trained on all that it is judged on is a little better than on held-out data."""
    efficiency = index_efficiency(gaussian((512, 1024)), VectorQuantizer(bits, dimension))
    assert 0.97 * distortion < efficiency * 4 ** (2 - bits) < 1.005 * distortion


def test_more_weights_together_are_better():
    W = gaussian((512, 512))
    curve = [index_efficiency(W, VectorQuantizer(2, d)) for d in (1, 2, 4)]
    assert curve[0] > 1.05 * curve[1] > 1.05**2 * curve[2]


def test_training_on_a_sample_is_judged_on_the_whole():
    """A codebook of a few vectors fits those and not the rest."""
    vectors = gaussian((4096, 4))
    few = centroids(vectors[:64], 32)
    own, all_of_them = (((part - few[nearest(part, few)]) ** 2).mean() for part in (vectors[:64], vectors))
    assert own < 0.8 * all_of_them


def test_stages_use_ever_larger_samples_and_a_bounded_effort():
    for count, entries in ((10**7, 256), (10**7, 4096), (10**6, 16), (5000, 256), (10, 256)):
        stages = list(_stages(count, entries))
        sizes = [size for size, _ in stages]
        assert sizes == sorted(sizes)
        assert sizes[-1] <= count
        assert all(10 <= iterations <= 100 for _, iterations in stages)
    assert not list(_stages(0, 4))


# What the variants buy


def test_dealing_runs_to_several_codebooks_buys_nothing_but_its_price():
    W = gaussian((512, 512))
    one, many = (measure(W, q) for q in (VectorQuantizer(1.5, 4), MultiCodebook(1.5, 4, 8)))
    assert 0.94 * one.mse < many.mse < one.mse  # eight codebooks fit their own runs a little closer
    assert many.side_rate > 7 * one.side_rate


def test_sub_spaces_of_different_power_are_what_product_quantization_is_for():
    power = np.repeat(np.geomspace(0.1, 10, 32), 4).astype(np.float32)
    W = gaussian((1024, 128)) * power
    assert measure(W, ProductQuantizer(1.5, 4)).mse < 0.7 * measure(W, VectorQuantizer(1.5, 4)).mse


def test_each_stage_of_a_residual_code_lessens_the_error_and_adds_its_codebook():
    W = gaussian((256, 256))
    quantizers = [ResidualQuantizer(0.5 * stages, 8, stages) for stages in (1, 2, 3, 4)]
    curve = [measure(W, quantizer) for quantizer in quantizers]
    assert all(later.mse < 0.75 * earlier.mse for earlier, later in zip(curve, curve[1:], strict=False))
    for stages, quantizer in enumerate(quantizers, 1):
        assert quantizer.encode(W).prices["codebook"] == stages * 2**4 * 8 * 16


def test_two_stages_are_worse_than_one_but_their_codebooks_are_an_eighth():
    W = gaussian((512, 512))
    one, two = (measure(W, q) for q in (VectorQuantizer(2, 4), ResidualQuantizer(2, 4, 2)))
    assert 1.1 * one.mse < two.mse < 1.03 * measure(W, LloydMax(2)).mse
    assert two.side_rate < one.side_rate / 7


def test_scaled_vectors_have_codebooks_of_normalised_weights():
    W = gaussian((64, 256)) * np.geomspace(0.01, 100, 64).astype(np.float32)[:, None]
    plain, scaled = (measure(W, q).mse for q in (VectorQuantizer(2, 4), Scaled(VectorQuantizer(2, 4))))
    assert scaled < plain
    assert scaled < measure(W, Scaled(UniformMidTread(2))).mse


# What is refused


def test_dimensions_and_counts_that_make_no_sense_are_refused():
    for family in (VectorQuantizer, MultiCodebook, ProductQuantizer):
        for d in (0, 17, -1, 2.5):
            with pytest.raises(ValueError, match="1 to 16 weights"):
                family(1, d)
        with pytest.raises(ValueError, match=r"multiple of 0\.25 bits from 0\.25 to 4, not 4\.25"):
            family(4.25, 4)
    with pytest.raises(ValueError, match="at least 1 codebook, not 0"):
        MultiCodebook(1, 4, 0)
    with pytest.raises(ValueError, match="at least 1 stage"):
        ResidualQuantizer(1, 8, 0)


@pytest.mark.parametrize("entries", [1, 2, 65, 400])
@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_the_nearest_entry_and_the_means_are_those_of_the_definition(entries, d):
    points, book = heavy((500, d)), gaussian((700, d))[:entries]
    distances = ((points[:, None].astype(float) - book) ** 2).sum(axis=2)
    index = nearest(points, book)
    assert distances[np.arange(500), index] == pytest.approx(distances.min(axis=1), rel=1e-5)
    moved, error = lloyd(points, book, 1)
    assert error == pytest.approx(distances.min(axis=1).mean(), rel=1e-5)
    used = np.unique(index)
    for k in used:
        assert moved[k] == pytest.approx(points[index == k].mean(axis=0), rel=1e-5, abs=1e-6)
    others = np.delete(moved, used, axis=0)[:, None]
    far = np.sort(((others - book.astype(float)) ** 2).sum(axis=2).min(axis=1))
    assert far == pytest.approx(np.sort(distances.min(axis=1))[500 - len(far) :], rel=1e-5)
    assert nearest(points[:0], book).shape == (0,)


def test_lloyds_iteration_ends_where_nothing_moves():
    points = gaussian((300, 2))
    book, error = lloyd(points, points[:4], 1000)
    again, same = lloyd(points, book, 1)
    assert np.array_equal(again, book) and same == error < lloyd(points, points[:4], 1)[1]
