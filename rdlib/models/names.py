"""What the name of a tensor says: its layer, and its group of weight matrices."""

import re

GROUPS = ("q", "k", "v", "o", "gate", "up", "down", "embed", "lm_head")
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"

_LINEAR = re.compile(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj\.weight")
_PREFIXES = ("model.language_model.", "language_model.model.", "")  # of a decoder in a larger model, or alone
_DECODER = re.compile(
    r"layers\.\d+\.(?:self_attn|mlp|input_layernorm|post_attention_layernorm)\..+|embed_tokens\..+|norm\.weight"
)
_HEAD = re.compile(r"(?:language_)?model\.(lm_head\..+)")


def layer_and_group(name: str) -> tuple[int, str | None]:
    """Layer and group of a tensor; (−1, None) for one that is no weight matrix."""
    if match := _LINEAR.fullmatch(name):
        return int(match[1]), match[2]
    return -1, {EMBEDDING: "embed", HEAD: "lm_head"}.get(name)


def canonical(name: str) -> str:
    """The name that a tensor has in a plain Llama.

    >>> canonical("model.language_model.layers.0.self_attn.q_proj.weight")
    'model.layers.0.self_attn.q_proj.weight'
    >>> canonical("layers.0.mlp.up_proj.weight")
    'model.layers.0.mlp.up_proj.weight'
    >>> canonical("language_model.lm_head.scales")
    'lm_head.scales'
    >>> canonical("layers.0.attention.wq.weight")
    'layers.0.attention.wq.weight'
    """
    if match := _HEAD.fullmatch(name):
        return match[1]
    for prefix in _PREFIXES:
        rest = name.removeprefix(prefix)
        if name.startswith(prefix) and _DECODER.fullmatch(rest):
            return f"model.{rest}"
    return name
