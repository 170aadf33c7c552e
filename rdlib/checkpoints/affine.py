"""ŵ = s·(q − z): how GPTQ and AWQ checkpoints are decoded."""

from dataclasses import dataclass

import numpy as np

from rdlib.code.code import Code
from rdlib.code.decoder import Decoder


@dataclass(frozen=True)
class Affine(Decoder):
    """ŵ = s·(q − z) with a scale s and an integer zero point z for every group of neighbours in a row.

    The product is rounded to the type of s, as in the packages, whose arithmetic is in that type.  Streams:
    ``index`` (q, ``bits`` bits), ``scale`` (s, float16 as a rule), ``zero`` (z, ``bits`` bits).

    Args:
        bits: nominal rate.
        method: name in tables and plots.
        group_size: inputs that share a scale; the last group may be shorter.
    """

    bits: int
    method: str
    group_size: int

    def groups(self, code: Code) -> np.ndarray:
        """The group of every input, (in,)."""
        return np.arange(code.shape[1]) // self.group_size

    def reconstruct(self, code: Code) -> np.ndarray:
        scale, zero, groups = code["scale"], code["zero"], self.groups(code)
        steps = code["index"].astype(np.float32)
        steps -= zero.astype(np.float32)[:, groups]
        steps *= scale.astype(np.float32)[:, groups]  # exact: 11 bits of s times 9 of q − z
        return steps.astype(scale.dtype).astype(np.float32)


@dataclass(frozen=True)
class ActOrdered(Affine):
    """ŵ = s·(q − z) where groups are of inputs that were quantized one after the other, not of neighbours.

    GPTQ with ``desc_act`` takes inputs by falling H_ii.  Streams: those of :class:`Affine`, and ``g_idx`` (log₂ of
    the number of groups, for each input).
    """

    def groups(self, code: Code) -> np.ndarray:
        return code["g_idx"]


def group_label(group_size: int) -> str:
    """Name of a granularity in tables and plots; −1 is a whole row."""
    return "channel" if group_size == -1 else f"g{group_size}"
