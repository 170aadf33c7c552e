"""What the bits of a file are spent on: its fields, each the streams of one kind in all formats together."""

from collections.abc import Mapping

FIELDS: dict[str, str] = {
    "codes": "indices, signs: of single weights, or of a few together",
    "scales": "and scales of scales",
    "zeros": "zero points and shifts",
    "minima": "and scales of minima",
    "tables": "levels, codebooks, orders of inputs, and what a package writes beside them",
    "unquantized": "tensors of floats: norms, biases, often embedding and head",
    "metadata": "header, configuration, tokenizer, padding: all of the files that belongs to no tensor",
}
_KINDS = {
    "codes": ("index", "sign", "coset", "path"),
    "zeros": ("zero", "shift", "offset"),
    "minima": ("minimum", "super_minimum", "first"),
    "scales": ("spacing", "deviation", "row_deviation", "step"),
    "tables": ("scale_mean",),  # bitsandbytes has it in a JSON object
}
_FIELD_OF = {stream: field for field, streams in _KINDS.items() for stream in streams}
BLOCKS = "blocks"  # a tensor in which all streams lie side by side


def field_of(stream: str) -> str:
    """The field that a stream of a code, or a tensor of a quantized layer, belongs to.

    >>> field_of("super_scale"), field_of("g_idx"), field_of("sign")
    ('scales', 'tables', 'codes')
    """
    return _FIELD_OF.get(stream) or ("scales" if "scale" in stream else "tables")


def on_disk(stored: Mapping[str, int], needed: Mapping[str, int]) -> dict[str, int]:
    """Bits of every field in the file; they add up to all that is stored.

    Args:
        stored: bits of the tensors of a layer, by the stream that each contains.
        needed: bits of the streams of its code, by which a tensor of :data:`BLOCKS` is shared out.
    """
    found = dict.fromkeys(FIELDS, 0)
    for stream, bits in stored.items():
        inside = needed if stream == BLOCKS else {stream: bits}
        for field, part in gathered(inside).items():
            found[field] += part
        found["codes"] += bits - sum(inside.values())  # the rest of a last byte
    return found


def gathered(streams: Mapping[str, int]) -> dict[str, int]:
    """Bits by field of bits by stream."""
    found: dict[str, int] = {}
    for stream, bits in streams.items():
        found[field_of(stream)] = found.get(field_of(stream), 0) + bits
    return found
