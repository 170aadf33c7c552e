"""The audit: every tensor of some quantized files beside that of the original, each row kept as soon as it is there."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from rdlib.audit.page import render
from rdlib.audit.pair import Pair, opened
from rdlib.audit.rows import tensor_row
from rdlib.audit.summary import file_row, table, with_judgements
from rdlib.census.tasks import Task, all_rows, stamp
from rdlib.checkpoints import open_quantized
from rdlib.files import write_whole
from rdlib.models.checkpoint import Checkpoint, open_checkpoint

if TYPE_CHECKING:
    from rdlib.audit.judged import Judge

LAYOUT = 1  # raised when the rows of a tensor change, so that parts of earlier versions are not taken for new


def audit(
    original: str | Path,
    files: Sequence[str | Path],
    out: str | Path,
    jobs: int = -1,
    judge: "Judge | None" = None,
) -> Path:
    """Bits by field, distortion and distance to R(D) of every tensor of quantized files: a table, a page, a card.

    Tensors are shared out by joblib as those of :func:`rdlib.census.census` are.  Their rows, and those of every file
    that was judged, are kept in ``out/parts``: an audit that was killed goes on from there and ends with the same
    bytes.  So does, layer by layer, the run of one file, whose state is in ``out/walk`` meanwhile.  A file that cannot
    be read, or was made of another model, has a row that says so, and the other files are audited.

    Args:
        original: the model that the files were made of: a folder, a GGUF file, a hub id.
        files: quantized folders, GGUF files, or hub ids.
        out: folder for ``audit.parquet``, ``audit.html``, ``audit.md`` and ``audit.svg``; and for ``limit.parquet``,
            the limit of the model, which has no rows where nothing was run.
        jobs: processes; −1 for one a core.
        judge: the text on which the model is run with each file's tensors; nothing is run where None.

    Returns:
        The Parquet file: one row a tensor of a file, and one a file; columns :data:`rdlib.audit.summary.SCHEMA`.

    Raises:
        ValueError: the original cannot be read, or is itself a code; it has no tokenizer, or there is no such text.
        OSError: the results cannot be written; the parts that are there are whole.
    """
    reference, parts = open_checkpoint(original), Path(out) / "parts"
    _ = reference.weights  # refuses what is no model of weights
    pairs, refused = _opened(reference, files)
    texts = [text.sha256 for text in judge.windows(reference)] if judge else []  # before hours of work
    rows = all_rows(
        [task for label, pair in pairs.items() for task in _tasks(label, pair)], parts, "audit", jobs
    )
    whole = [{"file": label, "name": "", "group": "all", "error": why} for label, why in refused.items()]
    weights = sum(weight.size for weight in reference.parameters.values())
    for label, pair in pairs.items():
        own = table([row for row in rows if row["file"] == label])
        whole.append({"file": label} | file_row(own, pair.metadata_bits, weights))
    limit = pd.DataFrame(columns=["kl", "rate"])
    if judge is not None:
        if pairs:
            limit = pd.DataFrame(_limit(reference, judge, texts, parts), columns=limit.columns)
        whole, rows = with_judgements(whole, rows, _judged(pairs, rows, judge, texts, parts), limit)
    order = list(labelled(files))
    frame = table(sorted(whole, key=lambda row: order.index(row["file"])) + rows)
    file = Path(out) / "audit.parquet"
    write_whole(file, frame.to_parquet(index=False))
    write_whole(Path(out) / "limit.parquet", limit.astype(float).to_parquet(index=False))
    for name, text in render(frame, Path(original).name, limit).items():
        write_whole(Path(out) / name, text)
    return file


def _opened(reference: Checkpoint, files: Sequence[str | Path]) -> tuple[dict[str, Pair], dict[str, str]]:
    """The files that were made of the original, by label, and why the others are refused."""
    pairs, refused = {}, {}
    for label, file in labelled(files).items():
        try:
            pair = Pair(reference, open_quantized(file))
            pair.refuse_other_model()
            pairs[label] = pair
        except (ValueError, OSError) as error:
            refused[label] = str(error)
    return pairs, refused


def _limit(reference: Checkpoint, judge: "Judge", texts: list[str], parts: Path) -> list[dict]:
    """Points of the limit of the model; none where it cannot be known."""
    from rdlib.audit.judged import limit_rows

    work, size = (
        partial(limit_rows, reference.folder, judge),
        sum(w.nbytes for w in reference.tensors.values()),
    )
    return all_rows(
        [Task("limit", work, ["limit", *_files(reference), *texts], size)], parts, "limit", jobs=1
    )


def _judged(
    pairs: Mapping[str, Pair], rows: list[dict], judge: "Judge", texts: list[str], parts: Path
) -> list[dict]:
    """Rows of what every file does to the model, file by file."""
    from rdlib.audit.judged import judged_rows

    found = []
    for label, pair in pairs.items():
        own = [row for row in rows if row["file"] == label]
        names = [row["name"] for row in own if pair.coded(row["name"]) or row.get("mse")]
        names = [name for name in names if name in pair.original.parameters]
        broken = next((row["error"] for row in own if row.get("error")), None)
        depends, state = [*_depends(label, pair), *texts], parts.parent / "walk"
        work = partial(judged_rows, label, _where(label, pair), names, judge, state)
        try:
            if broken:
                raise ValueError(broken)
            found += all_rows(
                [Task(label, work, depends, int(sum(row["bits"] for row in own)) // 8)],
                parts,
                f"run {label}",
                jobs=1,
            )
        except ValueError as error:
            found.append({"file": label, "name": "", "group": "all", "note": f"It was not run: {error}"})
        shutil.rmtree(state, ignore_errors=True)
    return found


def labelled(files: Sequence[str | Path]) -> dict[str, str]:
    """Files by a short name: the last part of their paths, or as much of them as tells them apart.

    >>> list(labelled(["a/x.gguf", "b/x.gguf", "c/y", "c/y.gguf"]))
    ['a/x', 'b/x', 'y', 'y.gguf']
    """
    given = list(dict.fromkeys(map(str, files)))
    short = [Path(file.removesuffix(".gguf")).parts for file in given]
    parts = {
        file: words if short.count(words) == 1 else Path(file).parts
        for file, words in zip(given, short, strict=True)
    }
    labels: dict[str, str] = {}
    for file, words in parts.items():
        others = [other for name, other in parts.items() if name != file]
        depth = next(
            (n for n in range(1, len(words)) if all(o[-n:] != words[-n:] for o in others)), len(words)
        )
        labels["/".join(words[-depth:])] = file
    return labels


def _tasks(label: str, pair: Pair) -> list[Task]:
    """One for each tensor."""
    depends, where = _depends(label, pair), _where(label, pair)
    return [
        Task(name, partial(_rows, label, where, name), [*depends, name], sum(pair.bits(name).values()) // 8)
        for name in pair.names
    ]


def _depends(label: str, pair: Pair) -> list[object]:
    """What rows of a file depend on."""
    return [label, *_files(pair.original, pair.quantized.checkpoint)]


def _files(*models: Checkpoint) -> list[object]:
    """All that models are read from, by size and time: tensors, and the settings beside them."""
    files = {f for model in models for f in (*model.container.holders, *model.folder.glob("*.json"))}
    return [LAYOUT, *(stamp(file) for file in sorted(files))]


def _where(label: str, pair: Pair) -> tuple[Path, Path, str]:
    """The arguments of :func:`rdlib.audit.pair.opened`, in whatever process."""
    return pair.original.folder, pair.quantized.checkpoint.folder, str(_depends(label, pair))


def _rows(label: str, where: tuple[Path, Path, str], name: str) -> list[dict]:
    return [{"file": label} | tensor_row(opened(*where), name)]
