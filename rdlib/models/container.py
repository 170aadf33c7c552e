"""Where the tensors of one model lie: the one thing that Checkpoint, network and census ask a container for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from rdlib.models.weight import Weight


class Container(ABC):
    """A source of tensors: a folder of safetensors, a GGUF file.

    **How to add one.**  Write a subclass in rdlib/models (containers know NumPy and files, but no codes: those are
    for rdlib/checkpoints), and name it in :func:`rdlib.models.checkpoint.open_container`.

    1. ``tensors`` maps every name, as :func:`rdlib.models.names.canonical` or the container's own table writes it, to
       a :class:`~rdlib.models.weight.Weight`.  Two tensors of one name are refused, both files named.
    2. If tensors are stored as codes, subclass Weight: ``stored()`` gives the bytes as they lie, ``values()`` what
       the network multiplies with, float32 or float16 in the shape (out, in) and in the order of rows that
       transformers has.  ``dtype`` is the container's own name of the type (``"Q4_K"``), ``nbytes`` all bytes
       in the file, ``offset`` the place of the first.  Instances are pickled and sent to other processes, so that they
       hold paths and numbers, and no open file.
    3. ``config`` is what config.json of the same model would hold.  It has no quantization_config where ``values()``
       decodes: to whoever reads it, it is an ordinary model.
    4. ``write_tokenizer`` makes a folder's files of it.
    5. ``classified`` is False where settings and neighbours have nothing to add: each Weight has its ``kind``.

    As a *quantized file* the same container goes to rdlib/checkpoints: a format there takes ``stored()`` apart into
    the streams of a Code, see :class:`rdlib.checkpoints.reader.Reader`.

    Attributes:
        path: of the folder or file; its name is used in sentences.
        classified: whether neighbours and settings decide what a tensor is, see :mod:`rdlib.models.classify`.
    """

    path: Path
    classified: bool = True

    @property
    @abstractmethod
    def tensors(self) -> Mapping[str, Weight]:
        """Every tensor by its name; nothing is read but headers."""

    @property
    def holders(self) -> list[Path]:
        """The files that hold tensors, in the order of their names."""
        return sorted({weight.file for weight in self.tensors.values()})

    @property
    @abstractmethod
    def config(self) -> dict:
        """config.json, and nothing else: nulls are taken out by the caller.

        Raises:
            ValueError: there is none, or it is no JSON object.
        """

    @abstractmethod
    def write_tokenizer(self, folder: Path) -> None:
        """Write the files of the tokenizer into a folder; none where there is no tokenizer.

        Raises:
            ValueError: there is one that is not understood.
        """
