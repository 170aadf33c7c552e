"""Let a model write: a seeded sample for measuring how far a quantized model strays, or lines for a reader.

    python -m rdlib.network.sample rdlib/assets/model rdlib/assets/text/sample.txt

On texts drawn from the model itself, the mean of the next-token divergence KL(P‖Q) estimates the divergence of the
two models as distributions of whole texts.  The sample is plain ancestral sampling, temperature 1, nothing cut off.
"""

import argparse
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from rdlib.models.checkpoint import open_checkpoint
from rdlib.network.network import load_network
from rdlib.network.texts import load_tokenizer

BATCH = 32


def sample(network: LlamaForCausalLM, tokens: int, seed: int = 0) -> list[list[int]]:
    """Token streams of the length of the model's context until there are ``tokens`` of them.

    Args:
        network: see :func:`rdlib.network.network.load_network`.
        tokens: at least so many in all.
        seed: of the random numbers.
    """
    length = network.config.max_position_embeddings
    start = torch.full((BATCH, 1), network.config.bos_token_id)
    streams: list[list[int]] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        while len(streams) * length < tokens:
            streams += _continue(network, start, length - 1, temperature=1.0)
    return streams


def continuation(
    network: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    tokens: int = 60,
    temperature: float = 0.0,
    seed: int = 0,
) -> str:
    """How the network, as it is now, goes on from a prompt, up to the first end of text.

    Args:
        network: see :func:`rdlib.network.network.load_network`.
        tokenizer: of the same model.
        prompt: the beginning; it is not repeated.
        tokens: at most so many.
        temperature: that divides the logits; 0 takes the most probable token every time.
        seed: of the random numbers, which do not disturb any others.
    """
    ids = torch.tensor([tokenizer(prompt)["input_ids"]])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        new = _continue(network, ids, tokens, temperature)[0][ids.shape[1] :]
    ends = [place for place, token in enumerate(new) if token == tokenizer.eos_token_id]
    return tokenizer.decode(new[: min(ends, default=tokens)])


def _continue(
    network: LlamaForCausalLM, ids: torch.Tensor, tokens: int, temperature: float
) -> list[list[int]]:
    """The token streams with so many tokens more."""
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    ids = ids.to(network.device)
    return network.generate(
        ids,
        attention_mask=torch.ones_like(ids),  # else a token that is also the padding is not seen
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        eos_token_id=None,
        pad_token_id=0,
        **(drawn if temperature else {"do_sample": False}),
    ).tolist()


def documents_of(streams: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts of the streams, each cut at its ends of text; one that breaks off at the end is kept."""
    end = tokenizer.eos_token
    return [text.strip() for s in streams for text in tokenizer.decode(s).split(end) if text.strip()]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=34_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    network, tokenizer = load_network(open_checkpoint(options.model)), load_tokenizer(options.model)
    texts = documents_of(sample(network, options.tokens, options.seed), tokenizer)
    options.out.write_text(f"\n{tokenizer.eos_token}\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
