"""Where a model lies: in this package or another, in a local folder or GGUF file, or on the hub."""

import os
import re
from pathlib import Path

from rdlib.extras import extra
from rdlib.files import ASSETS
from rdlib.models.gguf.file import split_names
from rdlib.models.packaged import SMOLLM2, find_packaged

EMBEDDED = ASSETS / "model"
NAMES = ("embedded", SMOLLM2)
HUB_ID = re.compile(r"(\w[\w.-]*/[\w.-]+)(?:@([\w./-]+))?(?::(.+\.gguf))?")  # id, revision, file

_WANTED = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "token*",
    "special*",
    "quant*_config.json",
)


def find_model(model: str | Path) -> Path:
    """The folder or GGUF file of a model; what is on the hub is downloaded into the hub's cache.

    A hub id may name a revision, a GGUF file, or both: ``owner/name@v1:Q4_K_M.gguf``.  Of a folder or hub model without
    safetensors the only GGUF file is taken; a split is one file.

    Raises:
        ValueError: it is neither a name nor a path, there is no such folder, it holds several GGUF files, or the hub
            does not give it.
    """
    if not isinstance(model, str | os.PathLike):
        raise ValueError(
            f"A model is named by a folder or a hub id of the form owner/name, not by {model!r}."
        )
    if str(model) == "embedded":
        return EMBEDDED
    if str(model) == SMOLLM2:
        return find_packaged()
    path = Path(model).expanduser()
    if str(model) and path.is_dir():  # "" is the current folder
        stored = [] if _has_safetensors(path) else [file.name for file in path.glob("*.gguf")]
        return path / _only(stored, path.name, "/") if stored else path
    if path.suffix == ".gguf" and path.is_file():
        return path
    match = HUB_ID.fullmatch(str(model))
    if not match:
        raise ValueError(f"There is no folder {str(model)!r}, and it is not a hub id of the form owner/name.")
    return _download(*match.groups())


def revision(path: Path) -> str | None:
    """Which version of a hub model lies at a path: the commit hash of its snapshot; None of any other path."""
    match = re.search(r"/snapshots/([0-9a-f]{40})(?:/|$)", path.as_posix())
    return match and match[1]


def _has_safetensors(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("*.safetensors.index.json"))


def _only(files: list[str], where: str, mark: str) -> str:
    """The one GGUF model among files; of a split its first part.

    Raises:
        ValueError: there are several.
    """
    models = sorted({split_names(file)[0] for file in files})
    if len(models) > 1:
        raise ValueError(
            f"{where} holds {len(models)} GGUF models and no safetensors: name one, as in {where}{mark}{models[0]}; "
            f"it has {', '.join(models)}."
        )
    return models[0]


def _download(model: str, revision: str | None, file: str | None) -> Path:
    with extra("models", f"{model} is a model of the hub, and the hub"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HTTPError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )

    version = {"revision": revision} if revision else {}
    try:
        if file is None:
            folder = Path(snapshot_download(model, allow_patterns=list(_WANTED), **version))
            stored = [] if _has_safetensors(folder) else _stored(model, folder, version)
            if not stored:
                return folder
            file = _only(stored, model, ":")
        folder = Path(snapshot_download(model, allow_patterns=split_names(file), **version))
        if not (folder / file).is_file():
            stored = ", ".join(_stored(model, folder, version)) or "none"
            raise ValueError(f"The hub model {model} has no file {file!r}; its GGUF files: {stored}.")
        return folder / file
    except GatedRepoError:
        raise ValueError(
            f"{model} is gated: accept its licence on its hub page, then log in with `hf auth login` "
            "or set HF_TOKEN, and run again."
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"There is no folder and no hub model {model!r}; if it is private, log in with `hf auth login`."
        ) from None
    except RevisionNotFoundError:
        raise ValueError(f"The hub model {model} has no revision {revision!r}.") from None
    except (HTTPError, OSError) as error:  # of the connection, the hub, the hub's cache
        raise ValueError(
            f"{model} is no local folder, and the hub could not be reached or refused ({type(error).__name__}): "
            "name a local folder, or try again with a connection."
        ) from None


def _stored(model: str, folder: Path, version: dict[str, str]) -> list[str]:
    """The GGUF files of a hub model; without a connection, those in the cache."""
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HTTPError

    try:
        found = list_repo_files(model, **version)
    except (HTTPError, OSError):
        found = [path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")]
    return sorted(file for file in found if file.endswith(".gguf"))
