"""Where a model lies: in this package or another, in a local folder or GGUF file, or on the hub."""

import os
import re
from pathlib import Path

from rdlib.extras import extra
from rdlib.files import ASSETS
from rdlib.models.packaged import SMOLLM2, find_packaged

EMBEDDED = ASSETS / "model"
NAMES = ("embedded", SMOLLM2)

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
    """The folder or GGUF file of a model; a hub id, with or without ``@revision``, is downloaded into the hub's cache.

    Raises:
        ValueError: it is neither a name nor a path, there is no such folder, or the hub does not give it.
    """
    if not isinstance(model, str | os.PathLike):
        raise ValueError(
            f"A model is named by a folder or a hub id of the form owner/name, not by {model!r}."
        )
    if str(model) == "embedded":
        return EMBEDDED
    if str(model) == SMOLLM2:
        return find_packaged()
    folder = Path(model).expanduser()
    if str(model) and (
        folder.is_dir() or folder.suffix == ".gguf" and folder.is_file()
    ):  # "" is the current folder
        return folder
    match = re.fullmatch(r"(\w[\w.-]*/[\w.-]+)(?:@([\w./-]+))?", str(model))
    if not match:
        raise ValueError(f"There is no folder {str(model)!r}, and it is not a hub id of the form owner/name.")
    return _download(match[1], match[2])


def _download(model: str, revision: str | None) -> Path:
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
        return Path(snapshot_download(model, allow_patterns=list(_WANTED), **version))
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
