"""The network of a model as a whole, and the texts it reads."""

from rdlib.extras import extra

with extra("models", "rdlib.network"):
    from rdlib.network.network import load_network, replaced
    from rdlib.network.sample import continuation, sample
    from rdlib.network.texts import load_text, load_tokenizer, token_counts
    from rdlib.network.windows import Windows, cut_windows, read_tokens
