"""Zero points of GPTQ: packed along the outputs, as z (v2: ``"gptq_v2"``) or as z − 1 (v1: ``"gptq"``, or none named).

AutoRound's packing is v1 where its name has ``gptq`` in it, and v2 otherwise.

**Where packages disagree.**  A zero point of 0 is stored by v1 as −1.  auto-gptq 0.7.1 decodes the field of all
ones as 0 with groups of neighbours, but as 2^b with act-order, and so do the kernels for GPUs; its packing moreover
sets all fields above such a zero in the word to ones.  gptqmodel subtracts from whole words, so that −1 borrows from
the field above, and adds to whole words again (3 bits: field by field).  Here a file that names gptqmodel as its
quantizer is added to as gptqmodel does, and any other field by field, modulo 2^b: a zero point is a level.
Symmetric checkpoints have z = 2^(b − 1) everywhere and no such doubt; nor has a group that holds weights of
both signs.

References:
    auto-gptq 0.7.1 and gptqmodel 7.6.0, ``QuantLinear.pack`` and ``dequantize_weight``;
    https://github.com/intel/auto-round, ``export``.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from rdlib.checkpoints.words import unpack
from rdlib.code.code import Code, Stream
from rdlib.models.settings import Settings

FORMATS = {None: 1, "gptq": 1, "gptq_v2": 0}  # what is added to a stored zero
AUTO_ROUND = ("auto-round", "intel/auto-round")


def packing(settings: Settings) -> str:
    """What AutoRound calls the packing, empty where another package wrote the file."""
    if settings.quant_method not in AUTO_ROUND:
        return ""
    return str(settings.get("packing_format") or settings.get("backend") or "auto_round")


@dataclass(frozen=True)
class ZeroPoints:
    """How the zero points of a checkpoint are stored.

    Args:
        bits: of each.
        offset: what is added to a stored one.
        whole: whether it is added to whole words, so that it carries, and not field by field.
    """

    bits: int
    offset: int
    whole: bool

    @classmethod
    def of(cls, settings: Settings, bits: int) -> Self:
        """As the settings say.

        Raises:
            ValueError: the format or the packing is of no known name, or AutoRound's numbers are not integers.
        """
        name, kind = packing(settings), settings.get("data_type", "int")
        if not name:
            whole = bits != 3 and any("gptqmodel" in quantizer for quantizer in settings.quantizers)
            return cls(bits, FORMATS[settings.one_of("format", *FORMATS)], whole)
        if not name.startswith(("auto_round", "auto_gptq")) or "fp" in name or kind != "int":
            raise ValueError(
                f"{settings.folder} was packed by AutoRound as {name!r}, {kind!r}, which rdlib does not read; it "
                "reads integers in the packings of GPTQ and AWQ."
            )
        return cls(bits, int("gptq" in name), False)

    @property
    def other(self) -> str:
        """The version that the file is not labelled as."""
        return "gptq_v2" if self.offset else "gptq"

    def unpack(self, words: np.ndarray, outputs: int) -> np.ndarray:
        """z, uint8 (out, groups), of int32 (groups, words)."""
        if self.whole:
            ones = sum(self.offset << shift for shift in range(0, 32, self.bits))
            return unpack((words.view("<u4") + np.uint32(ones)).view("<i4"), self.bits, outputs).T
        z = unpack(words, self.bits, outputs).T
        return (z + np.uint8(self.offset)) & np.uint8((1 << self.bits) - 1)

    def otherwise(self, code: Code) -> dict[str, Code]:
        """The code of a layer as the other version has it, by what would say so."""
        shift = 1 - 2 * self.offset  # v1 read as v2 has zero points that are one less
        size = code.streams["zero"].format.size
        stream = Stream.fixed(((code["zero"].astype(np.int16) + shift) % size).astype(np.uint8), size)
        return {
            f"checkpoint_format = {self.other!r}": Code(code.shape, dict(code.streams) | {"zero": stream})
        }
