"""The census of a checkpoint: tensors side by side, each one's rows kept as soon as they are there."""

import json
import math
from pathlib import Path

import joblib
import pandas as pd
from tqdm import tqdm

from rdlib.census.page import html
from rdlib.census.rows import SCHEMA, tensor_rows
from rdlib.census.tensors import stored_tensors
from rdlib.extras import extra
from rdlib.files import sha256, write_whole
from rdlib.models.checkpoint import open_checkpoint
from rdlib.models.weight import Weight

CODED = 1 << 23  # the indices of so many weights in all are coded for real
LAYOUT = 3  # raised when the rows of a tensor change, so that parts of earlier versions are not taken for new


def census(
    model: str | Path,
    out: str | Path,
    grouped: bool = True,
    blahut: bool = False,
    sample: int = 0,
    jobs: int = -1,
) -> Path:
    """Rate and distortion of every tensor of a checkpoint as ``census.parquet``, and ``census.html``.

    Tensors are shared out by joblib: over local processes, or over whatever backend the caller has chosen
    (``with joblib.parallel_config("dask"): …``).  The rows of a tensor are kept in ``out/parts`` when they are
    there, whole or not at all; a run that was killed goes on from there and ends with the same bytes.

    Args:
        model: ``"embedded"``, a local folder, or a hub id.
        out: folder for the results.
        grouped: whether methods with a scale per row or group are measured as well.
        blahut: whether the rate–distortion function of the weights themselves is computed.
        sample: rows of each tensor that trellises and lattices are measured on as well; they are slow.
        jobs: processes; −1 for one a core.

    Returns:
        The Parquet file: one row a tensor and point, columns :data:`rdlib.census.rows.SCHEMA`.

    Raises:
        ValueError: there is no such model, a shard is missing or cut short.
        OSError: the results cannot be written; the parts that are there are whole.
    """
    tensors, parts = stored_tensors(open_checkpoint(model)), Path(out) / "parts"
    settings = (grouped, blahut, sample, sum(math.prod(t.shape) for t in tensors) <= CODED)
    parts.mkdir(parents=True, exist_ok=True)
    place = {t: parts / f"{_key(t, *settings)}.json" for t in tensors}
    todo = sorted((t for t in tensors if not place[t].exists()), key=lambda t: -t.nbytes)
    work = (joblib.delayed(_named_rows)(t, *settings) for t in todo)
    by_name = {t.name: t for t in tensors}
    total, done = sum(t.nbytes for t in tensors), sum(t.nbytes for t in tensors if t not in set(todo))
    with tqdm(total=total, initial=done, unit="B", unit_scale=True, desc="census") as bar:
        for name, rows in joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
            write_whole(place[by_name[name]], json.dumps(rows))
            bar.update(by_name[name].nbytes)
    frame = merged([place[t] for t in tensors])
    file = Path(out) / "census.parquet"
    write_whole(file, frame.to_parquet(index=False))
    write_whole(Path(out) / "census.html", html(frame, str(model)))
    return file


def backend(cluster: str | None) -> joblib.parallel_config:
    """Where joblib sends the tensors: to the Dask cluster of this address, or to local processes.

    Raises:
        MissingExtra: Dask is not installed.
    """
    if not cluster:
        return joblib.parallel_config("loky")
    with extra("cluster", "A census on a cluster"):
        from distributed import Client
    Client(cluster)  # becomes the client of joblib's backend
    return joblib.parallel_config("dask")


def _named_rows(tensor: Weight, *settings: int) -> tuple[str, list[dict]]:
    try:
        return tensor.name, tensor_rows(tensor, *settings)
    except Exception as error:
        failure = _plain(error, tensor.name)
    raise failure  # here, so that what cannot be sent is not its context


def _plain(error: Exception, name: str) -> Exception:
    """An exception of the language itself: it can be sent to another process, as one of a library may not."""
    if type(error).__module__ == "builtins":
        return type(error)(*error.args)
    return RuntimeError(f"{name}: {type(error).__name__}: {error}")


def _key(tensor: Weight, *settings: int) -> str:
    """What the rows of a tensor depend on, as a file name; of its files size and time, not all their bytes."""
    where = [
        (
            p.name,
            p.shape,
            p.dtype,
            p.offset,
            p.nbytes,
            p.note,
            p.fault,
            p.file.name,
            file.st_size,
            file.st_mtime_ns,
        )
        for p in tensor.parts
        for file in [p.file.stat()]
    ]
    return sha256(json.dumps([LAYOUT, where, *settings]).encode())[:32]


def merged(parts: list[Path]) -> pd.DataFrame:
    """The parts in this order as one table with the columns of ``SCHEMA``."""
    rows = [row for part in parts for row in json.loads(part.read_bytes())]
    frame = pd.DataFrame(rows, columns=list(SCHEMA))
    text = ["name", "group", "dtype", "note", "error", "method"]
    whole = ["layer", "rows", "columns", "weights"]
    numbers = [column for column in SCHEMA if column not in text + whole]
    types = dict.fromkeys(text, "string") | dict.fromkeys(whole, "int64") | dict.fromkeys(numbers, "float64")
    return frame.astype(types)
