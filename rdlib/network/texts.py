"""Text for a model to read: what inputs are calibrated on, and what a model is judged by."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rdlib.files import ASSETS, documents
from rdlib.models.gguf import GGUFContainer
from rdlib.models.hub import find_model
from rdlib.models.json_file import read_object

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
        ValueError: the model has none, or one whose vocabulary is less than half of the model's: where the file of the
            vocabulary is missing, transformers makes an empty one.
    """
    folder = find_model(model)
    if folder.is_file():
        return GGUFContainer(folder).tokenizer
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # of transformers and tokenizers, which raise many
        raise ValueError(
            f"{folder.name} has no tokenizer that can be read ({type(error).__name__})."
        ) from None
    asked = _vocabulary(folder)
    if 2 * len(tokenizer) < asked:
        raise ValueError(
            f"The tokenizer of {folder.name} has {len(tokenizer)} entries, and the model {asked}: its vocabulary, "
            "tokenizer.json or tokenizer.model, is missing or of another model."
        )
    return tokenizer


def _vocabulary(folder: Path) -> int:
    """How many tokens the model has; 0 where it does not say."""
    try:
        size = read_object(folder / "config.json", folder.name).get("vocab_size")
    except FileNotFoundError:
        return 0
    return size if type(size) is int else 0


def tokens_of(text: str | Path, tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    """The tokens of each document of a text, as the tokenizer writes it.

    Raises:
        ValueError: there is no such text, or the tokenizer does not know most of it.
    """
    streams = [tokenizer(document, verbose=False)["input_ids"] for document in load_text(text)]
    tokens = sum(map(len, streams))
    unknown = sum(stream.count(tokenizer.unk_token_id) for stream in streams)
    marks = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    special = sum(token in marks for stream in streams for token in stream)
    if 2 * unknown > tokens or special + unknown == tokens:
        name = Path(text).name
        raise ValueError(
            f"Of {tokens:,} tokens of {name}, {unknown:,} are unknown and {special:,} only mark beginning or "
            "end: the tokenizer is not made for this text."
        )
    return streams


def token_counts(texts: Iterable[str | Path], tokenizer: PreTrainedTokenizerBase) -> pd.DataFrame:
    """Documents, characters, tokens and characters a token of each text."""
    rows = {}
    for text in texts:
        found = load_text(text)
        characters = sum(map(len, found))
        tokens = sum(map(len, tokens_of(text, tokenizer)))
        rows[Path(text).name] = [len(found), characters, tokens, characters / tokens]
    columns = ["documents", "characters", "tokens", "characters/token"]
    return pd.DataFrame(rows.values(), index=list(rows), columns=columns)
