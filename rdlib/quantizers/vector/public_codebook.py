"""Vector quantizers whose codebook everybody knows, so that only its scale is paid for."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import minimize_scalar

from rdlib.code.code import Code, Stream
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.vector.codebook import Codebook
from rdlib.quantizers.vector.runs import as_runs, from_runs, sample_of
from rdlib.weights import as_float32

SCALE_SAMPLE = 1 << 16  # weights on which the scale is fitted
COARSE = 0.8  # ratio of neighbouring scales in the first search
FINE = 1e-3  # relative precision of the second


@dataclass(frozen=True)
class PublicCodebook(Quantizer):
    """ŵ = s·c_q, c_q the codeword nearest to a run of d weights over s, with the s of least squared error.

    Streams: ``index`` (q, d·b bits a run), ``scale`` (s, float32).  Runs go along a row, and zeros fill up the last
    of each: it costs as much as a whole one.

    Args:
        bits: nominal rate.
    """

    bits: float
    centred: ClassVar[bool] = True

    @property
    @abstractmethod
    def dimension(self) -> int:
        """The weights d of a run."""

    @abstractmethod
    def codebook(self, size: int) -> Codebook:
        """The codebook of so many codewords.

        Raises:
            ValueError: there is none of that size.
        """

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = as_float32(W)
        runs = as_runs(values, self.dimension)
        book = self.codebook(1 << round(self.bits * self.dimension))
        scale = Stream.floats(np.array([best_scale(runs, book)]), "float32")
        points = runs / (scale.array.astype(np.float64) or 1)
        index = book.nearest(points.reshape(-1, self.dimension)).reshape(runs.shape[:2])
        return Code(values.shape, {"index": Stream.fixed(index, len(book.vectors)), "scale": scale})

    def reconstruct(self, code: Code) -> np.ndarray:
        index = code["index"]
        book = self.codebook(code.streams["index"].format.size)
        return from_runs(code.number("scale") * book.vectors[index], code.shape)


def best_scale(runs: np.ndarray, book: Codebook) -> float:
    """The scale s of least Σ |w − s·c|², c the codeword nearest to w / s, on a sample of the runs.

    The search comes down from a scale that holds every run, and ends where the error is twice the least: a few
    large runs, if they are not worth holding, cannot have raised it by more.

    Args:
        runs: (…, d).
        book: of vectors of d coordinates.
    """
    norms = np.sqrt((runs**2).sum(axis=-1))
    if not norms.any():
        return 0.0
    sample = sample_of(runs, SCALE_SAMPLE)
    reach, spread = (f((book.vectors**2).sum(axis=1)) ** 0.5 for f in (np.max, np.mean))

    def error(scale: float) -> float:
        points = sample / scale
        return scale**2 * ((points - book.vectors[book.nearest(points)]) ** 2).sum()

    scale = norms.max() / (COARSE * reach)  # every run is within the codebook
    smallest = (norms**2).mean() ** 0.5 / (8 * spread)  # most are far outside
    best, least = scale, error(scale)
    while (scale := COARSE * scale) > smallest and (found := error(scale)) < 2 * least:
        if found < least:
            best, least = scale, found
    bounds = (COARSE * best, best / COARSE)
    return minimize_scalar(error, bounds=bounds, method="bounded", options={"xatol": FINE * best}).x
