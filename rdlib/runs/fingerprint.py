"""What the results of a notebook depend on: as long as its fingerprint stays, so do they."""

import os
import platform
from collections.abc import Iterator
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import nbformat

from rdlib.files import as_json, content_hash, sha256
from rdlib.models import find_model, hub
from rdlib.models.packaged import SMOLLM2, find_packaged
from rdlib.runs import notebook

PACKAGE = Path(__file__).resolve().parents[1]
MODELS = ("model", "checkpoints")  # parameters that name models
OF_SITE = {"pdoc", "markdown2"}  # `make site` installs them: they write pages of the API, and no result


def fingerprint(path: Path, parameters: dict[str, object], inputs: dict[str, str | None]) -> str:
    """SHA-256 of a notebook's source, parameters and inputs, of this package and of its surroundings.

    Args:
        path: of the notebook.
        parameters: the value of every one.
        inputs: what these name, see :func:`inputs`.
    """
    cells = nbformat.read(path, as_version=4).cells
    written = [{key: cell.metadata.get(key) for key in notebook.KEPT} for cell in cells]
    source = [[cell.cell_type, cell.source, kept] for cell, kept in zip(cells, written, strict=True)]
    return sha256(as_json([source, parameters, inputs, digest(PACKAGE), python(), packages()]))


def inputs(folder: Path, parameters: dict[str, dict[str, object]]) -> dict[str, dict[str, str | None]]:
    """What the parameters of each notebook name: the digest of a file or folder, or the revision of a hub model.

    Args:
        folder: of the notebooks, from which paths are seen.
        parameters: of each notebook, by its name.
    """
    revisions = cache(revision)  # one question to the hub, not one a notebook

    def found(values: dict[str, object]) -> Iterator[tuple[str, str | None]]:
        for name in _texts(values.values()):
            if os.path.exists(folder / name):
                yield name, digest(folder / name)
            elif name in models(values) and "/" in name:
                yield name, revisions(name)
            elif name == SMOLLM2:
                yield name, digest(find_packaged())

    return {notebook: dict(found(values)) for notebook, values in parameters.items()}


def models(parameters: dict[str, object]) -> list[str]:
    """What the parameters of a notebook name as models."""
    return _texts(parameters.get(key) for key in MODELS)


def revision(model: str) -> str | None:
    """The commit that the hub now has of a model, which is downloaded; None of one that cannot be had."""
    try:
        return hub.revision(find_model(model))
    except ValueError:  # private, gone, or no connection: the notebook says so where it matters
        return None


def assets() -> dict[str, str]:
    """The digest of every file in the package's assets, by its name there."""
    return {p.relative_to(PACKAGE).as_posix(): digest(p) for p in files(PACKAGE / "assets")}


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of all files in a folder."""
    if path.is_dir():
        return sha256(as_json({file.relative_to(path).as_posix(): digest(file) for file in files(path)}))
    return content_hash(path)


def files(folder: Path) -> list[Path]:
    """All files below a folder, but for hidden ones and Python's own caches."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [p for p in found if not any(_is_hidden(part) for part in p.relative_to(folder).parts)]


def python() -> str:
    """Which Python this is."""
    return f"{platform.python_implementation()} {platform.python_version()}"


@cache
def packages() -> dict[str, str]:
    """The version of every installed package, but for those of the site alone."""
    versions = {package.name.lower(): package.version for package in distributions()}
    return {name: version for name, version in versions.items() if name not in OF_SITE}


def _texts(values: object) -> list[str]:
    """The texts among values and lists of values."""
    flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
    return [value for value in flat if isinstance(value, str) and value]


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__pycache__"
