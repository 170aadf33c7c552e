"""Rows of a table, found side by side in processes or on a cluster, each kept as soon as it is there.

A run that was killed goes on from there and ends with the same bytes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdlib.extras import extra
from rdlib.files import sha256, write_whole

with extra("census", "rdlib.census.tasks"):
    import joblib
    from tqdm import tqdm


@dataclass(frozen=True)
class Task:
    """Some rows of a table.

    Args:
        name: of what is measured, for messages.
        rows: finds them; a function that can be sent to another process, and so can what it returns, and JSON write.
        depends: all that they depend on, in the types of JSON.
        nbytes: that have to be read; the largest come first.
    """

    name: str
    rows: Callable[[], list[dict]]
    depends: Sequence[object]
    nbytes: int

    @property
    def file(self) -> str:
        """Name of the file that keeps the rows."""
        return f"{sha256(json.dumps(self.depends).encode())[:32]}.json"


def all_rows(tasks: Sequence[Task], parts: Path, what: str, jobs: int = -1) -> list[dict]:
    """The rows of all tasks, in their order; those in the folder ``parts`` are not found again.

    Tasks are shared out by joblib: over local processes, or over whatever backend the caller has chosen.

    Args:
        tasks: in the order of the rows.
        parts: folder in which every task's rows are kept, whole or not at all.
        what: the name of the progress bar.
        jobs: processes; −1 for one a core.

    Raises:
        OSError: the rows cannot be written; the parts that are there are whole.
    """
    parts.mkdir(parents=True, exist_ok=True)
    places = [parts / task.file for task in tasks]
    todo = sorted((k for k, place in enumerate(places) if not place.exists()), key=lambda k: -tasks[k].nbytes)
    total = sum(task.nbytes for task in tasks)
    done = total - sum(tasks[k].nbytes for k in todo)
    work = (joblib.delayed(_numbered)(k, tasks[k]) for k in todo)
    with tqdm(total=total, initial=done, unit="B", unit_scale=True, desc=what) as bar:
        for k, rows in joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
            write_whole(places[k], json.dumps(rows))
            bar.update(tasks[k].nbytes)
    return [row for place in places for row in json.loads(place.read_bytes())]


def backend(cluster: str | None) -> "joblib.parallel_config":
    """Where joblib sends the tasks: to the Dask cluster of this address, or to local processes.

    Raises:
        MissingExtra: Dask is not installed.
    """
    if not cluster:
        return joblib.parallel_config("loky")
    with extra("cluster", "Work on a cluster"):
        from distributed import Client
    Client(cluster)  # becomes the client of joblib's backend
    return joblib.parallel_config("dask")


def stamp(file: Path) -> tuple[str, int, int]:
    """Name, size and time of a file: what rows depend on, instead of all its bytes."""
    facts = file.stat()
    return file.name, facts.st_size, facts.st_mtime_ns


def _numbered(number: int, task: Task) -> tuple[int, list[dict]]:
    try:
        return number, task.rows()
    except Exception as error:
        failure = _plain(error, task.name)
    raise failure  # here, so that what cannot be sent is not its context


def _plain(error: Exception, name: str) -> Exception:
    """An exception of the language itself: it can be sent to another process, as one of a library may not."""
    if type(error).__module__ == "builtins":
        return type(error)(*error.args)
    return RuntimeError(f"{name}: {type(error).__name__}: {error}")
