"""How bitsandbytes describes a layer of 4 bits: a JSON object, stored as bytes in a tensor named after its type."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np

from rdlib.checkpoints.parts import LayerTensors
from rdlib.quantizers.blocks.double_quantized import NESTED_BLOCK

STATE = "weight.quant_state."
STATES = tuple(f"{STATE}bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
DTYPES = ("float16", "bfloat16", "float32")


@dataclass(frozen=True)
class QuantState:
    """What decoding needs.

    Args:
        shape: (out, in).
        size: of a block.
        dtype: of the weights before, and after decoding.
        offset: mean of the scales where these are quantized too; None where they are not.
    """

    shape: tuple[int, int]
    size: int
    dtype: str
    offset: float | None

    @classmethod
    def of(cls, parts: LayerTensors, kind: str) -> Self:
        """The state of a layer of nf4 or fp4.

        Raises:
            ValueError: there is none, one of another type, or it is not understood.
        """
        kinds = [suffix.removeprefix(STATE) for suffix in parts.suffixes if suffix.startswith(STATE)]
        if kinds != [f"bitsandbytes__{kind}"]:
            found = " and ".join(parts.name(STATE + other) for other in kinds) or "no state"
            raise ValueError(
                f"{parts.name('weight')} has {found}, but bnb_4bit_quant_type = {kind!r} needs "
                f"{STATE}bitsandbytes__{kind}."
            )
        name = STATE + kinds[0]
        try:
            state = json.loads(parts.integers(name, "uint8", dimensions=1).tobytes())
            rows, columns = state["shape"]
            sizes = [rows, columns, state["blocksize"], state.get("nested_blocksize", NESTED_BLOCK)]
            offset = float(state["nested_offset"]) if "nested_offset" in state else None
            said, dtype = state["quant_type"], state["dtype"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{parts.name(name)} is no state of a layer: {error!r}.") from None
        counts = all(type(size) is int and size > 0 for size in sizes) and sizes[3] == NESTED_BLOCK
        if not (counts and np.isfinite(offset or 0) and said == kind and dtype in DTYPES):
            raise ValueError(f"{parts.name(name)} describes the layer as {state}, which rdlib does not read.")
        return cls((rows, columns), sizes[2], dtype, offset)
