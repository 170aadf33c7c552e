"""The audit: every tensor of some quantized files beside that of the original, each row kept as soon as it is there."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pandas as pd

from rdlib.audit.page import render
from rdlib.audit.pair import Pair, opened
from rdlib.audit.rows import tensor_row
from rdlib.audit.summary import file_row, table
from rdlib.checkpoints import open_quantized
from rdlib.files import write_whole
from rdlib.models.checkpoint import open_checkpoint
from rdlib.tasks import Task, all_rows, stamp

LAYOUT = 1  # raised when the rows of a tensor change, so that parts of earlier versions are not taken for new


def audit(original: str | Path, files: Sequence[str | Path], out: str | Path, jobs: int = -1) -> Path:
    """Bits by field, distortion and distance to R(D) of every tensor of quantized files: a table, a page, a card.

    Nothing is run.  Tensors are shared out by joblib as those of :func:`rdlib.census.census` are, and rows are kept in
    ``out/parts``: an audit that was killed goes on from there and ends with the same bytes.  A file that cannot
    be read, or was made of another model, has a row that says so, and the other files are audited.

    Args:
        original: the model that the files were made of: a folder, a GGUF file, a hub id.
        files: quantized folders, GGUF files, or hub ids.
        out: folder for the results.
        jobs: processes; −1 for one a core.

    Returns:
        The Parquet file: one row a tensor of a file, and one a file; columns :data:`rdlib.audit.rows.SCHEMA`.

    Raises:
        ValueError: the original cannot be read, or is itself a code.
        OSError: the results cannot be written; the parts that are there are whole.
    """
    reference, pairs, refused = open_checkpoint(original), {}, {}
    _ = reference.weights  # refuses what is no model of weights
    for label, file in labelled(files).items():
        try:
            pair = Pair(reference, open_quantized(file))
            pair.refuse_other_model()
            pairs[label] = pair
        except (ValueError, OSError) as error:
            refused[label] = str(error)
    tasks = [task for label, pair in pairs.items() for task in _tasks(label, pair)]
    tensors = table(all_rows(tasks, Path(out) / "parts", "audit", jobs))
    weights = sum(weight.size for weight in reference.parameters.values())
    whole = [{"file": label, "name": "", "error": why} for label, why in refused.items()]
    for label, pair in pairs.items():
        row = file_row(tensors[tensors.file == label], pair.metadata_bits, weights)
        whole.append({"file": label} | row)
    order = {label: k for k, label in enumerate(labelled(files))}
    frame = pd.concat([table(sorted(whole, key=lambda row: order[row["file"]])), tensors], ignore_index=True)
    file = Path(out) / "audit.parquet"
    write_whole(file, frame.to_parquet(index=False))
    for name, text in render(frame, Path(original).name).items():
        write_whole(Path(out) / name, text)
    return file


def labelled(files: Sequence[str | Path]) -> dict[str, str | Path]:
    """Files by a short name: the last part of their paths, or as much of them as tells them apart.

    >>> list(labelled(["a/x.gguf", "b/x.gguf", "c/y"]))
    ['a/x', 'b/x', 'y']
    """
    parts = {file: Path(str(file).removesuffix(".gguf")).parts for file in dict.fromkeys(files)}
    labels: dict[str, str | Path] = {}
    for file, words in parts.items():
        others = [other for name, other in parts.items() if name != file]
        depth = next(
            (n for n in range(1, len(words)) if all(o[-n:] != words[-n:] for o in others)), len(words)
        )
        labels["/".join(words[-depth:])] = file
    return labels


def _tasks(label: str, pair: Pair) -> list[Task]:
    """One for each tensor; its row depends on all files of both models by their size and time."""
    original, quantized = pair.original, pair.quantized.checkpoint
    holders = {w.file for c in (original, quantized) for w in c.container.tensors.values()}
    depends = [LAYOUT, label, [stamp(file) for file in sorted(holders)], str(quantized.settings)]
    where = (original.folder, quantized.folder, str(depends))
    return [
        Task(name, partial(_rows, label, where, name), [*depends, name], sum(pair.bits(name).values()) // 8)
        for name in pair.names
    ]


def _rows(label: str, where: tuple[Path, Path, str], name: str) -> list[dict]:
    return [{"file": label} | tensor_row(opened(*where), name)]
