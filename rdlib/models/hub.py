"""Where a model lies: in this package, in a local folder, or on the hub."""

import re
from pathlib import Path

from rdlib.extras import extra
from rdlib.files import ASSETS

EMBEDDED = ASSETS / "model"

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
    """The folder of a model; a hub id is downloaded into the hub's own cache first (see :func:`open_checkpoint`)."""
    if str(model) == "embedded":
        return EMBEDDED
    folder = Path(model).expanduser()
    if str(model) and folder.is_dir():  # Path("") is the current folder
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(model)) or str(model).startswith("."):
        raise ValueError(f"There is no folder {str(model)!r}, and it is not a hub id of the form owner/name.")
    return _download(str(model))


def _download(model: str) -> Path:
    with extra("models", f"{model} is a model of the hub, and the hub"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=list(_WANTED)))
    except GatedRepoError:
        raise ValueError(
            f"{model} is gated: accept its licence on its hub page, then log in with `hf auth login` "
            "or set HF_TOKEN, and run again."
        ) from None
    except RepositoryNotFoundError:
        raise ValueError(
            f"There is no folder and no hub model {model!r}; if it is private, log in with `hf auth login`."
        ) from None
    except (HTTPError, OSError) as error:  # of the connection, the hub, the hub's cache
        raise ValueError(
            f"{model} is no local folder, and the hub could not be reached or refused ({type(error).__name__}): "
            "name a local folder, or try again with a connection."
        ) from None
