"""The matrices of a model's layers in another type of llama.cpp, as its ``llama-quantize --pure`` writes them.

    python -m rdlib.tools.producers.requantize smollm2-135m SmolLM2-135M-Instruct.Q4_K.gguf Q4_K

Where blocks do not divide a row, llama.cpp's own substitute takes the place of a type.  There is no importance: all
inputs are equal for the types that ask for one.  The embedding becomes Q8_0, norms stay in float32.
"""

import sys
from pathlib import Path

import libgguf
import numpy as np

from rdlib.allocation.gguf import OUTER, add_tensor, described, finish
from rdlib.checkpoints.llama_cpp import LlamaCpp, LlamaCppImportance
from rdlib.files import whole
from rdlib.models import open_checkpoint
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.gguf.types import named_type

SUBSTITUTES = {
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}  # llama.cpp, tensor_type_fallback; IQ4_NL for others


def fitting(kind: str, columns: int) -> str:
    """The type, or what stands in for it in rows that are no whole blocks.

    >>> fitting("Q4_K", 512), fitting("Q4_K", 576), fitting("IQ2_XS", 576)
    ('Q4_K', 'Q5_0', 'IQ4_NL')
    """
    return SUBSTITUTES.get(kind, "IQ4_NL") if columns % named_type(kind).size else kind


def write(checkpoint: Checkpoint, file: Path, kind: str) -> None:
    """Write a model with the matrices of its layers in a type, such as Q4_K."""
    with whole(file) as unfinished:
        writer = described(checkpoint, unfinished)
        for name, weight in checkpoint.parameters.items():
            rows, of = np.asarray(weight.values(), np.float32), "F32"
            if rows.ndim == 2:
                of = fitting(kind, rows.shape[1]) if weight.layer >= 0 else OUTER
                number = libgguf.GGMLQuantizationType[of]
                quantizer = LlamaCppImportance if libgguf.quantize_requires_imatrix(number) else LlamaCpp
                rows = quantizer(of).blocks(rows)
            add_tensor(writer, checkpoint, name, rows, of)
        finish(writer)


if __name__ == "__main__":
    write(open_checkpoint(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
