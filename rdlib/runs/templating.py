"""Pages of one file that load nothing: templates of a room beside those that all share, and tables for them."""

import math
from pathlib import Path

import pandas as pd

from rdlib.extras import extra

with extra("census", "rdlib.runs.templating"):
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

SHARED = Path(__file__).parent / "templates"
DIGITS = 5  # of numbers in a page's table


def templates(room: Path) -> Environment:
    """The templates in the folder of a room, and those that all rooms share; in HTML what they are given is escaped."""
    found = Environment(
        loader=FileSystemLoader([room / "templates", SHARED]),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    found.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": True}
    return found


def records(table: pd.DataFrame) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of a table as JSON takes them: numbers rounded, None where there is none.

    Columns without any value are left out, and None at the end of a row.
    """
    table = table.dropna(axis="columns", how="all")
    rows = [[_plain(value) for value in row] for row in table.itertuples(index=False)]
    for row in rows:
        while row and row[-1] is None:
            row.pop()
    return [str(column) for column in table], rows


def _plain(value: object) -> object:
    """None, a string, or a number of few digits."""
    if value is None or value is pd.NA or value != value:
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        return str(value)
    number = float(value)
    if not math.isfinite(number):
        return str(number)
    return int(number) if number.is_integer() and abs(number) < 1e15 else float(f"{number:.{DIGITS}g}")
