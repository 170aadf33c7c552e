"""What the page and the card of an audit show, as tables of words: columns, and rows of cells."""

import pandas as pd

from rdlib.audit.fields import FIELDS
from rdlib.audit.summary import types
from rdlib.models.names import GROUPS

GIB = 8 << 30  # bits
TENSORS = dict(  # what llama.cpp calls the matrices of a group
    zip(
        GROUPS,
        (
            "attn_q",
            "attn_k",
            "attn_v",
            "attn_output",
            "ffn_gate",
            "ffn_up",
            "ffn_down",
            "token_embd",
            "output",
        ),
        strict=True,
    )
)
Table = tuple[list[str], list[list[str]]]


def files_table(files: pd.DataFrame) -> Table:
    """A row a file: size, rate, distortion, distance to the limit."""
    columns = [
        "file",
        "GiB",
        "bits per weight",
        "… of coded matrices",
        "SQNR (dB)",
        "R(D) of that",
        "gap (bits)",
    ]
    columns.append("lossless coding saves")
    rows = []
    for row in files.itertuples():
        coded = sum(getattr(row, f"{field}_coded") for field in FIELDS)
        numbers = [f"{row.bits / GIB:.3f}", f"{row.rate:.3f}", _number(row.limit + row.gap, 3)]
        numbers += [_number(row.sqnr_db, 2), _number(row.limit, 3), _number(row.gap, 3)]
        rows.append([row.file, *numbers, f"{100 * (1 - coded / row.bits):.1f} %"])
    return columns, rows


def fields_table(files: pd.DataFrame) -> Table:
    """A row a file: what each field takes, in bits per weight of the model, and what a lossless coder makes of it."""
    used = [field for field in FIELDS if files[field].any()]
    rows = []
    for _, row in files.iterrows():
        pairs = [(row[field] / row.weights, row[f"{field}_coded"] / row.weights) for field in used]
        rows.append([row.file, *(f"{spent:.4f} ({coded:.4f})" if spent else "" for spent, coded in pairs)])
    return ["file", *used], rows


def types_table(tensors: pd.DataFrame, labels: list[str]) -> Table:
    """A row for every kind of tensor: its types in each file, from that of most weights on."""
    rows = []
    for group, name in TENSORS.items():
        own = tensors[(tensors.group == group).fillna(False) & tensors.type.notna()]
        cells = [_kinds(own[(own.file == label).fillna(False)]) for label in labels]
        if any(cells):
            rows.append([name, *cells])
    return ["tensor", *labels], rows


def costliest(tensors: pd.DataFrame, count: int = 5) -> Table:
    """The tensors of each file that are farthest from their limit, most bits wasted first."""
    rows = []
    for label, own in tensors[tensors.gap.notna()].groupby("file", sort=False):
        own = own.assign(wasted=own.gap * own.weights)
        for row in own.nlargest(count, "wasted").itertuples():
            share = f"{100 * row.wasted / own.wasted.sum():.1f} %"
            rows.append(
                [label, row.name, row.type, f"{row.rate:.3f}", f"{row.sqnr_db:.2f}", f"{row.gap:.3f}", share]
            )
    return [
        "file",
        "tensor",
        "type",
        "bits per weight",
        "SQNR (dB)",
        "gap (bits)",
        "share of bits above R(D)",
    ], rows


def markdown(table: Table) -> str:
    """The table as Markdown has it; numbers to the right."""
    columns, rows = table
    marks = ["---:" if rows and rows[0][k][:1].isdigit() else "---" for k in range(len(columns))]
    lines = [columns, marks, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _kinds(own: pd.DataFrame) -> str:
    """``Q4_K 4.50``: types and bits per weight of some tensors; nothing of none."""
    if own.empty:
        return ""
    rate = own.bits.sum() / own.weights.sum()
    return f"{types(own.type, own.weights)} · {rate:.2f}"


def _number(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"
