"""How the range of the levels follows from the weights of a group."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Clipping(ABC):
    """A rule for the range of a uniform quantizer."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Name in tables and plots."""

    @property
    @abstractmethod
    def search(self) -> tuple[float, bool]:
        """Largest magnitude in units of √P, P = mean w², and whether to look for the range of least squared error."""


@dataclass(frozen=True)
class MinMax(Clipping):
    """The range of the weights: nothing is clipped."""

    @property
    def label(self) -> str:
        return ""

    @property
    def search(self) -> tuple[float, bool]:
        return math.inf, False


@dataclass(frozen=True)
class Sigmas(Clipping):
    """The range of the weights, cut at ± k·√P, P = mean w² of the group: k·σ where the mean is 0.

    Args:
        k: in units of √P, the root mean square.

    Raises:
        ValueError: k is not positive.
    """

    k: float = 3.0

    def __post_init__(self) -> None:
        if not self.k > 0:
            raise ValueError(
                f"Weights are clipped at a positive number of standard deviations, not {self.k}."
            )

    @property
    def label(self) -> str:
        return f"{self.k:g}σ"

    @property
    def search(self) -> tuple[float, bool]:
        return self.k, False


@dataclass(frozen=True)
class LeastSquares(Clipping):
    """The range, shrunk by the one factor that minimises the squared error of the group."""

    @property
    def label(self) -> str:
        return "opt. clip"

    @property
    def search(self) -> tuple[float, bool]:
        return math.inf, True
