"""Results that are kept in the package: of experiments on real models, for pages that quote them without a run."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from IPython.display import Markdown

from rdlib.files import ASSETS, as_json, sha256, write_whole

MANIFEST = "manifest.json"
EFFORT = "effort.json"  # of every notebook of a run: seconds, and gigabytes of memory
KEPT = ASSETS / "results"
FACTS = ("experiment", "python", "packages")  # of a run's manifest; its assets are those of the commits


def keep(build: Path, folder: Path = KEPT) -> Path:
    """Copy the tables of a finished run into the package, with a manifest: parameters, inputs, what it took, hashes.

    Of a notebook that the run does not have, what is kept already stays.

    Returns:
        The folder of the experiment there.

    Raises:
        ValueError: the run has not finished.
    """
    try:
        manifest = json.loads((build / MANIFEST).read_bytes())
        effort = json.loads((build / EFFORT).read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{build} has no {Path(error.filename).name}: run the experiment to its end first."
        ) from None
    place, tables = folder / manifest["experiment"], {}
    notebooks = {
        name: {key: entry[key] for key in ("commit", "parameters", "inputs")} | {"took": effort[name]}
        for name, entry in manifest["notebooks"].items()
    }
    for entry in manifest["notebooks"].values():
        for file in (name for name in entry["files"] if name.endswith(".parquet")):
            tables[Path(file).name] = (build / file).read_bytes()
    known = kept_manifest(place)["notebooks"] if (place / MANIFEST).is_file() else {}
    for old in place.glob("*.parquet"):
        if of_notebook(old) in notebooks or of_notebook(old) not in known:
            old.unlink()
    for name, data in tables.items():
        write_whole(place / name, data)
    files = {path.name: sha256(path) for path in sorted(place.glob("*.parquet"))}
    facts = {key: manifest[key] for key in FACTS} | {"notebooks": known | notebooks, "files": files}
    write_whole(place / MANIFEST, as_json(facts))
    return place


def of_notebook(table: Path) -> str:
    """The notebook that a table is of: 03_vector_rd for 03_vector_rd-ladder.parquet."""
    return table.stem.partition("-")[0]


def kept_table(experiment: str, table: str) -> pd.DataFrame:
    """A table of results in the package, named after its notebook: ``("smollm2-135m", "02_scalar_rd")``.

    Raises:
        ValueError: there is no such experiment or table.
    """
    path = KEPT / experiment / f"{table}.parquet"
    if not path.is_file():
        known = sorted(f"{file.parent.name}/{file.stem}" for file in KEPT.glob("*/*.parquet"))
        raise ValueError(f"No table {experiment}/{table} is kept: {', '.join(known) or 'none is'}.")
    return pd.read_parquet(path)


def all_points(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The points of notebooks in one table, each with its notebook."""
    frames = [table.assign(notebook=name) for name, table in tables.items()]
    table = pd.concat(frames or [pd.DataFrame(columns=["notebook"])], ignore_index=True)
    return table[["notebook", *table.columns.drop("notebook")]]


def kept_models() -> dict[str, dict[str, pd.DataFrame]]:
    """The tables of every model whose results are kept, by the name of the model and their own."""
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for file in sorted(KEPT.glob("*/*.parquet")):
        model = kept_manifest(file.parent)["notebooks"][of_notebook(file)]["parameters"]["model"]
        found.setdefault(model, {})[file.stem] = pd.read_parquet(file)
    return found


def kept_manifest(experiment: str | Path) -> dict:
    """What is known about kept results: versions; of each notebook commit, parameters, inputs, time and memory."""
    return json.loads((KEPT / experiment / MANIFEST).read_bytes())


def beside(table: str, points: pd.DataFrame, model: str) -> dict[str, pd.DataFrame]:
    """The points of a run, and those that are kept of another model, each by the name of its model.

    What an answer says of this run it says of the other by the same formula::

        for name, points in beside("04_sota", points, model).items(): ...

    Args:
        table: named after its notebook, like ``04_sota`` or ``03_vector_rd-ladder``.
        points: of this run.
        model: of this run.
    """
    found = {Path(model).name: points}
    for folder in sorted(KEPT.glob("*")):
        for notebook, entry in kept_manifest(folder.name)["notebooks"].items():
            if table.partition("-")[0] == notebook and (folder / f"{table}.parquet").is_file():
                found.setdefault(entry["parameters"]["model"], kept_table(folder.name, table))
    return found


def side_by_side(answers: Mapping[str, Mapping[str, float]], digits: int = 2) -> Markdown:
    """An answer in numbers, to be displayed: a line for each, a column for each model.

    Args:
        answers: name of a model → what is said of it → number; where there is none, a dash.
        digits: after the decimal point.
    """
    lines = dict.fromkeys(line for numbers in answers.values() for line in numbers)
    rows = [["", *answers], ["---", *["--:"] * len(answers)]]
    rows += [[line, *(_number(numbers.get(line), digits) for numbers in answers.values())] for line in lines]
    return Markdown("\n".join(f"| {' | '.join(row)} |" for row in rows))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or value != value else f"{value:.{digits}f}"
