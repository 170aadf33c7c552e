"""Two experiments side by side: which numbers differ, and by more than chance.

A number is known by its notebook, its row (the keys, in words) and its quantity.  Two runs on the same tensors are
compared row by row.  On different models no tensor has a counterpart: then means over tensors are compared.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy.special import ndtr

from rdlib.files import write_whole
from rdlib.runs.report import TEMPLATES, Chapter, chapter, folder_of
from rdlib.runs.templating import records

EXACT = 1e-6  # what is computed twice from the same inputs agrees to this share of its size
ERRORS = 2.0  # standard errors of a difference
BY_CHANCE = 2 * float(ndtr(-ERRORS))  # 4.6 % of the differences of equal quantities are larger
TENSOR = ["layer", "group", "name"]  # columns that tell tensors apart
# In units of each model's weights; D/σ² is averaged in decibels, since a mean would only show the largest.
DISTORTIONS = ["mse", "nmse", "output_mse", "max_error"]
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
        means: whether means over tensors were compared, not rows.
        values: one row for every number that both have: ``notebook``, ``row``, ``quantity``, ``a``, ``b``,
            ``difference`` (b − a), ``noise`` (two standard errors of the difference, the errors taken as independent;
            NaN where neither is estimated) and ``verdict``: "same", "within noise" or "differs".
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
        than that, nothing was found.
        """
        values = self.values.groupby("notebook")
        sides = pd.crosstab(self.only.notebook, self.only.side).reindex(columns=["a", "b"])
        verdicts = pd.crosstab(self.values.notebook, self.values.verdict)
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
    def differing(self) -> pd.DataFrame:
        """The numbers that are not the same: those that differ, by falling relative difference, then the others."""
        values = self.values[self.values.verdict != SAME]
        relative = (values.difference / values.a).abs().replace(np.inf, np.nan)
        order = values.assign(differs=values.verdict == DIFFERS, relative=relative)
        return values.loc[order.sort_values(["differs", "relative"], ascending=False, kind="stable").index]

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
    folder = folder_of(name)
    if (folder / "manifest.json").is_file() and (folder / "results.parquet").is_file():
        manifest = json.loads((folder / "manifest.json").read_bytes())
        return Experiment(folder, manifest, pd.read_parquet(folder / "results.parquet"))
    raise FileNotFoundError(f"There is no finished experiment {str(name)!r}, here or in build; run it first.")


def compare(a: Experiment, b: Experiment) -> Comparison:
    """Match the rows of two experiments, and compare their numbers."""
    both = a.manifest["notebooks"].keys() & b.manifest["notebooks"].keys()
    means = any(a.model(name) != b.model(name) for name in both)
    values, only = [], []
    for notebook in sorted({*a.table.notebook, *b.table.notebook}):
        found, rows = _matched(a.rows(notebook), b.rows(notebook), means)
        values += [found.assign(notebook=notebook)] if len(found) else []
        only += [(notebook, *row) for row in rows]
    joined = pd.concat(values, ignore_index=True)[VALUES] if values else pd.DataFrame(columns=VALUES)
    return Comparison(a, b, means, joined, pd.DataFrame(only, columns=ONLY))


def flattened(value: object, path: str = "") -> dict[str, str]:
    """A nested mapping as one of dotted paths, without the hashes of results."""
    if not isinstance(value, dict):
        return {path: value if isinstance(value, str) else json.dumps(value)}
    items = [(key, inner) for key, inner in value.items() if key != "files"]
    return {k: v for key, inner in items for k, v in flattened(inner, f"{path}.{key}".lstrip(".")).items()}


def _matched(a: pd.DataFrame, b: pd.DataFrame, means: bool) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """The values of one notebook, and the side and words of the rows that only one has; see :class:`Comparison`."""
    common = a.columns.intersection(b.columns) if len(a) and len(b) else a.columns.union(b.columns)
    keys = [c for c in common if any(_is_key(t, c) for t in (a, b)) and not (means and c in TENSOR)]
    a, b = (_numbers(_averaged(t, keys) if means and len(t) else t, keys) for t in (a, b))
    values = _long(a).add_suffix("_a").join(_long(b).add_suffix("_b"), how="inner").reset_index()
    values = values.rename(columns={"value_a": "a", "value_b": "b"})
    values = values[values.a.notna() | values.b.notna()]
    values["difference"] = values.b - values.a
    noise = ERRORS * np.hypot(values.error_a.fillna(0), values.error_b.fillna(0))
    values["noise"] = noise.where(values.error_a.notna() | values.error_b.notna())
    distance = values.difference.abs().where(values.a != values.b, 0.0)  # inf equals inf
    distance = distance.where(np.isfinite(distance))  # what only one side has differs
    same = distance <= EXACT * np.fmax(values.a.abs(), values.b.abs())
    values["verdict"] = np.select([same, distance <= values.noise], [SAME, NOISE], DIFFERS)
    sides = (("a", a.index.difference(b.index, sort=False)), ("b", b.index.difference(a.index, sort=False)))
    return values, [(side, row) for side, rows in sides for row in rows]


def _is_key(table: pd.DataFrame, column: str) -> bool:
    """Whether a column says which row this is, and does not measure it."""
    if column not in table:
        return False
    return column in NUMBERED or is_bool_dtype(table[column]) or not is_numeric_dtype(table[column])


def _numbers(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The measured columns, by the keys of each row in words; rows of the same keys are numbered."""
    keys = [key for key in keys if key in table]
    rows = pd.Series([_words(row) for row in table[keys].to_dict("records")], index=table.index, dtype=object)
    again = rows.groupby(rows).cumcount()
    rows = rows.where(again == 0, rows + " #" + (again + 1).astype(str))
    numbers = table.drop(columns=[*keys, *TENSOR], errors="ignore").select_dtypes("number")
    return numbers.astype(float).set_axis(rows, axis="index")


def _words(row: dict[str, object]) -> str:
    """``down · uniform tensor · bits 4``; what a row does not have is left out."""
    there = [(key, value) for key, value in row.items() if pd.notna(value)]
    words = [
        v if isinstance(v, str) else f"{k} {v}" if isinstance(v, bool) else f"{k} {v:g}" for k, v in there
    ]
    return " · ".join(words) or "all"


def _long(table: pd.DataFrame) -> pd.DataFrame:
    """By row and quantity, each number's ``value`` and standard ``error``: that of ``kl`` is from ``kl_error``."""
    values, errors = _estimates(table)
    parts = {"value": values, "error": errors.reindex(columns=values.columns)}
    long = pd.DataFrame({name: part.stack(future_stack=True) for name, part in parts.items()})
    return long.rename_axis(["row", "quantity"])


def _estimates(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns that are no standard errors, and those that are, by the name of what they belong to."""
    of = {c: c.removesuffix("_error") for c in table if c.endswith("_error")}
    of = {c: name for c, name in of.items() if name in table}
    return table.drop(columns=list(of)), table[list(of)].rename(columns=of)


def _averaged(table: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means over tensors with their standard errors; D/σ² in decibels, what has units left out."""
    if "nmse" in table:
        with np.errstate(divide="ignore"):
            table = table.assign(nmse_db=10 * np.log10(table.nmse.astype(float)))
    table = table.drop(columns=[c for c in DISTORTIONS + TENSOR if c not in keys], errors="ignore")
    measured = table.drop(columns=keys, errors="ignore").select_dtypes("number").columns
    groups = table.groupby(keys or (lambda _: 0), dropna=False, sort=False)[list(measured)]
    means, estimated = _estimates(groups.mean())
    errors = groups.sem()[means.columns].fillna(estimated)  # of one estimate, where nothing is averaged
    return means.join(errors.add_suffix("_error")).reset_index(drop=not keys)


def html(comparison: Comparison) -> str:
    """The comparison as one page that loads nothing; the same comparison gives the same bytes."""
    columns, rows = records(comparison.differing)
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


def write(a: str | Path, b: str | Path, folder: Path) -> tuple[Path, Comparison]:
    """Compare two experiments and write the page to ``folder/compare-A-B.html``.

    Raises:
        FileNotFoundError: see :func:`load`.
    """
    comparison = compare(load(a), load(b))
    path = folder / f"compare-{comparison.a.name}-{comparison.b.name}.html"
    write_whole(path, html(comparison))
    return path, comparison


def lines(comparison: Comparison) -> list[str]:
    """The comparison in a few lines: what was compared, the summary, and the five numbers that differ most."""
    matched = "means over tensors" if comparison.means else "rows of the same tensor"
    summary, differ = comparison.summary, comparison.differing.query("verdict == @DIFFERS")
    return [
        f"A is {comparison.a.build}, B is {comparison.b.build}; compared are {matched}.",
        summary.to_string(index=False) if len(summary) else "Neither has a point.",
        f"{len(differ)} numbers differ; {summary['by chance'].sum():.1f} would by chance if all were equal.",
        *(
            f"{v.notebook}, {v.row}, {v.quantity}: {v.a:.5g} and {v.b:.5g}"
            for v in differ.head(5).itertuples()
        ),
        f"Manifests differ in {len(comparison.origins)} items.",
    ]
