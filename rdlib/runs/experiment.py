"""Run the notebooks of an experiment and collect what they find.

    python -m rdlib.runs.experiment demo

An experiment is a folder ``params/<experiment>`` with one YAML file for each notebook to run, named like the
notebook and holding only the parameters that differ from its defaults (an empty file: none).  The results go
to ``build/<experiment>``: executed notebooks and their HTML, ``figures``, ``tables``, all points in
``results.csv`` and ``results.parquet``, ``manifest.json``, and ``index.html``, a page that shows all of them.
The same inputs give the same bytes.  What is up to date is not run again, and every file appears whole or not
at all.
"""

import argparse
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import pandas as pd

from rdlib.files import sha256, write_whole
from rdlib.runs import notebook, page, report
from rdlib.runs.parameters import ParameterError, chosen, declared

PACKAGE = Path(__file__).resolve().parents[1]
PATIENCE = 3.0  # seconds; longer than a kernel outlives the run that started it
RESULTS = "results"  # the parameter that tells a notebook in which folder to leave its tables


class Busy(RuntimeError):
    """Another run is at work in the same folder."""


@dataclass(frozen=True)
class Step:
    """One notebook of an experiment and its parameters, but for ``results``."""

    notebook: Path
    defaults: dict[str, object]
    chosen: dict[str, object]
    writes_results: bool

    @property
    def name(self) -> str:
        """The notebook's name, from which all its outputs are named."""
        return self.notebook.stem

    @property
    def parameters(self) -> dict[str, object]:
        """The value of every parameter."""
        return self.defaults | self.chosen


# --- before anything runs --------------------------------------------------------------------------------


def plan(root: Path, experiment: str) -> list[Step]:
    """The steps of an experiment in the order of their numbers, every parameter checked.

    Raises:
        ParameterError: there is no such experiment or notebook, or a file does not fit its notebook.
    """
    known = sorted(path.name for path in (root / "params").glob("*") if path.is_dir())
    if experiment not in known:
        raise ParameterError(
            f"There is no experiment {experiment!r}; params has: {', '.join(known) or 'none'}."
        )
    notebooks = {path.stem: path for path in sorted((root / "notebooks").glob("[0-9]*.ipynb"))}
    steps = []
    for file in sorted((root / "params" / experiment).glob("*.y*ml")):
        if file.suffix != ".yaml" or file.stem not in notebooks:
            allowed = ", ".join(f"{name}.yaml" for name in notebooks) or "none"
            raise ParameterError(f"{file} belongs to no notebook; allowed are: {allowed}.")
        parameters = declared(notebooks[file.stem])
        values = chosen(file, parameters)
        if RESULTS in values:
            raise ParameterError(f"{file} sets {RESULTS}, which the run itself sets; leave it out.")
        defaults = {name: parameter.default for name, parameter in parameters.items() if name != RESULTS}
        steps.append(Step(notebooks[file.stem], defaults, values, RESULTS in parameters))
    if not steps:
        raise ParameterError(
            f"params/{experiment} names no notebook; give it a NN_name.yaml (which may be empty)."
        )
    return steps


# --- what a result depends on ----------------------------------------------------------------------------


def fingerprint(step: Step) -> str:
    """SHA-256 of everything that a notebook's results depend on: when it stays, so do they."""
    cells = nbformat.read(step.notebook, as_version=4).cells
    written = [{key: cell.metadata.get(key) for key in notebook.KEPT} for cell in cells]
    source = [[cell.cell_type, cell.source, kept] for cell, kept in zip(cells, written, strict=True)]
    return sha256(as_json([source, step.parameters, inputs(step), digest(PACKAGE), python(), packages()]))


def inputs(step: Step) -> dict[str, str]:
    """The digest of every file or folder that a parameter names, seen from the notebook's folder."""
    values = [
        v for value in step.parameters.values() for v in (value if isinstance(value, list) else [value])
    ]
    names = [value for value in values if isinstance(value, str) and value]
    paths = {name: step.notebook.parent / name for name in names}
    return {name: digest(path) for name, path in paths.items() if os.path.exists(path)}


@cache  # for one run, see `run`: a model of several GB is read once
def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files in a folder."""
    if path.is_dir():
        return sha256(as_json({file.relative_to(path).as_posix(): digest(file) for file in files(path)}))
    return sha256(path)


def files(folder: Path) -> list[Path]:
    """All files below a folder, but for hidden ones and Python's own caches."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        p
        for p in found
        if not any(part[0] == "." or part == "__pycache__" for part in p.relative_to(folder).parts)
    ]


def as_json(value: object) -> bytes:
    """JSON with one spelling for one value."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def python() -> str:
    """Which Python this is."""
    return f"{platform.python_implementation()} {platform.python_version()}"


def packages() -> dict[str, str]:
    """The version of every installed package."""
    return {package.name.lower(): package.version for package in distributions()}


def commit(root: Path) -> str | None:
    """The commit that is checked out, ``-dirty`` where files differ from it; None outside git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


# --- running ---------------------------------------------------------------------------------------------


def run(root: Path, experiment: str) -> Path:
    """Bring all notebooks of an experiment up to date, then its table of results, its manifest and its page.

    Returns:
        The folder that holds them.

    Raises:
        ParameterError: see :func:`plan`; nothing was run.
        NotebookFailed: the notebooks before it are done; its own earlier results and the earlier table,
            manifest and page are untouched.
        Busy: another run has not finished.
    """
    steps = plan(root, experiment)
    build = root / "build" / experiment
    digest.cache_clear()
    with alone(build) as lock:
        before = {path.stem: read_state(path) for path in (build / "state").glob("*.json")}
        try:
            after = {step.name: run_step(step, build, before.get(step.name, {}), lock) for step in steps}
        except notebook.NotebookFailed:
            if not (build / "manifest.json").exists():  # there is no earlier page: show how far it came
                report.write(build)
            raise
        collect(root, experiment, steps, after)
        forget(build, before, after)
        report.write(build)  # not in the manifest, which it shows
    return build


def run_step(step: Step, build: Path, state: dict, lock: int) -> dict:
    """Run one notebook unless its ``state`` is up to date; put its outputs in place; return its new state."""
    partial = build / f"{step.name}.partial.ipynb"
    partial.unlink(missing_ok=True)
    mark = fingerprint(step)
    if state.get("fingerprint") == mark and whole(build, state["files"]):
        print(f"{step.name} is up to date.", file=sys.stderr)
        return state
    try:
        outputs, model = execute(step, build / "desk", lock)
    except notebook.NotebookFailed as failure:
        write_whole(partial, notebook.text(failure.partial))
        raise notebook.NotebookFailed(f"{failure} (kept: {partial})", failure.partial) from None
    for name, data in outputs.items():
        write_whole(build / name, data)
    hashes = {name: sha256(data) for name, data in outputs.items()}
    state = {"fingerprint": mark, "files": hashes, "model": model}
    write_whole(build / "state" / f"{step.name}.json", as_json(state))  # last: all the rest is in place
    return state


def execute(step: Step, desk: Path, lock: int) -> tuple[dict[str, bytes], dict | None]:
    """Run one notebook, which leaves its tables on the desk, and whose kernel keeps the lock open.

    Returns:
        Its outputs by file name, and what it says in ``model.json`` about the model that it measured.
    """
    shutil.rmtree(desk, ignore_errors=True)
    desk.mkdir()
    results = {RESULTS: os.path.relpath(desk, step.notebook.parent)} if step.writes_results else {}
    try:
        executed = notebook.execute(step.notebook, step.chosen | results, [lock])
        pictures = notebook.figures(executed)
        outputs = {
            f"{step.name}.ipynb": notebook.text(executed).encode(),
            f"{step.name}.html": page.html(executed, step.name).encode(),
            **{f"figures/{step.name}-{name}.png": picture for name, picture in pictures.items()},
            **{f"tables/{path.name}": path.read_bytes() for path in sorted(desk.glob(f"{step.name}*"))},
        }
        model = desk / "model.json"
        return outputs, json.loads(model.read_bytes()) if model.exists() else None
    finally:
        shutil.rmtree(desk)


def whole(build: Path, hashes: dict[str, str]) -> bool:
    """Whether all these files are there, with the content that they were written with."""
    return all((build / name).is_file() and digest(build / name) == sha for name, sha in hashes.items())


def collect(root: Path, experiment: str, steps: list[Step], states: dict[str, dict]) -> None:
    """Write the table of all points, each with its notebook, and the manifest of the whole run."""
    build = root / "build" / experiment
    tables = {name: build / "tables" / f"{name}.parquet" for name in states}
    frames = [pd.read_parquet(path).assign(notebook=name) for name, path in tables.items() if path.exists()]
    table = pd.concat(frames or [pd.DataFrame(columns=["notebook"])], ignore_index=True)
    table = table[["notebook", *table.columns.drop("notebook")]]
    results = {"results.csv": table.to_csv(index=False).encode(), "results.parquet": table.to_parquet()}
    manifest = {
        "experiment": experiment,
        "commit": commit(root),
        "python": python(),
        "packages": packages(),
        "assets": {p.relative_to(PACKAGE).as_posix(): digest(p) for p in files(PACKAGE / "assets")},
        "notebooks": {
            step.name: {
                "parameters": step.parameters,
                "inputs": inputs(step),
                "model": states[step.name]["model"],
                "files": states[step.name]["files"],
            }
            for step in steps
        },
        "files": {name: sha256(data) for name, data in results.items()},
    }
    for name, data in {**results, "manifest.json": as_json(manifest)}.items():
        write_whole(build / name, data)


def forget(build: Path, before: dict[str, dict], after: dict[str, dict]) -> None:
    """Remove what earlier runs made and this experiment no longer makes."""
    kept = {name for state in after.values() for name in state["files"]}
    made = {name for state in before.values() for name in state.get("files", {})}
    made |= {f"state/{name}.json" for name in before.keys() - after.keys()}
    for name in made - kept:
        (build / name).unlink(missing_ok=True)


def read_state(path: Path) -> dict:
    """What a notebook's state file says; nothing, where it cannot be read."""
    try:
        state = json.loads(path.read_bytes())
        return state if isinstance(state, dict) else {}
    except ValueError:
        return {}


@contextmanager
def alone(build: Path) -> Iterator[int]:
    """Keep any other run out of the folder for as long as this one, or a kernel of it, is in it.

    Yields:
        the file descriptor of the lock, for kernels to inherit: one that is left behind by a run that was killed
        ends a second later, and until then may write.
    """
    (build / "state").mkdir(parents=True, exist_ok=True)
    with (build / "state" / "lock").open("w") as lock:
        _lock(lock.fileno(), build)
        yield lock.fileno()


def _lock(file: int, build: Path) -> None:
    """Take the lock, or raise Busy if it is not given back within PATIENCE."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise Busy(f"Another run is at work in {build}; wait for it to finish.") from None
            time.sleep(0.1)


def main() -> None:
    """Run the notebooks of an experiment and collect what they find."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("experiment", help="a folder of params/, like demo")
    experiment = parser.parse_args().experiment
    try:
        build = run(Path(), experiment)
    except (ParameterError, notebook.NotebookFailed, Busy) as error:
        sys.exit(str(error))
    except OSError as error:  # no room, no right to write: what is whole counts, and nothing else
        sys.exit(f"{error}. The finished notebooks are kept; the next run goes on from there.")
    except KeyboardInterrupt:
        sys.exit("Stopped. The finished notebooks are kept; the next run goes on from there.")
    points, pages = len(pd.read_parquet(build / "results.parquet")), len(list(build.glob("[0-9]*.html")))
    print(f"Look at {build}/index.html: {pages} notebooks and {points:,} points, with figures and manifest.")


if __name__ == "__main__":
    main()
