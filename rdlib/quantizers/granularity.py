"""How many weights share a scale: the tensor, an output channel (row), or a group within a row."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Granularity(ABC):
    """A partition of every row of W into groups that share a scale.

    Args:
        scale_format: float format in which scales are written (see :class:`rdlib.code.floats.Float`).
    """

    scale_format: str = "float16"

    @property
    @abstractmethod
    def label(self) -> str:
        """Name in tables and plots."""

    @abstractmethod
    def width(self, columns: int) -> int:
        """Weights of a row that share a scale; the last group of a row may be shorter."""

    def of_rows(self, scales: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The scales of every row, float32 (out, groups), also where all rows share one.

        Raises:
            ValueError: there is not a scale for every group.
        """
        groups = -(-shape[1] // max(self.width(shape[1]), 1))
        if shape[0] and groups and scales.shape not in ((1, groups), (shape[0], groups)):
            raise ValueError(
                f"Scales of shape {scales.shape} are not those of {groups} groups a row of W {shape}."
            )
        rows = scales.astype(np.float32) if shape[0] and groups else np.zeros(1, np.float32)
        return np.broadcast_to(rows, (shape[0], groups)).copy()  # one layout, compiled once

    def expand(self, scales: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """The scale of every weight, float32 (out, in).

        Raises:
            ValueError: there is not a scale for every group.
        """
        rows = self.of_rows(scales, shape)
        return np.repeat(rows, max(self.width(shape[1]), 1), axis=1)[:, : shape[1]]


@dataclass(frozen=True)
class PerTensor(Granularity):
    """One scale for all weights, in float32: 32 bits once do not count."""

    scale_format: str = "float32"

    @property
    def label(self) -> str:
        return "tensor"

    def width(self, columns: int) -> int:
        return columns


@dataclass(frozen=True)
class PerChannel(Granularity):
    """One scale a row, which is an output channel."""

    @property
    def label(self) -> str:
        return "channel"

    def width(self, columns: int) -> int:
        return columns


@dataclass(frozen=True)
class PerGroup(Granularity):
    """One scale for every ``size`` neighbours of a row: 16 / size bits per weight.

    Args:
        size: of a group; where it does not divide the row, the last group is shorter and costs as much.

    Raises:
        ValueError: ``size`` is less than 1.
    """

    size: int = 128

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"A group holds at least 1 weight, not {self.size}.")

    @property
    def label(self) -> str:
        return f"g{self.size}"

    def width(self, columns: int) -> int:
        return min(self.size, columns)
