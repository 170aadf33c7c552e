"""Equal windows of a text: the protocol by which inputs are calibrated and a model is judged."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from rdlib.files import sha256
from rdlib.network.texts import tokens_of

BATCH = 2048  # tokens of one forward pass: enough to keep the processor busy, few enough to fit


@dataclass(frozen=True, eq=False)
class Windows:
    """Packed windows of ``length`` inputs, each with the token after it as its target; nothing is padded.

    Of every window the last ``stride`` predictions count, so that each is made from at least ``length −
    stride`` tokens before it, and every window has as many of them as any other.

    Args:
        ids: (windows, length + 1) tokens.
        stride: predictions of a window that count.
        bos: the token that was put in front of every window, or None.
    """

    ids: np.ndarray
    stride: int
    bos: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def length(self) -> int:
        """Inputs of a window."""
        return self.ids.shape[1] - 1

    @property
    def tokens(self) -> int:
        """Inputs of all windows."""
        return len(self) * self.length

    @property
    def targets(self) -> np.ndarray:
        """(windows, stride): the tokens whose prediction counts."""
        return self.ids[:, -self.stride :]

    @property
    def batches(self) -> Iterator[slice]:
        """Windows that make one forward pass together, of some 2,048 tokens."""
        size = max(1, BATCH // self.length)
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def parts(self, size: int) -> list[tuple[int, slice]]:
        """Window and places of the predictions that count, no more than ``size`` at a time."""
        starts = range(self.length - self.stride, self.length, size)
        return [(k, slice(i, min(i + size, self.length))) for k in range(len(self)) for i in starts]

    def take(self, count: int) -> "Windows":
        """The first ``count`` windows, or all where there are fewer."""
        return Windows(self.ids[:count], self.stride, self.bos)

    @property
    def protocol(self) -> str:
        """In words, for titles and captions."""
        start = "no BOS added" if self.bos is None else f"BOS {self.bos} before each"
        return f"{len(self)} windows of {self.length} tokens, stride {self.stride}, {start}"

    @property
    def sha256(self) -> str:
        """Hash of tokens and protocol."""
        ids = np.ascontiguousarray(self.ids, np.int64)
        head = f"{ids.shape} {self.stride} {self.bos}".encode()
        return sha256(head + ids.tobytes())


def read_tokens(text: str | Path, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """One stream of tokens: the documents of a text one after the other, as the tokenizer writes each.

    A Llama tokenizer puts its begin-of-text token before every document.

    Raises:
        ValueError: there is no such text, or the tokenizer does not know most of it.
    """
    return np.concatenate([np.asarray(stream, np.int64) for stream in tokens_of(text, tokenizer)])


def cut_windows(
    tokens: np.ndarray, length: int, stride: int | None = None, bos: int | None = None
) -> Windows:
    """All whole windows of a stream of tokens; what is left over at the end is not used.

    Args:
        tokens: (n,) integers.
        length: inputs of a window, tokens.
        stride: distance between windows and predictions that count in each; ``length``, the windows side by
            side and everything counted, where None.
        bos: token to put in front of every window, which otherwise begins where it happens to begin.

    Raises:
        ValueError: ``length`` or ``stride`` is out of range, or the text is shorter than one window.
    """
    stride = length if stride is None else stride
    if length < 1 or not 1 <= stride <= length:
        raise ValueError(f"Windows of {length} tokens cannot be {stride} apart: take 1 ≤ stride ≤ length.")
    taken = length + (bos is None)  # a BOS is the first input
    starts = np.arange(0, len(tokens) - taken + 1, stride)
    if not len(starts):
        raise ValueError(
            f"The text has {len(tokens)} tokens, and one window takes {taken}: choose shorter windows."
        )
    ids = np.asarray(tokens, np.int64)[starts[:, None] + np.arange(taken)]
    if bos is not None:
        ids = np.insert(ids, 0, bos, axis=1)
    return Windows(ids, stride, bos)
