"""JSON that a model comes with: read whole, null is absent."""

import json
from pathlib import Path

# Where null is a value and not the default of the architecture: no window, no such token.
VALUES = ("sliding_window", "bos_token_id", "eos_token_id", "pad_token_id")


def read_object(path: Path, folder: str) -> dict:
    """The JSON object of a file, in UTF-8 with or without a byte order mark.

    Args:
        path: of the file.
        folder: name of the model, for the sentence.

    Raises:
        ValueError: it is no JSON object; the message names the file.
        FileNotFoundError: there is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} of {folder} is not a JSON object: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} of {folder} is not a JSON object, but {str(content)[:40]}.")
    return content


def without_nulls(value: object) -> object:
    """A JSON value with every key taken out that is null, at any depth.

    >>> without_nulls({"a": None, "b": {"c": None, "d": 1}, "sliding_window": None})
    {'b': {'d': 1}, 'sliding_window': None}
    """
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None or k in VALUES}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value
