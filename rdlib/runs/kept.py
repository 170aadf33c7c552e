"""Results that are kept in the package: of experiments on real models, for pages that quote them without a run.

python -m rdlib.runs.kept build/smollm2-135m      # keep what a finished run found (make results)
"""

import argparse
import json
from pathlib import Path

import pandas as pd

from rdlib.files import ASSETS, sha256, write_whole
from rdlib.runs.experiment import EFFORT
from rdlib.runs.fingerprint import as_json

KEPT = ASSETS / "results"
FACTS = (
    "experiment",
    "commit",
    "python",
    "packages",
)  # of a run's manifest; its assets are those of the commit


def keep(build: Path, folder: Path = KEPT) -> Path:
    """Copy the tables of a finished run into the package, with a manifest: parameters, inputs, what it took, hashes.

    Returns:
        The folder of the experiment there.

    Raises:
        ValueError: the run has not finished.
    """
    try:
        manifest = json.loads((build / "manifest.json").read_bytes())
        effort = json.loads((build / EFFORT).read_bytes())
    except FileNotFoundError as error:
        raise ValueError(
            f"{build} has no {Path(error.filename).name}: run the experiment to its end first."
        ) from None
    place, tables = folder / manifest["experiment"], {}
    notebooks = {
        name: {"parameters": entry["parameters"], "inputs": entry["inputs"], "took": effort[name]}
        for name, entry in manifest["notebooks"].items()
    }
    for entry in manifest["notebooks"].values():
        for file in (name for name in entry["files"] if name.endswith(".parquet")):
            tables[Path(file).name] = (build / file).read_bytes()
    for old in place.glob("*.parquet"):
        if old.name not in tables:
            old.unlink()
    for name, data in tables.items():
        write_whole(place / name, data)
    files = {name: sha256(data) for name, data in tables.items()}
    facts = {key: manifest[key] for key in FACTS}
    write_whole(place / "manifest.json", as_json(facts | {"notebooks": notebooks, "files": files}))
    return place


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


def kept_manifest(experiment: str) -> dict:
    """What is known about a run whose results are kept: commit, versions, parameters, inputs, time and memory."""
    return json.loads((KEPT / experiment / "manifest.json").read_bytes())


def main() -> None:
    """Keep the results of a finished run in the package."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("build", type=Path, help="folder of an experiment, like build/smollm2-135m")
    print(f"Kept in {keep(parser.parse_args().build)}.")


if __name__ == "__main__":
    main()
