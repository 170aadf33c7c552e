"""Room for hidden states: in memory up to a limit for all of them together, beyond it in temporary files."""

import math
import os
import shutil
import tempfile
import weakref
from pathlib import Path

import numpy as np
import torch

IN_MEMORY = 2 << 30  # bytes


class Room:
    """Gives out float32 tensors; what a tensor took can be used again once it is forgotten.

    Args:
        in_memory: bytes that all tensors together may take in memory.
    """

    def __init__(self, in_memory: int = IN_MEMORY):
        self.left = in_memory

    def __call__(self, shape: tuple[int, ...]) -> torch.Tensor:
        """A tensor, whose numbers are not set.

        Raises:
            ValueError: there is no room for the file.
        """
        size = 4 * math.prod(shape)
        if size > self.left:
            return torch.from_numpy(_in_file(shape, size))
        array = np.empty(shape, np.float32)
        self.left -= size
        weakref.finalize(array, self._give_back, size)
        return torch.from_numpy(array)

    def _give_back(self, size: int) -> None:
        self.left += size


def _in_file(shape: tuple[int, ...], size: int) -> np.ndarray:
    folder = tempfile.gettempdir()
    refuse_full(folder, size)
    with tempfile.TemporaryFile() as file:  # the mapping outlives it
        os.posix_fallocate(file.fileno(), 0, size)  # now, so that a disk that fills up later does no harm
        return np.memmap(file, np.float32, "r+", shape=shape)


def refuse_full(folder: str, size: int) -> None:
    """Raise a ValueError where a disk does not have so many bytes free."""
    place = Path(folder)
    while not place.exists():
        place = place.parent
    if size > (free := shutil.disk_usage(place).free):
        raise ValueError(
            f"Hidden states take {size / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free there: use fewer "
            "windows or variants at a time, or another disk (TMPDIR)."
        )
