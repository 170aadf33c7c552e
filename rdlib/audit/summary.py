"""Many rows of a file in, the row of the whole file out, and what a reader should know."""

import numpy as np
import pandas as pd

from rdlib.audit.fields import FIELDS
from rdlib.audit.rows import SCHEMA
from rdlib.models.names import GROUPS

TEXTS = ("file", "name", "group", "type", "note", "error", "protocol")


def table(rows: list[dict]) -> pd.DataFrame:
    """Rows as one table with the columns of ``SCHEMA``."""
    frame = pd.DataFrame(rows, columns=list(SCHEMA))
    return frame.astype({column: "string" if column in TEXTS else "float64" for column in SCHEMA})


def file_row(tensors: pd.DataFrame, metadata: int, weights: int) -> dict:
    """The row of a whole file: sums of bits; SQNR of all its coded weights; their gap, weight by weight.

    Args:
        tensors: its rows.
        metadata: bits that belong to no tensor.
        weights: how many the original has.
    """
    sums = tensors[[*FIELDS, *(f"{field}_coded" for field in FIELDS), "needed", "bits"]].sum().to_dict()
    sums["metadata"] = sums["metadata_coded"] = metadata
    bits = sums["bits"] + metadata
    coded = tensors[tensors.gap.notna()]
    row = {"name": "", "group": "all", "layer": -1, "weights": weights}
    row |= sums | {"bits": bits, "rate": bits / weights}
    if len(coded):
        D, power = (float(np.average(coded[c], weights=coded.weights)) for c in ("mse", "power"))
        row |= {"mse": D, "power": power, "sqnr_db": 10 * np.log10(power / D) if D else np.inf}
        row |= {c: float(np.average(coded[c], weights=coded.weights)) for c in ("limit", "gap")}
    layers = tensors[tensors.group.isin(GROUPS) & (tensors.layer >= 0)]
    row["layers_rate"] = float(layers.bits.sum() / layers.weights.sum()) if len(layers) else np.nan
    row["type"] = types(coded.type, coded.weights)
    unlike = tensors.error[tensors.error.fillna("").str.contains("nothing in common")]
    return row | {
        "error": unlike.iloc[0] if len(unlike) else None,
        "note": " ".join(warnings(tensors)) or None,
    }


def with_judgements(
    files: list[dict], tensors: list[dict], judged: list[dict], limit: pd.DataFrame
) -> tuple[list[dict], list[dict]]:
    """Rows of files and groups, and rows of tensors, with what running the model found.

    Args:
        files: a row a file.
        tensors: a row a tensor.
        judged: of :func:`rdlib.audit.judged.judged_rows`; those of files have means of KL by window.
        limit: points of the limit of the model, see :func:`rdlib.audit.judged.limit_rows`; may be empty.
    """
    ran = [row for row in judged if "kl_windows" in row]
    best = min(ran, key=lambda row: row["kl"])["kl_windows"] if ran else []
    found = {(row["file"], row["name"], row.get("group", "")): dict(row) for row in judged}
    for row in ran:
        difference = np.subtract(row["kl_windows"], best)
        error = difference.std(ddof=1) / len(best) ** 0.5 if len(best) > 1 else np.nan
        more = {"kl_paired": float(difference.mean()), "kl_paired_error": float(error)}
        found[row["file"], "", "all"] |= more
    limited = [row | found.get((row["file"], row["name"], ""), {}) for row in tensors]
    for row in limited:
        row["output_gap"] = row.get("rate", np.nan) - row.get("held_out_limit", np.nan)
    merged = []
    for row in files:
        more = found.pop((row["file"], "", "all"), {})
        own = table([r for r in limited if r["file"] == row["file"]]).dropna(subset="output_gap")
        if len(own):
            means = ("output_limit", "held_out_limit", "output_gap")
            more |= {c: float(np.average(own[c], weights=own.weights)) for c in means}
        if len(limit) and "kl" in more:
            inside = float(np.interp(more["kl"], limit.kl, limit.rate, left=np.nan, right=np.nan))
            more |= {"model_limit": inside, "model_gap": row["layers_rate"] - inside}
        note = " ".join(filter(None, [row.get("note"), more.pop("note", None)])) or None
        merged.append(row | more | {"note": note})
    merged += [row for (_, name, _), row in found.items() if not name]
    return merged, limited


def types(kinds: pd.Series, weights: pd.Series) -> str:
    """The types of some tensors, from that of most weights on: ``Q4_K 78 %, Q6_K 22 %``.

    >>> types(pd.Series(["Q6_K", "Q4_K"]), pd.Series([1, 3]))
    'Q4_K 75 %, Q6_K 25 %'
    """
    shares = weights.groupby(kinds).sum().sort_values(ascending=False, kind="stable") / max(weights.sum(), 1)
    if len(shares) == 1:
        return shares.index[0]
    return ", ".join(f"{kind} {100 * share:.3g} %" for kind, share in shares.items())


def warnings(tensors: pd.DataFrame) -> list[str]:
    """What a reader of the numbers of a file should know, a sentence each."""
    found, coded = [], tensors[tensors.gap.notna()]
    if (broken := tensors[tensors.error.notna()]).size:
        found.append(
            f"{len(broken)} of {len(tensors)} tensors could not be measured, such as {broken.name.iloc[0]}."
        )
    if (gridded := coded[coded.grid.notna()]).size:
        found.append(
            f"The original lies on a grid already ({len(gridded)} of {len(coded)} matrices, lossless at "
            f"{gridded.grid.median():.2f} bits): it was quantized before, and limits for independent draws say little "
            "above that rate."
        )
    rounded = tensors[tensors.gap.isna() & (tensors.mse > 0)]
    if len(rounded):
        found.append(
            f"{len(rounded)} tensors that were not quantized differ from the original's by rounding, such as "
            f"{rounded.name.iloc[0]}: the file was made by way of another type of floats, or of another copy."
        )
    if (below := coded[coded.gap < 0]).size:
        found.append(
            f"{len(below)} matrices are below R(D) of independent draws: their codes use that rows or blocks differ in "
            "power, which a histogram does not show."
        )
    mixed = [g for g in GROUPS if coded.type[(coded.group == g).fillna(False)].nunique() > 1]
    if mixed:
        found.append(f"Precision is unequal within {', '.join(mixed)}: see the table of types.")
    return found
