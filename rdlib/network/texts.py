"""Text for a model to read: what inputs are calibrated on, and what a model is judged by."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rdlib.files import ASSETS, documents
from rdlib.models.gguf import GGUFContainer
from rdlib.models.hub import find_model

TEXTS = {path.stem: path for path in sorted((ASSETS / "text").glob("*.txt"))}


def load_text(text: str | Path) -> list[str]:
    """The documents of a text in the box (calibration, evaluation, sample) or of a UTF-8 file.

    Documents are divided by ``<|endoftext|>``; a file without that mark is one document.

    Raises:
        ValueError: there is no such text or file, it is no UTF-8, or it is empty.
    """
    path = TEXTS.get(str(text), Path(text))
    try:
        found = documents(path.read_text(encoding="utf-8"))
    except OSError:
        raise ValueError(
            f"There is no text {str(text)!r}: name a file, or one of {', '.join(TEXTS)}."
        ) from None
    except UnicodeDecodeError:
        raise ValueError(f"{path.name} is not UTF-8 text.") from None
    if not found:
        raise ValueError(f"{path.name} holds no text.")
    return found


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model (see :func:`rdlib.models.hub.find_model`).

    Raises:
        ValueError: the model has none.
    """
    folder = find_model(model)
    if folder.is_file():
        return GGUFContainer(folder).tokenizer
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder.name} has no tokenizer that can be read ({type(error).__name__})."
        ) from None


def token_counts(texts: Iterable[str | Path], tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Documents, characters, tokens and characters a token of each text."""
    rows = {}
    for text in texts:
        found = load_text(text)
        characters = sum(map(len, found))
        tokens = sum(len(tokenizer(document)["input_ids"]) for document in found)
        rows[Path(text).name] = [len(found), characters, tokens, characters / tokens]
    columns = ["documents", "characters", "tokens", "characters/token"]
    return pd.DataFrame(rows.values(), index=list(rows), columns=columns)
