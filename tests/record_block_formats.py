"""Record what the packages make of the weights of tests/test_block_formats.py, for machines without them.

    pip install -e '.[test,peers]' -c constraints.txt && python tests/record_block_formats.py

Writes tests/block_formats.json: the SHA-256 of Ŵ of torchao and gguf, and the errors of hqq's Ŵ, whose sums depend
on the order in which a machine adds.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import ml_dtypes
import numpy as np
from peers import gguf_weights, hqq_weights, torchao_mxfp4, torchao_nvfp4

from rdlib.quantizers import HQQ, MXFP4, NVFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Quantizer

RECORD = Path(__file__).parent / "block_formats.json"
FORMATS = (MXFP4(), NVFP4(), Q4_0(), Q4_1(), Q5_0(), Q5_1(), Q8_0())
HQQ_BITS = (1, 2, 3, 4, 8)
TYPES = (np.float32, np.float16, ml_dtypes.bfloat16)


def weights(dtype: type) -> np.ndarray:
    """(96, 256) weights, the same on every machine: only integers are drawn.

    Cubes of integers, which have heavy tails; multiples of 1/8, many of which lie half-way between two levels; and
    the first again, each row of another size.  Rows and blocks of zeros are among them.
    """
    rng = np.random.default_rng(0)
    cubes = (rng.integers(-(2**16), 2**16, (32, 256)) * 2.0**-16) ** 3 * 0.125
    eighths = rng.integers(-64, 65, (32, 256)) / 8
    rows = cubes * 2.0 ** rng.integers(-6, 6, (32, 1))
    W = np.concatenate([cubes, eighths, rows])
    W[5], W[40, 64:128] = 0, 0
    return W.astype(dtype)


def peer(quantizer: Quantizer, W: np.ndarray) -> np.ndarray:
    """Ŵ of the package that a format comes from."""
    if isinstance(quantizer, MXFP4):
        return torchao_mxfp4(W)
    if isinstance(quantizer, NVFP4):
        return torchao_nvfp4(W)
    return gguf_weights(W, type(quantizer).__name__)


def cases() -> Iterator[tuple[Quantizer, type]]:
    """Each format with the types that its package takes."""
    for quantizer in FORMATS:
        for dtype in TYPES:
            if not (isinstance(quantizer, (MXFP4, NVFP4)) and dtype is np.float16):
                yield quantizer, dtype


def errors(W: np.ndarray, decoded: np.ndarray) -> list[float]:
    """Mean of |w − ŵ|^p for p = 0.7, 1 and 2."""
    distance = np.abs(W.astype(np.float64) - decoded)
    return [float(np.mean(distance**p)) for p in (0.7, 1, 2)]


def main() -> None:
    """Ask all packages and write the record."""
    hashes: dict[str, dict[str, str]] = {}
    for quantizer, dtype in cases():
        found = sha256(peer(quantizer, weights(dtype)).tobytes()).hexdigest()
        hashes.setdefault(type(quantizer).__name__, {})[dtype.__name__] = found
    W = weights(np.float32)
    record = {
        "versions": {name: version(name) for name in ("gguf", "hqq", "torchao")},
        "sha256": hashes,
        "hqq": {bits: errors(W, hqq_weights(W, bits, HQQ(bits).size)) for bits in HQQ_BITS},
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
