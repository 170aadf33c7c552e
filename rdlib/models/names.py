"""What the name of a tensor says: its layer, and its group of weight matrices."""

import re

GROUPS = ("q", "k", "v", "o", "gate", "up", "down", "embed", "lm_head")

_LINEAR = re.compile(r"model\.layers\.(\d+)\.(?:self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj\.weight")


def layer_and_group(name: str) -> tuple[int, str | None]:
    """Layer and group of a tensor; (−1, None) for one that is no weight matrix."""
    if match := _LINEAR.fullmatch(name):
        return int(match[1]), match[2]
    return -1, {"model.embed_tokens.weight": "embed", "lm_head.weight": "lm_head"}.get(name)
