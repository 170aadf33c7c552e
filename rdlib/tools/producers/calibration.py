"""The text that quantizers calibrate on, as token windows."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

ASSETS = Path(__file__).parents[2] / "assets"
MODEL = ASSETS / "model"
MULTI_HEAD = ASSETS / "checkpoints" / "multi-head"
TEXT = ASSETS / "text" / "calibration.txt"
END = "<|endoftext|>"  # between documents


def documents() -> list[str]:
    """The stories of the calibration text."""
    return [document.strip() for document in TEXT.read_text(encoding="utf-8").split(END)]


def token_windows(length: int = 256) -> np.ndarray:
    """All stories in the tokens of the embedded model, its mark before each, cut into (windows, length)."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    return _windows([i for document in documents() for i in tokenizer.encode(document).ids], length)


def byte_windows(length: int = 256) -> np.ndarray:
    """All stories as bytes, a zero before each, cut into (windows, length)."""
    return _windows(list("".join("\0" + document for document in documents()).encode()), length)


def _windows(tokens: list[int], length: int) -> np.ndarray:
    return np.array(tokens[: len(tokens) // length * length]).reshape(-1, length)
