"""EXL3's three codes: what 16 bits of a trellis stand for, computed in a few instructions instead of looked up.

Each makes of the register r a number x of 32 bits, and of x a float16 that is distributed about as a Gaussian:

* 3inst: x = 89226354·r + 64248484.  Each half of x gives sign, mantissa and two bits of the exponent of a float16; c is
  the sum of the two.
* mcg: the same with x = 0xCBAC1FED·r.
* mul1: x = 0x83DCD12D·r; c is the sum of the four bytes of x, less 510, over 147.7, rounded once.

References:
    Tseng et al. 2024 (QTIP), arXiv:2406.11235, section 3.1, where 3inst is from; turboderp 2025, exllamav3,
    ``exllamav3_ext/quant/codebook.cuh``.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from rdlib.quantizers.trellis.bitshift import BitshiftTrellis

REGISTER = 16
MULTIPLIERS = {"3inst": 89226354, "mcg": 0xCBAC1FED, "mul1": 0x83DCD12D}
ADDED = {"3inst": 64248484, "mcg": 0, "mul1": 0}
FROM_X, FIXED = (
    np.uint32(0x8FFF8FFF),
    np.uint32(0x3B603B60),
)  # bits of two float16 that x gives, and the others
OF_SUM = (
    np.array([0x1EEE, 0xC931], np.uint16).view(np.float16).astype(np.float64)
)  # 1/147.7, −(1024 + 510)/147.7


@cache
def computed_code(codebook: str) -> np.ndarray:
    """c(r) of all registers, float16 (65536,).

    Args:
        codebook: 3inst, mcg or mul1.
    """
    x = np.arange(1 << REGISTER, dtype=np.uint32)
    x = x * np.uint32(MULTIPLIERS[codebook]) + np.uint32(ADDED[codebook])
    if codebook == "mul1":
        total = 1024 + x.view(np.uint8).reshape(-1, 4).sum(axis=1, dtype=np.int64)
        code = (total * OF_SUM[0] + OF_SUM[1]).astype(np.float16)
    else:
        code = (x & FROM_X ^ FIXED).view(np.float16).reshape(-1, 2).sum(axis=1, dtype=np.float16)
    code.setflags(write=False)
    return code


@dataclass(frozen=True)
class ComputedTrellis(BitshiftTrellis):
    """ŵ = s·c(r), r the last L bits of the index, c a code that EXL3 computes, over its standard deviation.

    Sequences have about 256 weights, as many as a tile of EXL3 (which runs through them the other way).  All else is as
    in :class:`rdlib.quantizers.trellis.bitshift.BitshiftTrellis`.

    Args:
        bits: nominal rate, new bits of a step; at most half of the register.
        register: L, its length in bits, 16 in EXL3; a shorter one has the first of the numbers.
        codebook: 3inst, mcg or mul1.

    Raises:
        ValueError: there is no such code.

    References:
        :mod:`rdlib.quantizers.trellis.computed`.
    """

    register: int = REGISTER
    codebook: str = "mcg"

    length = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.codebook not in MULTIPLIERS:
            raise ValueError(f"The codes are {', '.join(MULTIPLIERS)}, not {self.codebook!r}.")

    @property
    def bits_allowed(self) -> range:
        return range(1, max(self.register, 8) // 2 + 1)

    @property
    def method(self) -> str:
        return f"{super().method} {self.codebook}"

    @property
    def code(self) -> np.ndarray:
        values = computed_code(self.codebook)[: 1 << self.register].astype(np.float32)
        return values / values.std()
