"""A folder of safetensors: which file holds which tensor.

The index of a sharded checkpoint decides where there is one, and then it alone: what a file holds besides is not part
of the checkpoint, and must not be of one of its modules.  Without an index every tensor of every file is, and no name
may be in two.

References:
    https://github.com/huggingface/safetensors (format).
"""

import json
import os
import shutil
import struct
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from rdlib.models.container import Container
from rdlib.models.json_file import read_object
from rdlib.models.names import canonical
from rdlib.models.weight import Absent, Weight

INDEX = "model.safetensors.index.json"
TOKENIZER = ("generation_config.json", "token*", "special*")


class SafetensorsFolder(Container):
    """A folder with config.json and one or more .safetensors files of any name.

    Args:
        folder: the files in it are named by its index, or found; none outside of it is read.

    Raises:
        ValueError: the folder holds no safetensors, lacks a shard of its index, or two files hold one name.
    """

    def __init__(self, folder: Path):
        self.path = Path(os.path.abspath(folder))  # "." has no name
        index = self._index()
        self._tensors = self._indexed(index) if index else self._found()

    @property
    def tensors(self) -> Mapping[str, Weight]:
        return self._tensors

    @cached_property
    def config(self) -> dict:
        try:
            return read_object(self.path / "config.json", self.path.name)
        except FileNotFoundError:
            raise ValueError(f"{self.path.name} has no config.json: is it the folder of a model?") from None

    def write_tokenizer(self, folder: Path) -> None:
        for pattern in TOKENIZER:
            for file in self.path.glob(pattern):
                shutil.copy(file, folder)

    def _indexed(self, index: Path) -> dict[str, Weight]:
        """Tensors as an index names them."""
        file_of = self._weight_map(index)
        tensors_of = {file: {w.name: w for w in _header(self.path / file)} for file in set(file_of.values())}
        modules = {_module(name): name for name in file_of}
        for file, tensors in tensors_of.items():
            for name in sorted(tensors.keys() - file_of.keys()):
                if _module(name) in modules:
                    raise ValueError(
                        f"{file} of {self.path.name} holds {name}, and its index names {modules[_module(name)]} of the "
                        f"same module alone: add it to the index, or take it out of the file."
                    )
        named = []
        for name, file in file_of.items():
            fault = f"{file} of {self.path.name} lacks the tensor {name!r} of its index."
            absent = Absent.named(name, (0,), "", self.path / file, fault=fault)
            named.append(tensors_of[file].get(name, absent))
        return self._by_canonical_name(named)

    def _found(self) -> dict[str, Weight]:
        """All tensors of all files."""
        files = sorted(self.path.glob("[!.]*.safetensors"))
        if not files:
            raise ValueError(self._without_weights)
        return self._by_canonical_name([tensor for file in files for tensor in _header(file)])

    @property
    def _without_weights(self) -> str:
        if gguf := sorted(file.name for file in self.path.glob("*.gguf")):
            return (
                f"{self.path.name} holds GGUF files and no safetensors: name one of them, such as {gguf[0]}."
            )
        pickled = sorted(file.name for file in self.path.glob("*.bin"))
        reason = f"only pickled weights ({pickled[0]}), which are refused" if pickled else "no safetensors"
        return f"{self.path.name} holds {reason}: convert the model with save_pretrained first."

    def _index(self) -> Path | None:
        """The index that decides: the one of the usual name, or else the only one."""
        found = sorted(self.path.glob("*.safetensors.index.json"))
        if len(found) < 2 or (self.path / INDEX) in found:
            return self.path / INDEX if (self.path / INDEX) in found else next(iter(found), None)
        names = " and ".join(index.name for index in found[:2])
        raise ValueError(f"{self.path.name} has two indices, {names}: keep the one that is right.")

    def _weight_map(self, index: Path) -> dict[str, str]:
        """Name of each tensor → name of its file, which is in the folder."""
        folder = self.path.name
        try:
            file_of = dict(read_object(index, folder)["weight_map"])
            outside = [file for file in file_of.values() if Path(file).name != file]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{index.name} of {folder} cannot be read: {error!r}.") from None
        if outside:
            raise ValueError(
                f"{index.name} of {folder} names {outside[0]!r}, which is outside of the folder."
            )
        if missing := sorted(file for file in set(file_of.values()) if not (self.path / file).is_file()):
            raise ValueError(f"{folder} lacks the shard {missing[0]} that its index names.")
        return file_of

    def _by_canonical_name(self, tensors: list[Weight]) -> dict[str, Weight]:
        """Tensors by the names that a plain Llama has for them.

        Raises:
            ValueError: two are of one name.
        """
        found, stored = {}, {}
        for tensor in tensors:
            name = canonical(tensor.name)
            if name in found:
                raise ValueError(
                    f"{self.path.name} holds {name} twice: as {stored[name]} in {found[name].file.name}, and as "
                    f"{tensor.name} in {tensor.file.name}; take the file away that is not the model's, or write "
                    f"an index."
                )
            found[name], stored[name] = tensor.renamed(name), tensor.name
        return found


def _module(name: str) -> str:
    """What a tensor is of: all of its name but the last word."""
    return name.rpartition(".")[0]


def _header(file: Path) -> list[Weight]:
    """What the header of a safetensors file says.

    Raises:
        ValueError: it is no safetensors file, is cut short, or tensors lie elsewhere than one after the other.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            head = stream.read(8)
            (length,) = struct.unpack("<Q", head)
            if head == b"version ":
                raise ValueError("it is the pointer of Git LFS; `git lfs pull` fetches the file itself")
            if length > size - 8:
                raise ValueError("its header is longer than the file")
            entries = json.loads(stream.read(length), object_pairs_hook=_without_twins)
        entries.pop("__metadata__", None)
        begin = 8 + length
        tensors = [_tensor(name, file, begin, **entry) for name, entry in entries.items()]
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError, struct.error) as error:
        raise ValueError(f"{file.name} is truncated or no safetensors file: {error}.") from None
    end = begin
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != end:
            raise ValueError(
                f"{file.name} is no safetensors file: {tensor.name} does not begin where the last ends."
            )
        end += tensor.nbytes
    if end != size:
        fault = "truncated" if end > size else "longer than it should be"
        raise ValueError(f"{file.name} is {fault}: its header describes {end} bytes, and it has {size}.")
    return tensors


def _tensor(name: str, file: Path, start: int, dtype: str, shape: list, data_offsets: list) -> Weight:
    begin, end = data_offsets
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end - begin)):
        raise ValueError(f"{name} has the shape {shape} at {data_offsets}")
    return Weight.named(name, tuple(shape), str(dtype), file, start + begin, end - begin)


def _without_twins(pairs: list[tuple[str, object]]) -> dict:
    """An object of JSON in which no key is repeated."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it holds {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found
