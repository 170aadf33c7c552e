"""Double quantization: the scales of a code quantized once more."""

from dataclasses import dataclass

import numpy as np

from rdlib.code.code import Code, Stream
from rdlib.quantizers.blocks.blocks import block_peaks, reciprocal, table_weights
from rdlib.quantizers.wrappers import Wrapper

NESTED_BLOCK = 256  # scales that share a scale
GRID = 65535  # steps from −1 to 1 to which bitsandbytes rounds before it looks a level up


@dataclass(frozen=True)
class DoubleQuantized(Wrapper):
    """The inner code with its scales s written as s̄ + m·t_q: 8 bits instead of 32 for each.

    s̄ is the mean of the scales, m the largest |s − s̄| of 256 of them, t the table :func:`dynamic_map`.  With NF4 at
    block 64 that is 4 + 8/64 + 32/(64·256) = 4.127 bits.  Streams: those of the inner code, ``scale`` (q, 8 bits
    each), ``scale_scale`` (m, float32), ``scale_mean`` (s̄, float32).

    Ŵ is that of bitsandbytes with ``compress_statistics=True``, up to the last bit of s̄: there it is a float32
    sum whose order depends on the machine, here it is rounded once.

    Args:
        inner: a quantizer whose scales are floats.

    References:
        Dettmers, Pagnoni, Holtzman and Zettlemoyer 2023, arXiv:2305.14314, section 3.
    """

    @property
    def method(self) -> str:
        return f"double-quantized {self.inner.method}"

    def quantize(self, W: np.ndarray, H: np.ndarray | None) -> Code:
        code = self.inner.encode(W, H)
        scale = code["scale"].astype(np.float32)
        mean = np.float32(scale.mean(dtype=np.float64) if scale.size else 0)
        index, largest = nearest_dynamic((scale - mean).ravel())
        streams = {
            "scale": Stream.fixed(index.reshape(scale.shape), len(DYNAMIC)),
            "scale_scale": Stream.floats(largest, "float32"),
            "scale_mean": Stream.floats(mean[None], "float32"),
        }
        return Code(code.shape, dict(code.streams) | streams)

    def levels(self, code: Code) -> np.ndarray:
        """The table t, float32 (256,)."""
        return DYNAMIC

    def reconstruct(self, code: Code) -> np.ndarray:
        index = code["scale"]
        deviation = table_weights(index.reshape(1, -1), code["scale_scale"], self.levels(code), NESTED_BLOCK)
        scale = Stream.floats(deviation.reshape(index.shape) + code.number("scale_mean"), "float32")
        return self.inner.decode(Code(code.shape, dict(code.streams) | {"scale": scale}))


def dynamic_map() -> np.ndarray:
    """The 256 levels 0, 1 and ±10^(e − 6)·f: 7 decades e, in decade e the midpoints f of 2^e steps of [0.1, 1].

    A float whose mantissa grows with its exponent, for values that spread over many decades.  It has no −1.

    Returns:
        float32 (256,), rising.

    References:
        Dettmers 2015, arXiv:1511.04561, as bitsandbytes' ``create_dynamic_map`` builds it.
    """
    positive = [np.zeros(1, np.float32)]
    for decade in range(7):
        edges = _linspace(2**decade + 1)
        positive.append(np.float32(10.0 ** (decade - 6)) * ((edges[:-1] + edges[1:]) / np.float32(2)))
    magnitudes = np.concatenate(positive)
    return np.concatenate([-magnitudes[:0:-1], magnitudes, np.ones(1, np.float32)])


def _linspace(count: int) -> np.ndarray:
    """``count`` even steps from 0.1 to 1, rounded as ``torch.linspace`` does: a float32 step from both ends."""
    first, last = np.float64(np.float32(0.1)), np.float64(1)
    step = np.float64((np.float32(last) - np.float32(first)) / np.float32(count - 1))
    steps = np.arange(count)
    rising, falling = first + step * steps, last - step * steps[::-1]
    return np.where(steps < count // 2, rising, falling).astype(np.float32)


DYNAMIC = dynamic_map()


def nearest_dynamic(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index of the level of the dynamic map nearest to v / m, and m, the largest magnitude of every 256 values.

    As bitsandbytes does on a CPU: v / m is first rounded to one of 65,536 even steps from −1 to 1.

    Args:
        values: v, float32 (n,).

    Returns:
        the index, uint8 (n,), and m, float32 (⌈n / 256⌉,).
    """
    largest = np.abs(block_peaks(values[None], NESTED_BLOCK))[0]
    unit = np.clip(values * np.repeat(reciprocal(largest), NESTED_BLOCK)[: len(values)], -1, 1)
    step = np.trunc((unit + np.float32(1)) * np.float32(GRID / 2) + np.float32(0.5))
    steps = np.float32(-1) + np.float32(2) * step / np.float32(GRID)
    return np.searchsorted((DYNAMIC[1:] + DYNAMIC[:-1]) / 2, steps).astype(np.uint8), largest
