"""The lattice points in a ball as the codebook of a vector quantizer."""

from dataclasses import dataclass
from functools import cache

from rdlib.quantizers.lattice.lattice import Lattice
from rdlib.quantizers.vector.codebook import Codebook
from rdlib.quantizers.vector.public_codebook import PublicCodebook

INDEX_BITS = 16  # at most


@dataclass(frozen=True)
class LatticeBall(PublicCodebook):
    """ŵ = s·c_q: the codewords are the 2^(b·d) lattice points nearest to a centre, less their mean.

    The codebook is computed, not sent: see :meth:`.lattice.Lattice.ball` for the centre.  Without
    its mean it has the least energy of all its shifts, as the codebook of a source without mean should.  Streams:
    ``index`` (q, d·b bits a run of d weights), ``scale`` (s, float32).  Runs go along a row, and zeros fill up the
    last of each: it costs as much as a whole one.

    Args:
        bits: nominal rate b, a multiple of 1/d; there are at most 65,536 codewords.
        lattice: of d dimensions, for runs of d weights.

    References:
        Conway and Sloane, A fast encoding method for lattice codes and quantizers, IEEE Trans. Inf. Theory 29
        (1983), doi:10.1109/TIT.1983.1056761, who shift their codebooks alike.
    """

    lattice: Lattice

    @property
    def bits_allowed(self) -> tuple[float, ...]:
        return tuple(k / self.dimension for k in range(1, INDEX_BITS + 1))

    @property
    def method(self) -> str:
        return f"{self.lattice.name} ball"

    @property
    def dimension(self) -> int:
        return self.lattice.dimension

    def codebook(self, size: int) -> Codebook:
        return ball_codebook(self.lattice, size)


@cache
def ball_codebook(lattice: Lattice, size: int) -> Codebook:
    """The points of :meth:`Lattice.ball`, less their mean."""
    points = lattice.points(lattice.ball(size))
    return Codebook(points - points.mean(axis=0))
