"""What the page and the card of an audit show, as tables of words: columns, and rows of cells."""

import numpy as np
import pandas as pd

from rdlib.audit.fields import FIELDS
from rdlib.audit.summary import types
from rdlib.models.names import GROUPS

GIB, MIB = 8 << 30, 8 << 20  # bits
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


def predictions_table(files: pd.DataFrame) -> Table:
    """A row a file: how far its predictions stray from the original's."""
    columns = [
        "file",
        "GiB",
        "KL (nats)",
        "KL − least",
        "median",
        "99 %",
        "99.9 %",
        "same top token",
        "perplexity",
    ]
    columns += ["of the original", "ratio − 1", "held-out output: limit", "gap (bits)"]
    limited = files.model_limit.notna().any()
    columns += ["layers (bits)", "the model’s limit", "gap (bits)"] if limited else []
    rows = []
    for row in files.itertuples():
        ratio = np.expm1(row.ln_perplexity_ratio)
        error = (1 + ratio) * row.ln_perplexity_ratio_error
        numbers = [f"{row.bits / GIB:.3f}", f"{row.kl:.4g} ± {_rough(row.kl_error)}"]
        numbers += [f"{row.kl_paired:.4g} ± {_rough(row.kl_paired_error)}" if row.kl_paired else "0"]
        numbers += [f"{x:.3g}" for x in (row.kl_median, row.kl_p99, row.kl_p999)]
        numbers += [
            f"{100 * row.agreement:.2f} ± {_rough(100 * row.agreement_error)} %",
            f"{row.perplexity:.3f}",
        ]
        numbers += [
            f"{row.reference_perplexity:.3f}",
            f"{100 * ratio:.2f} ± {_rough(100 * error)} %".replace("-", "−"),
        ]
        numbers += [_number(x, 3) for x in (row.held_out_limit, row.output_gap)]
        own = (row.layers_rate, row.model_limit, row.model_gap) if limited else ()
        rows.append([row.file, *numbers, *(_number(x, 3) for x in own)])
    return columns, rows


def groups_table(groups: pd.DataFrame, labels: list[str]) -> Table:
    """A row for every kind of tensor: KL where these alone are those of the file, all others the original's."""
    kl = groups.pivot(index="group", columns="file", values="kl").reindex(columns=labels)
    rows = [[TENSORS[g], *(_number(value, 5) for value in kl.loc[g])] for g in GROUPS if g in kl.index]
    return ["tensor", *labels], rows


def costliest(tensors: pd.DataFrame, count: int = 5) -> Table:
    """The tensors of each file that cost most KL a bit; where nothing was run, those of most bits above R(D)."""
    ran, rows = tensors.kl.notna().any(), []
    for label, own in tensors[tensors.gap.notna()].groupby("file", sort=False):
        own = own.assign(cost=own.kl / own.bits * MIB if ran else own.gap * own.weights)
        whole = own.kl.sum() if ran else own.cost.sum()
        for row in own.nlargest(count, "cost").itertuples():
            cells = [label, row.name, row.type, f"{row.rate:.3f}", f"{row.sqnr_db:.2f}", f"{row.gap:.3f}"]
            cells += [f"{row.kl:.2g}", f"{row.cost:.2g}"] if ran else []
            rows.append([*cells, f"{100 * (row.kl if ran else row.cost) / (whole or 1):.1f} %"])
    columns = ["file", "tensor", "type", "bits per weight", "SQNR (dB)", "gap (bits)"]
    return [*columns, *(["KL", "KL a MiB", "share of KL"] if ran else ["share of bits above R(D)"])], rows


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


def _rough(error: float) -> str:
    """A standard error, one digit of it.

    >>> _rough(12.3), _rough(0.0123)
    ('10', '0.01')
    """
    return f"{float(f'{error:.1g}'):g}"


def _number(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"
