"""One tensor in, its rows of the census out."""

import numpy as np
from numba import get_num_threads, set_num_threads

from rdlib.census.grouped import grouped_points
from rdlib.census.sampled import sampled_points, some_rows
from rdlib.census.scalar import scalar_points
from rdlib.census.tensors import histogram_of, widened
from rdlib.histogram import Histogram
from rdlib.measure import gap, sqnr_db
from rdlib.models.weight import Weight
from rdlib.statistics import coding_gain_bits, spread_db
from rdlib.theory.blahut import blahut_arimoto
from rdlib.theory.entropy import differential_entropy, shannon_rate
from rdlib.theory.gaussian import gaussian_rate

SCHEMA: dict[str, str] = {
    "name": "of the tensor in the checkpoint",
    "layer": "0 …, or −1 for what belongs to no layer",
    "group": "q, k, v, o, gate, up, down, embed, lm_head, or other",
    "rows": "out",
    "columns": "in",
    "weights": "rows · columns",
    "dtype": "as safetensors names it",
    "note": "what was decided about the tensor: the scale that it was decoded with; mostly missing",
    "error": "why the tensor was left out; then all that follows is missing",
    "mean": "E[w]",
    "sigma": "σ, standard deviation of the weights",
    "kurtosis": "E[(w − μ)⁴]/σ⁴: 3 for a Gaussian",
    "peak": "max |w| / σ",
    "entropy": "H(w) of the stored values, bits",
    "distinct": "how many values occur",
    "row_spread_db": "standard deviation over rows of their power, dB",
    "row_gain_bits": "½·log₂(arithmetic / geometric mean of the row powers)",
    "method": "name of the quantizer",
    "bits": "its nominal rate",
    "rate": "bits per weight, everything counted",
    "sampled_rows": "how many rows the point was measured on, evenly spaced; missing where it was all of them",
    "side_rate": "the part of the rate that is not payload",
    "mse": "D = E[(w − ŵ)²]",
    "nmse": "D / σ²",
    "sqnr_db": "10·log₁₀(E[w²] / D)",
    "gaussian_gap": "rate − ½·log₂(σ²/D): bits above the R(D) of a Gaussian of this variance",
    "shannon_gap": "rate − (h(w) − ½·log₂(2πe·D)): bits above the Shannon lower bound",
    "blahut_gap": "rate − R(D) of the weights themselves (certified lower bound), bits; only on request",
}


def tensor_rows(
    tensor: Weight, grouped: bool = True, blahut: bool = False, sample: int = 0, coded: bool = True
) -> list[dict]:
    """All rows of one tensor, with the keys of ``SCHEMA``; one row that says why, where it cannot be analysed.

    Args:
        tensor: to be read.
        grouped: whether methods with a scale per row or group are measured as well.
        blahut: whether the rate–distortion function of the weights themselves is computed.
        sample: rows that trellises and lattices are measured on as well.
        coded: whether indices are really entropy-coded; their price is the ideal length otherwise.
    """
    place = {key: getattr(tensor, key) for key in ("name", "layer", "group", "dtype")}
    rows, columns = tensor.matrix_shape
    place |= {"rows": rows, "columns": columns, "weights": rows * columns, "note": tensor.note or None}
    threads = get_num_threads()
    set_num_threads(1)  # tensors run side by side already
    try:
        found = _measured(tensor.matrix(), grouped, blahut, sample, coded)
    except ValueError as error:
        found = [{"error": str(error)}]
    finally:
        set_num_threads(threads)
    return [{key: (place | row).get(key) for key in SCHEMA} for row in found]


def _measured(W: np.ndarray, grouped: bool, blahut: bool, sample: int, coded: bool) -> list[dict]:
    histogram = histogram_of(W)
    tensor, points = moments(histogram), scalar_points(W, histogram, coded)
    if grouped:
        found = grouped_points(W)
        points += found.points
        tensor |= {
            "row_spread_db": spread_db(found.row_powers),
            "row_gain_bits": coding_gain_bits(found.row_powers),
        }
    rows = [tensor | row for row in _with_gaps(points, histogram)]
    if blahut:
        curve = blahut_arimoto(histogram.values, histogram.counts)
        for row in rows:
            row["blahut_gap"] = gap(row["rate"], row["mse"], curve.rate_lower)
    return rows + (_sampled(widened(some_rows(W, sample)), tensor) if sample else [])


def _sampled(W: np.ndarray, tensor: dict) -> list[dict]:
    """Rows of what takes too long on a whole matrix; D is set against the variance of the rows that it is of."""
    size = {"sampled_rows": len(W)}
    return [tensor | size | row for row in _with_gaps(sampled_points(W), Histogram.of(W))]


def moments(histogram: Histogram) -> dict[str, float]:
    """Columns of the tensor that follow from its histogram."""
    sigma = histogram.variance**0.5
    return {
        "mean": histogram.mean,
        "sigma": sigma,
        "kurtosis": histogram.kurtosis,
        "peak": histogram.largest / sigma if sigma else float("nan"),
        "entropy": histogram.entropy,
        "distinct": len(histogram.values),
    }


def _with_gaps(points: list[dict], histogram: Histogram) -> list[dict]:
    """Points with their distortion in its usual units, and how far they are from two bounds."""
    h = differential_entropy(histogram.values, histogram.counts)

    def known(rate: float, D: float) -> dict[str, float]:
        return {
            "nmse": D / histogram.variance if histogram.variance else 0.0 if D == 0 else float("inf"),
            "sqnr_db": sqnr_db(D, histogram.power),
            "gaussian_gap": gap(rate, D, lambda D: gaussian_rate(D, histogram.variance)),
            "shannon_gap": gap(rate, D, lambda D: shannon_rate(D, h)),
        }

    return [point | known(point["rate"], point["mse"]) for point in points]
