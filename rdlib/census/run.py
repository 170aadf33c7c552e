"""The census of a checkpoint: tensors side by side, each one's rows kept as soon as they are there."""

import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from rdlib.census.page import html
from rdlib.census.rows import SCHEMA, tensor_rows
from rdlib.census.tasks import Task, all_rows, stamp
from rdlib.census.tensors import stored_tensors
from rdlib.files import write_whole
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
    tensors = stored_tensors(open_checkpoint(model))
    settings = (grouped, blahut, sample, sum(math.prod(t.shape) for t in tensors) <= CODED)
    frame = table(all_rows([_task(t, *settings) for t in tensors], Path(out) / "parts", "census", jobs))
    file = Path(out) / "census.parquet"
    write_whole(file, frame.to_parquet(index=False))
    write_whole(Path(out) / "census.html", html(frame, str(model)))
    return file


def _task(tensor: Weight, *settings: int) -> Task:
    """A tensor's rows depend on its files by their size and time, not on all their bytes."""
    where = [
        (p.name, p.shape, p.dtype, p.offset, p.nbytes, p.note, p.fault, *stamp(p.file)) for p in tensor.parts
    ]
    return Task(tensor.name, partial(_rows, tensor, *settings), [LAYOUT, where, *settings], tensor.nbytes)


def _rows(tensor: Weight, *settings: int) -> list[dict]:
    return tensor_rows(tensor, *settings)


def table(rows: Iterable[dict]) -> pd.DataFrame:
    """Rows as one table with the columns of ``SCHEMA``."""
    frame = pd.DataFrame(rows, columns=list(SCHEMA))
    text = ["name", "group", "dtype", "note", "error", "method"]
    whole = ["layer", "rows", "columns", "weights"]
    numbers = [column for column in SCHEMA if column not in text + whole]
    types = dict.fromkeys(text, "string") | dict.fromkeys(whole, "int64") | dict.fromkeys(numbers, "float64")
    return frame.astype(types)
