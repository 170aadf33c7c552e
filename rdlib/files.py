"""The files of the package, how a file is written whole or not at all, and the hash that names its content."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"
END = "<|endoftext|>"  # between the documents of a text
LARGE = 1 << 24  # bytes; to hash fewer takes no time


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file whole or not at all, and its folder where that is missing.

    Args:
        path: of the file; one of this name is replaced.
        data: its content; text is written as UTF-8.

    Raises:
        OSError: the file cannot be written; the message names it.
    """
    try:
        with whole(path) as unfinished:
            unfinished.write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A place beside ``path`` for a file or a folder, which becomes ``path`` when the block ends.

    Its bytes are on the disk before it gets its name.  If the block or the disk fails, nothing is left of it.

    Args:
        path: of the file or folder; a file of this name, or an empty folder, is replaced.

    Raises:
        OSError: there is no room, or no right to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(suffix=".unfinished", prefix=".", dir=path.parent) as folder:
        unfinished = Path(folder) / path.name
        yield unfinished
        for part in unfinished.rglob("*") if unfinished.is_dir() else [unfinished]:
            if part.is_file():
                _flush(part)
        os.replace(unfinished, path)


def _flush(file: Path) -> None:
    """Wait until the bytes of a file are on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def as_json(value: object) -> bytes:
    """JSON with one spelling for one value."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def sha256(source: Path | bytes) -> str:
    """SHA-256 of a file's content, or of bytes, in hexadecimal."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def user_cache() -> Path:
    """Where what can be had again is kept between runs: ``$XDG_CACHE_HOME/rdlib``, or else ``~/.cache/rdlib``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rdlib"


def content_hash(*files: Path) -> str:
    """SHA-256 of the bytes of files, one after another; that of large files is read only once.

    It is remembered in the user's cache folder by the path, size and time of every file.

    Raises:
        OSError: a file cannot be read.
    """
    facts = [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    if sum(size for _, size, _ in facts) < LARGE:
        return _hash_of(files)
    entry = user_cache() / "hashes" / sha256(repr(facts).encode())
    with suppress(OSError):
        if re.fullmatch("[0-9a-f]{64}", known := entry.read_text()):
            return known
    found = _hash_of(files)
    with suppress(OSError):  # a home that cannot be written only costs time
        write_whole(entry, found)
    return found


def _hash_of(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def documents(text: str) -> list[str]:
    """The documents of a text, which ``<|endoftext|>`` divides; spaces around them and empty ones are dropped."""
    return [document for part in text.split(END) if (document := part.strip())]
