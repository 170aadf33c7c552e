"""The tokenizer of a file.

Transformers rebuilds vocabulary, merges and special tokens.  How text is split before merging is only named in a file:
a name that is not known is refused, since another split makes other tokens without a word.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from rdlib.models.gguf.file import GGUF

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

KEYS = {
    "model": "tokenizer_type",
    "pre": "pre_tokenizer_type",
    "tokens": "tokens",
    "scores": "scores",
    "token_type": "token_type",
    "merges": "merges",
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "unknown_token_id": "unk_token_id",
    "padding_token_id": "pad_token_id",
    "add_space_prefix": "add_prefix_space",
}
SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def tokenizer(gguf: GGUF) -> "PreTrainedTokenizerFast":
    """The tokenizer of a model, byte-level BPE (``gpt2``) or SentencePiece (``llama``).

    Raises:
        ValueError: the file has none, of another kind, or one that splits text in a way that is not known.
    """
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.gguf import convert_gguf_tokenizer

    stored = {
        n: gguf.metadata[f"tokenizer.ggml.{k}"]
        for k, n in KEYS.items()
        if f"tokenizer.ggml.{k}" in gguf.metadata
    }
    kind, tokens = stored.get("tokenizer_type"), stored.get("tokens")
    if kind not in ("gpt2", "llama") or not isinstance(tokens, list):
        raise ValueError(
            f"{gguf.name} has no tokenizer that is read: its kind is {kind!r}; gpt2 and llama are."
        )
    split = _split(gguf.name, stored) if kind == "gpt2" else None
    try:
        backend, _ = convert_gguf_tokenizer(gguf.metadata["general.architecture"], stored)
        special = {
            name: tokens[gguf.metadata[f"tokenizer.ggml.{key}_token_id"]]
            for name, key in SPECIAL.items()
            if f"tokenizer.ggml.{key}_token_id" in gguf.metadata
        }
    except Exception as error:  # of two libraries, which raise what they like
        raise ValueError(f"The tokenizer of {gguf.name} cannot be rebuilt: {error!r}.") from None
    backend = _without_strangers(backend, len(tokens))
    if split:
        backend.pre_tokenizer = split(backend.pre_tokenizer)
    if gguf.metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"):
        first = special.get("bos_token", "")
        backend.post_processor = TemplateProcessing(
            single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, backend.token_to_id(first))]
        )
    made = PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    made.chat_template = gguf.metadata.get("tokenizer.chat_template")
    return made


def _without_strangers(backend: "Tokenizer", vocabulary: int) -> "Tokenizer":
    """The tokenizer without tokens that transformers added of its own, beyond the vocabulary of the network."""
    state = json.loads(backend.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["id"] < vocabulary]
    return type(backend).from_str(json.dumps(state))


def _split(name: str, stored: dict) -> Callable | None:
    """What becomes of the split that transformers made.

    Raises:
        ValueError: the file names a split that is not known.
    """
    from tokenizers.pre_tokenizers import Digits, Sequence
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    pre = stored.get("pre_tokenizer_type")
    if pre == "smollm":  # every digit alone, then as GPT-2 does
        return lambda made: Sequence([Digits(individual_digits=True), made])
    if pre != "gpt-2" and pre not in GGUF_PRE_TOKENIZER_SPLITS:
        raise ValueError(
            f"{name} splits text as {pre!r} does, which is not known: give a tokenizer of your own."
        )
    return None
