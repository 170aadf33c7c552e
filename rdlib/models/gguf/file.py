"""The container: metadata, and which bytes of which file are which tensor.

A file is a header (magic, version, counts), pairs of keys and typed values, descriptions of tensors, and from the next
multiple of ``general.alignment`` on the tensors themselves.  A model may be split into files ``…-00001-of-00003.gguf``.

References:
    ggml-org/ggml, docs/gguf.md, versions 2 and 3.
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from rdlib.models.gguf.blocks import TensorType
from rdlib.models.gguf.types import TYPES, tensor_type

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
DIMENSIONS = 4
LONGEST_NAME = 1 << 10  # bytes; the format allows 64 for tensors
PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies.

    Args:
        name: in GGUF.
        shape: (out, in), or (n,); GGUF writes it the other way round.
        number: of its type.
        offset: from the beginning of the file, bytes.
        path: of the file.
    """

    name: str
    shape: tuple[int, ...]
    number: int
    offset: int
    path: Path

    @property
    def type(self) -> TensorType:
        """How it is stored.

        Raises:
            ValueError: the type is not read; the message names the tensor.
        """
        try:
            return tensor_type(self.number)
        except ValueError as error:
            raise ValueError(f"{self.name} of {self.path.name}: {error}") from None

    @property
    def bytes(self) -> int:
        """Of the tensor in the file; zero where the type is not read."""
        if self.number not in TYPES:
            return 0
        return math.prod(self.shape[:-1]) * self.row_bytes

    @property
    def row_bytes(self) -> int:
        """Of a row, which is whole blocks.

        Raises:
            ValueError: the type is not read, or rows are no whole blocks; the message names the tensor.
        """
        kind = self.type
        try:
            return kind.row_bytes(self.shape[-1])
        except ValueError as error:
            raise ValueError(f"{self.name} of {self.path.name}: {error}") from None


class GGUFFile:
    """One file, mapped into memory.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no GGUF file, of another version, cut short, or contradicts itself.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.data = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise ValueError(f"{path.name} cannot be read as a GGUF file: {error}.") from None
        reader = _Reader(self.data, path.name)
        tensors, pairs = reader.header()
        self.metadata: dict[str, object] = {}
        for _ in range(pairs):
            key = reader.string(LONGEST_NAME)
            if key in self.metadata:
                raise ValueError(f"{path.name} has the key {key!r} twice.")
            self.metadata[key] = reader.value(reader.number("I"))
        described = [reader.tensor() for _ in range(tensors)]
        begin = -(-reader.place // self.alignment) * self.alignment
        self.tensors: dict[str, TensorInfo] = {}
        for name, shape, number, offset in described:
            if name in self.tensors:
                raise ValueError(f"{path.name} has the tensor {name!r} twice.")
            if offset % self.alignment:
                raise ValueError(
                    f"{name} of {path.name} begins at {offset}, no multiple of {self.alignment}."
                )
            self.tensors[name] = TensorInfo(name, shape, number, begin + offset, path)
        self._refuse_overlap()

    @property
    def alignment(self) -> int:
        """Tensors begin at its multiples."""
        alignment = self.metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20 or alignment % 8:
            raise ValueError(
                f"{self.path.name} says general.alignment = {alignment!r}; a multiple of 8 is needed."
            )
        return alignment

    def rows(self, info: TensorInfo) -> np.ndarray:
        """The bytes of a tensor as they lie in the file, uint8 (out, bytes of a row); a vector is one row."""
        return self.data[info.offset : info.offset + info.bytes].reshape(-1, info.row_bytes)

    def _refuse_overlap(self) -> None:
        end, last = 0, ""
        for info in sorted(self.tensors.values(), key=lambda t: t.offset):
            if info.offset < end:
                raise ValueError(f"{info.name} of {self.path.name} begins within {last}.")
            end, last = info.offset + info.bytes, info.name
            if end > len(self.data):
                raise ValueError(
                    f"{self.path.name} is cut short: {last} ends at byte {end}, the file at {len(self.data)}."
                )


class GGUF:
    """A model: one file, or all files of a split.

    Args:
        path: of the file, or of any file of a split.

    Raises:
        ValueError: a file is missing or not read, or two files hold the same tensor.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).absolute()
        first = GGUFFile(self.path)
        self.files = (
            [first] if _count(first) == 1 else [GGUFFile(p) for p in _parts(self.path, _count(first))]
        )
        self.tensors: dict[str, TensorInfo] = {}
        for number, file in enumerate(self.files):
            if (_count(file), file.metadata.get("split.no", 0)) != (len(self.files), number):
                raise ValueError(
                    f"{file.path.name} is part {file.metadata.get('split.no', 0)!r} of {_count(file)}, "
                    f"where part {number} of {len(self.files)} should be."
                )
            if twice := self.tensors.keys() & file.tensors.keys():
                raise ValueError(f"{file.path.name} and a part before it both hold {min(twice)}.")
            self.tensors |= file.tensors

    @property
    def name(self) -> str:
        """Of the first file."""
        return self.files[0].path.name

    @property
    def metadata(self) -> Mapping[str, object]:
        """Of the first file, which describes the model."""
        return self.files[0].metadata

    @cached_property
    def _file_of(self) -> dict[Path, GGUFFile]:
        return {file.path: file for file in self.files}

    def rows(self, name: str) -> np.ndarray:
        """The bytes of a tensor as they lie in the file, uint8 (out, bytes of a row); a vector is one row.

        Raises:
            ValueError: there is no such tensor, or its type is not read.
        """
        if name not in self.tensors:
            raise ValueError(f"{self.name} has no tensor {name!r}.")
        info = self.tensors[name]
        return self._file_of[info.path].rows(info)


def _count(file: GGUFFile) -> int:
    """Of how many files the model is."""
    count = file.metadata.get("split.count", 1)
    if type(count) is not int or count > 99999:
        raise ValueError(f"{file.path.name} says split.count = {count!r}.")
    return max(count, 1)


def _parts(path: Path, count: int) -> list[Path]:
    """The files of a split, of which one is known."""
    match = PART.fullmatch(path.name)
    if not match or int(match[3]) != count:
        raise ValueError(
            f"{path.name} is one of {count} files, but is not called …-00001-of-{count:05}.gguf: "
            "the others cannot be found."
        )
    paths = [path.with_name(name) for name in split_names(path.name)]
    if missing := [p.name for p in paths if not p.is_file()]:
        raise ValueError(f"{path.name} is one of {count} files, but {missing[0]} is missing beside it.")
    return paths


def split_names(name: str) -> list[str]:
    """The names of all files of the split that a file is of; itself alone where it is none of a split.

    >>> split_names("a-00002-of-00002.gguf")
    ['a-00001-of-00002.gguf', 'a-00002-of-00002.gguf']
    """
    match = PART.fullmatch(name)
    if not match:
        return [name]
    return [f"{match[1]}-{i + 1:05}-of-{match[3]}.gguf" for i in range(int(match[3]))]


class _Reader:
    """A place in the header of a file, which moves on with everything that is read."""

    def __init__(self, data: np.ndarray, name: str):
        self.data, self.name, self.place = memoryview(data), name, 0

    def take(self, count: int) -> memoryview:
        """So many bytes.

        Raises:
            ValueError: the file ends before.
        """
        if count > len(self.data) - self.place:
            raise ValueError(f"{self.name} is cut short: its header needs {count} bytes at {self.place}.")
        self.place += count
        return self.data[self.place - count : self.place]

    def number(self, kind: str) -> int | float | bool:
        return struct.unpack(f"<{kind}", self.take(struct.calcsize(f"<{kind}")))[0]

    def count(self, what: str, least: int, limit: int | None = None) -> int:
        """A number of things of at least so many bytes each, which therefore fit into the rest of the file."""
        count = self.number("Q")
        room = (len(self.data) - self.place) // least
        if count > (room if limit is None else min(limit, room)):
            raise ValueError(f"{self.name} claims {count} {what}, which do not fit into it.")
        return count

    def string(self, limit: int | None = None) -> str:
        try:
            return bytes(self.take(self.count("bytes of a string", 1, limit))).decode()
        except UnicodeDecodeError:
            raise ValueError(
                f"{self.name} has a string before byte {self.place} that is not UTF-8."
            ) from None

    def value(self, kind: int, depth: int = 0) -> object:
        """A value of a type: a number, a string, or a list."""
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        if kind == STRING:
            return self.string()
        if kind == ARRAY and depth < DIMENSIONS:
            inner = self.number("I")
            if inner in NUMBERS:
                form = NUMBERS[inner]
                count = self.count("numbers", struct.calcsize(f"<{form}"))
                return list(struct.unpack(f"<{count}{form}", self.take(count * struct.calcsize(f"<{form}"))))
            return [self.value(inner, depth + 1) for _ in range(self.count("entries", 8))]
        raise ValueError(f"{self.name} has a value of the type {kind}, which is not known.")

    def header(self) -> tuple[int, int]:
        """Numbers of tensors and of pairs of keys and values."""
        if bytes(self.data[:4]) != MAGIC:
            raise ValueError(f"{self.name} is no GGUF file: it does not begin with {MAGIC.decode()!r}.")
        self.place = len(MAGIC)
        version = self.number("I")
        if version not in VERSIONS:
            why = (
                "its bytes are in the other order"
                if version in (v << 24 for v in VERSIONS)
                else "2 and 3 are read"
            )
            raise ValueError(f"{self.name} is of GGUF's version {version}: {why}.")
        return self.count("tensors", 24), self.count("keys", 13)

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape (out, in), number of the type and offset of a tensor."""
        name, dimensions = self.string(LONGEST_NAME), self.number("I")
        if not 0 < dimensions <= DIMENSIONS:
            raise ValueError(f"{name} of {self.name} has {dimensions} dimensions.")
        shape = tuple(self.number("Q") for _ in range(dimensions))[::-1]
        if math.prod(shape) == 0 or math.prod(shape) >= 1 << 48:
            raise ValueError(f"{name} of {self.name} has the shape {shape}.")
        number, offset = self.number("I"), self.number("Q")
        return name, shape, number, offset
