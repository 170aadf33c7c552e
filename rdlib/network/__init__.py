"""A model that runs: the network, the texts it reads, and the second moments of its inputs."""

from rdlib.extras import extra

with extra("models", "rdlib.network"):
    from rdlib.network.moments import Moments, cached_moments, second_moments
    from rdlib.network.network import bfloat16_rounding, load_network, replaced
    from rdlib.network.sample import continuation, sample
    from rdlib.network.texts import load_text, load_tokenizer, token_counts
    from rdlib.network.windows import Windows, cut_windows, read_tokens
