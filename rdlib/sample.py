"""Write down what a model says: a seeded sample, for measuring how far a quantized model strays from it.

    python -m rdlib.sample rdlib/assets/model rdlib/assets/text/sample.txt

Texts drawn from the model itself are where Kullback–Leibler divergence is defined: E over the model's own
distribution.  The sample is plain ancestral sampling, temperature 1, nothing cut off.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

BATCH = 32


@torch.no_grad()
def sample(model: Path, tokens: int, seed: int = 0) -> list[list[int]]:
    """Token streams of the length of the model's context until there are ``tokens`` of them, in float32.

    Args:
        model: folder that transformers loads.
        tokens: at least so many in all.
        seed: of the random numbers.
    """
    llama = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    length = llama.config.max_position_embeddings
    torch.manual_seed(seed)
    streams: list[list[int]] = []
    while len(streams) * length < tokens:
        start = torch.full((BATCH, 1), llama.config.bos_token_id)
        streams += llama.generate(
            start,
            attention_mask=torch.ones_like(start),  # else a token that also stands for padding is not seen
            max_length=length,
            min_length=length,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            eos_token_id=None,
            pad_token_id=0,
        ).tolist()
    return streams


def stories(streams: list[list[int]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
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
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    texts = stories(sample(options.model, options.tokens, options.seed), tokenizer)
    options.out.write_text(f"\n{tokenizer.eos_token}\n".join(texts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
