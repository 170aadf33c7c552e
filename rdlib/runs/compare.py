"""Two experiments side by side: which numbers differ, and by more than chance.

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
from scipy.special import ndtr

from rdlib.files import write_whole
from rdlib.runs.report import TEMPLATES, Chapter, chapter, records

EXACT = 1e-6  # what is computed twice from the same inputs agrees to this share of its size
ERRORS = 2.0  # standard errors of a difference
BY_CHANCE = 2 * float(ndtr(-ERRORS))  # 4.6 % of the differences of equal quantities are larger
TENSOR = ["layer", "group", "name"]  # columns that tell tensors apart
DISTORTIONS = ["mse", "nmse", "output_mse"]  # averaged in decibels: the mean would only show the largest
NUMBERED = ["bits", "layer"]  # columns of numbers that name a row and do not measure it
SAME, NOISE, DIFFERS = "same", "within noise", "differs"
VALUES = ["notebook", "row", "quantity", "a", "b", "difference", "noise", "verdict"]
ONLY = ["notebook", "side", "row"]


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
        """What the report says about every notebook, by name."""
        entries = self.manifest["notebooks"].items()
        return {name: chapter(self.build, name, entry["parameters"]) for name, entry in entries}

    def rows(self, notebook: str) -> pd.DataFrame:
        """The rows of one notebook, with the columns that it fills."""
        rows = self.table[self.table.notebook == notebook]
        return rows.drop(columns="notebook").dropna(axis="columns", how="all")

    def model(self, notebook: str) -> tuple[object, object]:
        """Which model a notebook measured, as far as the manifest knows."""
        entry = self.manifest["notebooks"][notebook]
        model = entry["parameters"].get("model")
        return model, entry["model"] or entry["inputs"].get(model)


@dataclass(frozen=True)
class Comparison:
    """What two experiments have in common and what not.

    Args:
        a: the first experiment.
        b: the second.
        means: means over tensors were compared, not rows.
        values: one row for every number that both have, with the columns ``notebook``, ``row`` (which one, in
            words), ``quantity``, ``a``, ``b``, ``difference`` (b − a), ``noise`` (see :func:`noise_level`; NaN
            where neither is estimated) and ``verdict``: "same", "within noise" or "differs".
        only: rows that just one of them has: ``notebook``, ``side`` ("a" or "b") and ``row``.
    """

    a: Experiment
    b: Experiment
    means: bool
    values: pd.DataFrame
    only: pd.DataFrame

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row a notebook: rows that match and do not, numbers compared, and how many of them differ.

        ``by chance`` is how many would differ if all estimated numbers were equal and independent: with fewer
        than that, nothing was found.  (One number to compare with says it, and leaves each verdict to its own
        error; a correction such as Benjamini and Hochberg's would let it depend on how many others there are.)
        """
        values = self.values.groupby("notebook")
        verdicts = pd.crosstab(self.values.notebook, self.values.verdict)
        sides = pd.crosstab(self.only.notebook, self.only.side).reindex(columns=["a", "b"])
        parts = [
            values.row.nunique().rename("rows in both"),
            sides.set_axis(["only in A", "only in B"], axis="columns"),
            values.size().rename("numbers compared"),
            verdicts.reindex(columns=[SAME, NOISE, DIFFERS]),
        ]
        table = pd.concat(parts, axis="columns").fillna(0).astype(int).sort_index()
        table["by chance"] = (BY_CHANCE * values.noise.count()).round(1)
        return table.fillna({"by chance": 0}).rename_axis("notebook").reset_index()

    @cached_property
    def origins(self) -> pd.DataFrame:
        """What the manifests say otherwise: ``item``, ``a``, ``b``; empty where one has no such item."""
        a, b = flattened(self.a.manifest), flattened(self.b.manifest)
        rows = [(k, a.get(k, ""), b.get(k, "")) for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
        return pd.DataFrame(rows, columns=["item", "a", "b"])


def load(name: str | Path) -> Experiment:
    """A finished experiment: a folder, or its name below ``build``.

    Raises:
        FileNotFoundError: there is none of that name, or it has not run to its end.
    """
    for folder in (Path(name), Path("build") / name):
        if (folder / "manifest.json").is_file() and (folder / "results.parquet").is_file():
            manifest = json.loads((folder / "manifest.json").read_bytes())
            return Experiment(folder, manifest, pd.read_parquet(folder / "results.parquet"))
    raise FileNotFoundError(f"There is no finished experiment {str(name)!r}, here or in build; run it first.")


def compare(a: Experiment, b: Experiment) -> Comparison:
    """Match the rows of two experiments, and compare their numbers."""
    both = a.manifest["notebooks"].keys() & b.manifest["notebooks"].keys()
    means = any(a.model(name) != b.model(name) for name in both)
    notebooks = sorted({*a.table.notebook, *b.table.notebook})
    found = [_compare_rows(name, a.rows(name), b.rows(name), means) for name in notebooks]
    values, only = _together([v for v, _ in found], VALUES), _together([o for _, o in found], ONLY)
    return Comparison(a, b, means, values, only)


def noise_level(error_a: pd.Series, error_b: pd.Series) -> pd.Series:
    """Two standard errors of a difference; NaN where neither number has an error.

    The errors are taken as independent, which is cautious where both used the same text.

    Args:
        error_a: standard errors of the numbers of one side; NaN where one is computed and not estimated.
        error_b: of the other side.
    """
    level = ERRORS * np.hypot(error_a.fillna(0), error_b.fillna(0))
    return level.where(error_a.notna() | error_b.notna())


def flattened(value: object, path: str = "") -> dict[str, str]:
    """A nested mapping as one of dotted paths, without the hashes of results."""
    if not isinstance(value, dict):
        return {path: value if isinstance(value, str) else json.dumps(value)}
    items = [(key, inner) for key, inner in value.items() if key != "files"]
    return {k: v for key, inner in items for k, v in flattened(inner, f"{path}.{key}".lstrip(".")).items()}


def html(comparison: Comparison) -> str:
    """The comparison as one page that loads nothing; the same comparison gives the same bytes."""
    columns, rows = records(most_different(comparison.values[comparison.values.verdict != SAME]))
    a, b = comparison.a.chapters(), comparison.b.chapters()
    return TEMPLATES.get_template("compare.html.j2").render(
        title=f"{comparison.a.name} and {comparison.b.name} · rdlib",
        comparison=comparison,
        summary=comparison.summary.to_dict("records"),
        origins=comparison.origins.to_dict("records"),
        pairs=[(name, a.get(name), b.get(name)) for name in sorted(a.keys() | b.keys())],
        columns=columns,
        rows=rows,
        only=comparison.only.to_dict("records"),
        exact=EXACT,
        errors=ERRORS,
    )


def most_different(values: pd.DataFrame) -> pd.DataFrame:
    """The same numbers; those that differ come first, the largest relative differences before the others."""
    relative = (values.difference / values.a).abs().replace(np.inf, np.nan)
    order = values.assign(differs=values.verdict == DIFFERS, relative=relative)
    return values.loc[order.sort_values(["differs", "relative"], ascending=False, kind="stable").index]


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


def _together(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """The tables one below the other; those without rows say nothing about the types of their columns."""
    return pd.concat([t for t in tables if len(t)] or [pd.DataFrame(columns=columns)], ignore_index=True)


def _compare_rows(
    notebook: str, a: pd.DataFrame, b: pd.DataFrame, means: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The values and the unmatched rows of one notebook, see :class:`Comparison`."""
    common = a.columns.intersection(b.columns) if len(a) and len(b) else a.columns.union(b.columns)
    keys = [c for c in common if _is_key(a, c) or _is_key(b, c)]
    if means:
        keys = [c for c in keys if c not in TENSOR]
        a, b = (_averaged(table, keys) if len(table) else table for table in (a, b))
    a, b = (_labelled(table, keys) for table in (a, b))
    values = _long(a).join(_long(b), how="inner", lsuffix="_a", rsuffix="_b").reset_index()
    values = values.rename(columns={"value_a": "a", "value_b": "b"})
    values = values[values.a.notna() | values.b.notna()]
    noise = noise_level(values.error_a, values.error_b)
    values = values.assign(notebook=notebook, difference=values.b - values.a, noise=noise)
    sides = {"a": a.index.difference(b.index, sort=False), "b": b.index.difference(a.index, sort=False)}
    only = pd.DataFrame([(notebook, side, row) for side, rows in sides.items() for row in rows], columns=ONLY)
    return values.assign(verdict=_verdicts(values))[VALUES], only


def _verdicts(values: pd.DataFrame) -> np.ndarray:
    """Of every row of values; a number that only one side has differs."""
    distance = values.difference.abs().where(values.a != values.b, 0.0)  # inf equals inf
    rounding = EXACT * np.fmax(values.a.abs(), values.b.abs())
    finite = np.isfinite(distance)
    return np.select(
        [finite & (distance <= rounding), finite & (distance <= values.noise)], [SAME, NOISE], DIFFERS
    )


def _is_key(table: pd.DataFrame, column: str) -> bool:
    """Whether a column says which row this is, and does not measure it."""
    if column not in table:
        return False
    return column in NUMBERED or is_bool_dtype(table[column]) or not is_numeric_dtype(table[column])


def _labelled(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The measured columns, by the keys of each row in words; rows of the same keys are numbered."""
    keys = [key for key in keys if key in table]
    rows = pd.Series([_words(row) for row in table[keys].to_dict("records")], index=table.index, dtype=object)
    again = rows.groupby(rows).cumcount()
    rows = rows.where(again == 0, rows + " #" + (again + 1).astype(str))
    measured = [c for c in table if c not in keys and c not in TENSOR and is_numeric_dtype(table[c])]
    return table[measured].astype(float).set_axis(rows, axis="index")


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """By row and quantity, each number's ``value`` and standard ``error``: that of ``kl`` is from ``kl_error``."""
    estimated = _errors(table)
    values = table.drop(columns=estimated)
    errors = table[estimated].rename(columns=lambda column: column.removesuffix("_error"))
    parts = {"value": values, "error": errors.reindex(columns=values.columns)}
    long = pd.DataFrame({name: part.stack(future_stack=True) for name, part in parts.items()})
    return long.rename_axis(["row", "quantity"])


def _errors(table: pd.DataFrame) -> list[str]:
    """The columns of standard errors of others: ``kl_error`` where there is ``kl``."""
    return [c for c in table if c.endswith("_error") and c.removesuffix("_error") in table]


def _words(keys: dict[str, object]) -> str:
    """``down · uniform tensor · bits 4``; what a row does not have is left out."""
    there = {key: value for key, value in keys.items() if value == value and value is not None}
    return " · ".join(_word(key, value) for key, value in there.items()) or "all"


def _word(key: str, value: object) -> str:
    """``bits 4`` for a number, and text as it is."""
    if isinstance(value, str):
        return value
    return f"{key} {value:g}" if isinstance(value, Real) and not isinstance(value, bool) else f"{key} {value}"


def _averaged(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means over tensors with their standard errors; D/σ² in decibels, other distortions left out."""
    if "nmse" in table:
        with np.errstate(divide="ignore"):
            table = table.assign(nmse_db=10 * np.log10(table.nmse.astype(float)))
    table = table.drop(columns=[c for c in DISTORTIONS + TENSOR if c in table and c not in keys])
    measured = [c for c in table if c not in keys and is_numeric_dtype(table[c])]
    groups = table.groupby(keys or (lambda _: 0), dropna=False, sort=False)[measured]
    means, estimated = groups.mean(), _errors(table[measured])
    errors = groups.sem().drop(columns=estimated).add_suffix("_error")
    errors = errors.fillna(means[estimated])  # of one estimate, where there is nothing to average over
    return means.drop(columns=estimated).join(errors).reset_index(drop=not keys)


def lines(comparison: Comparison) -> list[str]:
    """The comparison in a few lines: what was compared, the summary, and the five numbers that differ most."""
    matched = "means over tensors" if comparison.means else "rows of the same tensor"
    summary, differ = comparison.summary, comparison.values[comparison.values.verdict == DIFFERS]
    worst = most_different(differ).head(5).itertuples()
    return [
        f"A is {comparison.a.build}, B is {comparison.b.build}; compared are {matched}.",
        summary.to_string(index=False) if len(summary) else "Neither has a point.",
        f"{len(differ)} numbers differ; {summary['by chance'].sum():.1f} would by chance if all were equal.",
        *(f"{v.notebook}, {v.row}, {v.quantity}: {v.a:.5g} and {v.b:.5g}" for v in worst),
        f"Manifests differ in {len(comparison.origins)} items.",
    ]
