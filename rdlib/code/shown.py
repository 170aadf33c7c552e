"""What a file spends, as a picture in a notebook and in words."""

from collections.abc import Mapping
from html import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#777777", "#b2182b")


def streams_bar(rates: Mapping[str, float]) -> str:
    """HTML: a bar whose parts are as long as the streams, and their bits per weight in words, the longest first.

    Args:
        rates: bits per weight of each stream.
    """
    parts = sorted(rates.items(), key=lambda part: -part[1])
    parts = [(escape(name), rate, COLOURS[k % len(COLOURS)]) for k, (name, rate) in enumerate(parts)]
    bar = "".join(f'<span style="flex-grow:{rate:.4f};background:{c}"></span>' for _, rate, c in parts)
    square = '<span style="display:inline-block;width:.8em;height:.8em;background:{}"></span> {} {:.3f}'
    words = " &nbsp; ".join(square.format(c, name, rate) for name, rate, c in parts)
    return (
        f'<div aria-hidden="true" style="display:flex;height:1.2em;max-width:60em">{bar}</div>'
        f"<div>bits per weight of each stream: {words}</div>"
    )


def streams_line(rates: Mapping[str, float]) -> str:
    """The same in one line of text: ``index 4.000, scale 0.250, header 0.002``."""
    return ", ".join(f"{name} {rate:.3f}" for name, rate in sorted(rates.items(), key=lambda part: -part[1]))
