"""Shape and gain: the direction of 24 weights by a point of the Leech lattice, their length by a level."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.histogram import Histogram, lloyd_max
from rdlib.quantizers.base import Quantizer
from rdlib.quantizers.lattice.lattice import LEECH
from rdlib.quantizers.lattice.numbered import Numbered
from rdlib.quantizers.scalar.level_table import level_streams, levels_of
from rdlib.quantizers.vector.runs import as_runs, from_runs
from rdlib.weights import as_float32, ratio, with_room

SHELL = 16  # of squared norm: points of the Leech lattice have 0, 32, 48, 64, …
LARGEST = 13 * SHELL  # up to which there are 2^47.997 points
COVERING_RADIUS = 4.0  # no place is farther from the nearest point
INWARDS = (1.9, 1.35, 1.0, 0.65, 0.35)  # of the outermost shell, where points are sought
BITS = 48  # of a run
WORDS = np.array([32, 16, 0])  # where the three words of 16 bits begin in which they are written


@dataclass(frozen=True)
class ShapeGain(Quantizer):
    """ŵ = g·λ/‖λ‖: λ the point of the Leech lattice of least angle to 24 weights, g the level next to ⟨w, λ⟩/‖λ‖.

    λ is one of the 2^(48 − b) points, or fewer, of the first shells around the origin, and g one of 2^b levels.  The
    levels are those of least Σ (w − ŵ)², since ‖w − g·u‖² = ‖w‖² − ⟨w, u⟩² + (⟨w, u⟩ − g)² for ‖u‖ = 1.  The origin,
    the only λ without a direction, stands for weights that are nearer to 0 than to g·u.

    The nearest points to five places on the ray through w are tried, and where all are too far out, that to a sixth,
    further inside.  At times another λ has a smaller angle: that costs 0.02 dB.

    Streams: ``index`` (2^(48 − b)·level + number of the point, see :class:`.numbered.Numbered`; 48 bits a run),
    ``levels`` (float16, in units of ``scale``), ``scale`` (the largest gain, float32).  Runs go along a row, and zeros
    fill up the last of each: it costs as much as a whole one.

    Args:
        gain_bits: b.

    Raises:
        ValueError: b is not one of 0, 1, … 8.

    References:
        van der Ouderaa, van Baalen, Whatmough and Nagel 2026 (LLVQ), arXiv:2603.11021; Sabin and Gray, Product code
        vector quantizers for waveform and voice coding, IEEE Trans. ASSP 32 (1984), doi:10.1109/TASSP.1984.1164346.
    """

    bits: int = 2
    gain_bits: int = 1
    bits_allowed: ClassVar[range] = range(2, 3)
    centred: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gain_bits not in range(9):
            raise ValueError(f"A gain has 0 to 8 of the 48 bits, not {self.gain_bits!r}.")

    @property
    def method(self) -> str:
        return f"Leech shape–gain {self._shape_bits}+{self.gain_bits}"

    @property
    def norm(self) -> int:
        """The squared norm of the outermost shell."""
        return SHELL * (int(np.searchsorted(leech().sizes[::SHELL], 1 << self._shape_bits, "right")) - 1)

    @property
    def _shape_bits(self) -> int:
        return BITS - self.gain_bits

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        values = with_room(as_float32(W))
        runs = as_runs(values, LEECH.dimension)
        x = towards(runs.reshape(-1, LEECH.dimension), self.norm).reshape(runs.shape)
        along = (runs * on_sphere(x)).sum(axis=-1)  # the best gain of each
        histogram = Histogram.of(along.astype(np.float32))
        found = lloyd_max(histogram, 1 << self.gain_bits)
        levels = np.pad(found, (0, (1 << self.gain_bits) - len(found)))  # few runs have few
        side = level_streams(levels, histogram)
        table = levels_of(side["levels"].array, side["scale"].array[0]).astype(np.float64)[: len(found)]
        gain = np.searchsorted((table[1:] + table[:-1]) / 2, along)
        x[2 * along < table[gain]] = 0
        number = leech().numbers(x.reshape(-1, LEECH.dimension), self.norm).reshape(gain.shape)
        number += gain << self._shape_bits
        words = number[..., None] >> WORDS & 0xFFFF
        return Code(values.shape, side | {"index": Stream.fixed(words, 1 << 16)})

    def reconstruct(self, code: Code) -> np.ndarray:
        levels, words = levels_of(code["levels"], code.number("scale")), code["index"].astype(np.int64)
        if words.shape[2:] != WORDS.shape or levels.shape != (1 << self.gain_bits,):
            raise ValueError(f"The code does not hold three words a run, or not 2^{self.gain_bits} levels.")
        gain, number = np.divmod((words << WORDS).sum(axis=-1), 1 << self._shape_bits)
        x = leech().points(number.ravel(), self.norm).reshape(*number.shape, LEECH.dimension)
        return from_runs(levels[gain][..., None] * on_sphere(x), code.shape)


@cache
def leech() -> Numbered:
    """The points of the first shells of the Leech lattice."""
    return Numbered(LEECH, LARGEST)


def on_sphere(x: np.ndarray) -> np.ndarray:
    """λ/‖λ‖ of points or weights (…, 24), and 0 of the origin."""
    return ratio(x.astype(np.float64), np.linalg.norm(x, axis=-1, keepdims=True))


def towards(runs: np.ndarray, norm: int) -> np.ndarray:
    """The points of least angle to some weights that are found, int32 (n, 24); the origin where the weights are 0.

    Args:
        runs: (n, 24).
        norm: squared, of the outermost shell.
    """
    rays, best, nearest = on_sphere(runs), np.zeros(runs.shape, np.int32), np.zeros(len(runs))
    for inwards in INWARDS:
        x = LEECH.nearest((np.sqrt(norm) - inwards) * rays)
        cosine = (rays * on_sphere(x)).sum(axis=1)
        better = (cosine > nearest) & ((x**2).sum(axis=1) <= norm)
        best[better], nearest[better] = x[better], cosine[better]
    lost = nearest == 0
    best[lost] = LEECH.nearest((np.sqrt(norm) - COVERING_RADIUS) * rays[lost])
    return best
