"""The page and the card of an audit: HTML and Markdown that say the same, and one drawing."""

import os
from pathlib import Path

import pandas as pd

from rdlib.audit.fields import FIELDS
from rdlib.audit.figure import gap_map, planes
from rdlib.audit.rows import SCHEMA
from rdlib.audit.tables import (
    costliest,
    fields_table,
    files_table,
    groups_table,
    markdown,
    predictions_table,
    types_table,
)
from rdlib.plot import png, svg, use_style
from rdlib.runs.templating import records, templates

TEMPLATES = templates(Path(__file__).parent)
SHOWN = 100  # rows of tensors before a script shows more


def render(frame: pd.DataFrame, original: str, limit: pd.DataFrame) -> dict[str, str]:
    """``audit.html``, ``audit.md`` and ``audit.svg``, by name.

    Args:
        frame: what :func:`rdlib.audit.audit` writes.
        original: its name, for the heading.
        limit: of the model, columns ``kl`` and ``rate``; empty where it is not known.
    """
    use_style()
    shared_name = common(list(frame.file.unique()))
    frame = frame.assign(file=frame.file.str.removeprefix(shared_name))
    files, tensors = frame[(frame.name == "") & (frame.group == "all")], frame[frame.name != ""]
    read = files[files.gap.notna()]
    labels, ran = list(read.file), read[read.kl.notna()]
    tables = {"Files": files_table(read)} if len(read) else {}
    if len(ran):
        groups = frame[(frame.name == "") & (frame.group != "all")]
        tables |= {
            "Predictions": predictions_table(ran),
            "KL by kind of tensor": groups_table(groups, list(ran.file)),
        }
    if len(read):
        tables |= {"Types of tensors": types_table(tensors, labels), "Bits by field": fields_table(read)}
        tables["What costs most"] = costliest(tensors[tensors.file.isin(labels)])
    drawing = svg(planes(read, limit)) if len(read) else ""
    columns, rows = records(tensors.drop(columns=[f"{field}_coded" for field in FIELDS]))
    shared = {
        "original": original,
        "shared_name": shared_name,
        "tables": tables,
        "refused": list(files[files.error.notna()][["file", "error"]].itertuples(index=False, name=None)),
        "warnings": list(files[files.note.notna()][["file", "note"]].itertuples(index=False, name=None)),
        "weights": f"{int(read.weights.max()):,}" if len(read) else "",
        "drawn": bool(drawing),
        "limited": bool(len(limit)),
        "protocol": ran.protocol.iloc[0] if len(ran) else "",
        "floor": f"{ran.kl_floor.iloc[0]:.2g}" if len(ran) else "",
    }
    maps = [
        (label, png(gap_map(own))) for label, own in tensors[tensors.gap.notna()].groupby("file", sort=False)
    ]
    page = TEMPLATES.get_template("audit.html.j2").render(
        title=f"Audit of {original}",
        drawing=drawing,
        maps=maps,
        columns=columns,
        rows=rows,
        shown=rows[:SHOWN],
        schema=SCHEMA,
        **shared,
    )
    card = TEMPLATES.get_template("audit.md.j2").render(markdown=markdown, **shared)
    return {"audit.html": page, "audit.md": card, "audit.svg": drawing}


def common(names: list[str]) -> str:
    """What all names begin with, up to a separator: tables of many files are narrower without it.

    >>> common(["Llama-3.Q4_K_M", "Llama-3.Q4_K_S"]), common(["a-1", "b-1"]), common(["a-1"])
    ('Llama-3.', '', '')
    """
    begin = os.path.commonprefix(names) if len(names) > 1 else ""
    return begin[: 1 + max(begin.rfind(mark) for mark in "/.- ")]
