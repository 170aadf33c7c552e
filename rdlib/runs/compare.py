"""Two experiments side by side: which numbers differ, and by more than their noise.

Two runs on the same tensors are compared row by row.  On different models no tensor has a counterpart; then
means over tensors are compared, for every method at every nominal rate.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from rdlib.files import write_whole
from rdlib.runs.report import TEMPLATES, Chapter, chapter, records

EXACT = 1e-6  # what is computed twice from the same inputs agrees to this share of its size
ERRORS = 2.0  # standard errors of a difference: 95 % of the time noise is no larger
TENSOR = ("layer", "group", "name")  # columns that tell tensors apart
DISTORTIONS = ("mse", "nmse", "output_mse")  # averaged in decibel: the mean would only show the largest
NUMBERED = ("bits", "layer")  # columns of numbers that name a row and do not measure it
SIDES = ("a", "b")
NONE = pd.DataFrame({"row": [], "quantity": [], "value": [], "error": []}).astype(
    {"row": str, "quantity": str}
)
SAME, NOISE, DIFFERS = "same", "within noise", "differs"


@dataclass(frozen=True)
class Experiment:
    """The folder of a finished experiment, its manifest and its table of results."""

    build: Path
    manifest: dict
    table: pd.DataFrame

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.build.resolve().name

    def chapters(self) -> dict[str, Chapter]:
        """What the report tells of every notebook, by name."""
        entries = self.manifest["notebooks"].items()
        return {name: chapter(self.build, name, entry["parameters"]) for name, entry in entries}


@dataclass(frozen=True)
class Comparison:
    """What two experiments have in common and what not.

    Args:
        a: the first experiment.
        b: the second.
        means: means over tensors were compared, not rows.
        values: one row for every number that both have, with the columns ``notebook``, ``row`` (which one, in
            words), ``quantity``, ``a``, ``b``, ``difference`` (b − a), ``noise`` (the largest difference that
            says nothing) and ``verdict``: "same", "within noise" or "differs".
        only: rows that just one of them has: ``notebook``, ``side`` ("a" or "b") and ``row``.
    """

    a: Experiment
    b: Experiment
    means: bool
    values: pd.DataFrame
    only: pd.DataFrame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a notebook: rows that match and do not, numbers compared, and how many of them differ."""
        rows = []
        for name in sorted({*self.values.notebook, *self.only.notebook}):
            values, only = self.values[self.values.notebook == name], self.only[self.only.notebook == name]
            counts = values.verdict.value_counts()
            rows.append(
                {
                    "notebook": name,
                    "rows in both": values.row.nunique(),
                    "only in A": int((only.side == "a").sum()),
                    "only in B": int((only.side == "b").sum()),
                    "numbers compared": len(values),
                    **{verdict: int(counts.get(verdict, 0)) for verdict in (SAME, NOISE, DIFFERS)},
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def origins(self) -> pd.DataFrame:
        """What the manifests say otherwise: ``item``, ``a``, ``b``; empty where one has no such item."""
        a, b = flat(self.a.manifest), flat(self.b.manifest)
        rows = [(k, a.get(k, ""), b.get(k, "")) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
        return pd.DataFrame(rows, columns=["item", *SIDES])


def load(name: str | Path) -> Experiment:
    """A finished experiment: a folder, or its name below ``build``.

    Raises:
        FileNotFoundError: there is none of that name, or it has not run to its end.
    """
    folders = [Path(name), Path("build") / name]
    for folder in folders:
        if (folder / "manifest.json").is_file() and (folder / "results.parquet").is_file():
            manifest = json.loads((folder / "manifest.json").read_bytes())
            return Experiment(folder, manifest, pd.read_parquet(folder / "results.parquet"))
    raise FileNotFoundError(f"There is no finished experiment {str(name)!r}, here or in build; run it first.")


def compare(a: Experiment, b: Experiment) -> Comparison:
    """Match the rows of two experiments and hold their numbers against each other."""
    means = not same_tensors(a.manifest, b.manifest)
    pairs = [
        _compare_tables(name, _rows(a.table, name), _rows(b.table, name), means)
        for name in sorted({*a.table.notebook, *b.table.notebook})
    ]
    values = pd.DataFrame(columns=["notebook", "row", "quantity", *SIDES, "difference", "noise", "verdict"])
    only = pd.DataFrame(columns=["notebook", "side", "row"])
    return Comparison(
        a,
        b,
        means,
        pd.concat([v for v, _ in pairs if len(v)] or [values], ignore_index=True),
        pd.concat([o for _, o in pairs if len(o)] or [only], ignore_index=True),
    )


def same_tensors(a: dict, b: dict) -> bool:
    """Whether two manifests measured the same model, in every notebook that both have."""
    return all(_model(a, name) == _model(b, name) for name in a["notebooks"].keys() & b["notebooks"].keys())


def noise(a: np.ndarray, b: np.ndarray, error_a: np.ndarray, error_b: np.ndarray) -> np.ndarray:
    """The largest difference of a and b that says nothing: two standard errors, or else rounding.

    The errors are taken as independent, which is cautious where both used the same text.

    Args:
        a: values.
        b: values, of the same shape.
        error_a: standard errors of a; NaN where a value is computed and not estimated.
        error_b: those of b.
    """
    rounding = EXACT * np.fmax(np.abs(a), np.abs(b))
    return np.fmax(rounding, ERRORS * np.hypot(error_a, error_b))


def flat(value: object, path: str = "") -> dict[str, str]:
    """A nested mapping as one of dotted paths, without the hashes of results."""
    if not isinstance(value, dict):
        return {path: value if isinstance(value, str) else json.dumps(value)}
    items = [(key, inner) for key, inner in value.items() if key != "files"]
    return {k: v for key, inner in items for k, v in flat(inner, f"{path}.{key}".lstrip(".")).items()}


def html(comparison: Comparison) -> str:
    """The comparison as one page that loads nothing; the same comparison gives the same bytes."""
    told = comparison.values[comparison.values.verdict != SAME]
    told = told.assign(
        differs=told.verdict == DIFFERS, relative=(told.difference / told.a).abs().replace(np.inf, np.nan)
    )
    told = told.sort_values(["differs", "relative"], ascending=False, kind="stable")
    columns, rows = records(told.drop(columns=["differs", "relative"]))
    chapters = (comparison.a.chapters(), comparison.b.chapters())
    names = sorted(chapters[0].keys() | chapters[1].keys())
    return TEMPLATES.get_template("compare.html.j2").render(
        title=f"{comparison.a.name} and {comparison.b.name} · rdlib",
        a=comparison.a,
        b=comparison.b,
        means=comparison.means,
        summary=comparison.summary.to_dict("records"),
        origins=comparison.origins.to_dict("records"),
        pairs=[(name, chapters[0].get(name), chapters[1].get(name)) for name in names],
        columns=columns,
        rows=rows,
        only=comparison.only.to_dict("records"),
        exact=EXACT,
        errors=ERRORS,
    )


def write(a: str | Path, b: str | Path, folder: Path) -> tuple[Path, Comparison]:
    """Compare two experiments and write the page to ``folder/compare-A-B.html``.

    Raises:
        FileNotFoundError: see :func:`load`.
    """
    comparison = compare(load(a), load(b))
    path = folder / f"compare-{comparison.a.name}-{comparison.b.name}.html"
    write_whole(path, html(comparison))
    return path, comparison


# --- rows and numbers ------------------------------------------------------------------------------------


def _compare_tables(
    notebook: str, a: pd.DataFrame, b: pd.DataFrame, means: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The values and the unmatched rows of one notebook, see :class:`Comparison`."""
    common = a.columns.intersection(b.columns) if len(a) and len(b) else a.columns.union(b.columns)
    keys = [c for c in common if _is_key(a, b, c) and not (means and c in TENSOR)]
    long_a, long_b = (_long(_average(t, keys) if means else t, keys) if len(t) else NONE for t in (a, b))
    both = long_a.merge(long_b, on=["row", "quantity"], suffixes=("_a", "_b"))
    rows_a, rows_b = dict.fromkeys(long_a.row), dict.fromkeys(long_b.row)
    only = [("a", row) for row in rows_a if row not in rows_b] + [
        ("b", row) for row in rows_b if row not in rows_a
    ]
    values = pd.DataFrame(
        {
            "notebook": notebook,
            "row": both.row,
            "quantity": both.quantity,
            "a": both.value_a,
            "b": both.value_b,
            "difference": both.value_b - both.value_a,
            "noise": noise(both.value_a, both.value_b, both.error_a, both.error_b),
        }
    )
    values = values[values.a.notna() | values.b.notna()]
    values["verdict"] = _verdict(values)
    return values, pd.DataFrame(only, columns=["side", "row"]).assign(notebook=notebook)


def _verdict(values: pd.DataFrame) -> np.ndarray:
    """Of every row of values; a number that only one side has differs."""
    a, b = values.a.to_numpy(float), values.b.to_numpy(float)
    with np.errstate(invalid="ignore"):
        distance = np.where(a == b, 0.0, np.abs(b - a))  # inf equals inf
        same = distance <= EXACT * np.fmax(np.abs(a), np.abs(b))
    same |= a == b
    within = distance <= values.noise.to_numpy(float)
    return np.select([same & np.isfinite(distance), within & np.isfinite(distance)], [SAME, NOISE], DIFFERS)


def _rows(table: pd.DataFrame, notebook: str) -> pd.DataFrame:
    """The rows of one notebook, with the columns that it fills."""
    return table[table.notebook == notebook].drop(columns="notebook").dropna(axis="columns", how="all")


def _is_key(a: pd.DataFrame, b: pd.DataFrame, column: str) -> bool:
    """Whether a column says which row this is, and does not measure it."""
    parts = [t[column] for t in (a, b) if column in t]
    return column in NUMBERED or any(is_bool_dtype(p) or not is_numeric_dtype(p) for p in parts)


def _long(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """One row a number: ``row``, which is its keys in words, ``quantity``, ``value`` and standard ``error``.

    Rows of the same keys are numbered.  The error of ``kl`` is in the table's column ``kl_error``.
    """
    words = [_words(dict(zip(keys, row, strict=True))) for row in table[keys].itertuples(index=False)]
    row = pd.Series(words, index=table.index, dtype=object)
    again = row.groupby(row).cumcount()
    row = row.where(again == 0, row + " #" + (again + 1).astype(str))
    measured = [c for c in table if c not in keys and is_numeric_dtype(table[c]) and c not in TENSOR]
    measured = [c for c in measured if not _is_error(c, measured)]
    parts = [
        pd.DataFrame(
            {
                "row": row,
                "quantity": quantity,
                "value": table[quantity].astype(float),
                "error": table[f"{quantity}_error"].astype(float) if f"{quantity}_error" in table else np.nan,
            }
        )
        for quantity in measured
    ]
    empty = pd.DataFrame({"row": row, "quantity": "", "value": np.nan, "error": np.nan})
    return pd.concat(parts or [empty], ignore_index=True)


def _is_error(column: str, columns: list[str]) -> bool:
    """Whether a column holds the standard errors of another: ``kl_error`` where there is ``kl``."""
    return column.endswith("_error") and column.removesuffix("_error") in columns


def _words(keys: dict[str, object]) -> str:
    """``down · uniform tensor · bits 4``; what a row does not have is left out."""
    there = {key: value for key, value in keys.items() if value == value and value is not None}
    return " · ".join(_word(key, value) for key, value in there.items()) or "all"


def _word(key: str, value: object) -> str:
    """``bits 4`` for a number, and text as it is."""
    if isinstance(value, str):
        return value
    return f"{key} {value:g}" if isinstance(value, Real) and not isinstance(value, bool) else f"{key} {value}"


def _average(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means over tensors with their standard errors; D/σ² in decibel, other distortions left out."""
    table = table.copy()
    if "nmse" in table:
        with np.errstate(divide="ignore"):
            table["nmse_db"] = 10 * np.log10(table.nmse.astype(float))
    table = table.drop(columns=[c for c in (*DISTORTIONS, *TENSOR) if c in table and c not in keys])
    measured = [c for c in table if c not in keys and is_numeric_dtype(table[c])]
    estimated = [c for c in measured if _is_error(c, measured)]
    groups = table.groupby(keys or (lambda _: 0), dropna=False, sort=False)[measured]
    means, errors = groups.mean(), groups.sem()
    errors = errors.drop(columns=estimated)
    for column in estimated:  # of one estimate, where there is nothing to average over
        quantity = column.removesuffix("_error")
        errors[quantity] = errors[quantity].fillna(means[column])
    means = means.drop(columns=estimated)
    return means.join(errors.add_suffix("_error")).reset_index(drop=not keys)


def _model(manifest: dict, notebook: str) -> tuple[object, object]:
    """Which model a notebook measured, in all that the manifest knows of it."""
    entry = manifest["notebooks"][notebook]
    model = entry["parameters"].get("model")
    return model, entry["model"] or entry["inputs"].get(model)


def lines(comparison: Comparison) -> list[str]:
    """The comparison in a few lines: what was compared, the summary, and the five numbers that differ most."""
    matched = "means over tensors" if comparison.means else "rows of the same tensor"
    summary = comparison.summary.to_string(index=False) if len(comparison.summary) else "Neither has a point."
    worst = comparison.values[comparison.values.verdict == DIFFERS]
    worst = worst.assign(relative=(worst.difference / worst.a).abs()).nlargest(5, "relative")
    return [
        f"A is {comparison.a.build}, B is {comparison.b.build}; compared are {matched}.",
        summary,
        *(f"{v.notebook}, {v.row}, {v.quantity}: {v.a:.5g} and {v.b:.5g}" for v in worst.itertuples()),
        f"Manifests differ in {len(comparison.origins)} items.",
    ]
