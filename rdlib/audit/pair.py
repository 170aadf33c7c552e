"""A quantized file beside the model that it was made of: which tensors it has, and what each is of the original."""

from functools import cached_property, lru_cache
from pathlib import Path

from rdlib.checkpoints import QuantizedCheckpoint, open_quantized, refuse_other_model
from rdlib.checkpoints.folded import Aligned
from rdlib.checkpoints.reader import EncodedLayer
from rdlib.checkpoints.unquantized import left_alone
from rdlib.models.checkpoint import Checkpoint, open_checkpoint
from rdlib.models.names import EMBEDDING, HEAD
from rdlib.models.weight import Weight


class Untied(Checkpoint):
    """A model whose head is tied, as if it stored the head as well: beside files that have one of their own."""

    tied = False

    @cached_property
    def tensors(self) -> dict[str, Weight]:
        found = super().tensors
        return found | {HEAD: found[EMBEDDING].renamed(HEAD)}


class Pair:
    """A quantized file and its original.

    Args:
        original: the model that the file was made of.
        quantized: the file.
    """

    def __init__(self, original: Checkpoint, quantized: QuantizedCheckpoint):
        if original.tied and quantized.has_own_head:
            original = Untied(original.container)
        self.original, self.quantized = original, quantized
        self._layers = Aligned(quantized, original)

    @cached_property
    def names(self) -> list[str]:
        """All that the file holds: weights that are codes, and tensors that are not."""
        return [*self.quantized.layers, *self.quantized.unquantized]

    @property
    def metadata_bits(self) -> int:
        """All bits of the files that belong to no tensor."""
        container = self.quantized.checkpoint.container
        stored = sum(weight.nbytes for weight in container.tensors.values())
        return 8 * (sum(file.stat().st_size for file in container.holders) - stored)

    def refuse_other_model(self) -> None:
        """Raise a ValueError that names the tensor by which the file cannot have been made of the original."""
        refuse_other_model(self.quantized, self.original)

    def weight(self, name: str) -> Weight | None:
        """The tensor of the original that one of the file stands for; None where it has none."""
        return self.original.tensors.get(name)

    def coded(self, name: str) -> bool:
        """Whether a weight is stored as a code."""
        return name in self.quantized.layers

    def layer(self, name: str) -> EncodedLayer:
        """A tensor as the file has it, in the coordinates of the original; one that is no code at its own width.

        Raises:
            ValueError: it cannot be decoded, or fits the original better if the settings of the file are not believed.
        """
        if self.coded(name):
            return self._layers[name]
        values = self.quantized.checkpoint.tensor(name)
        return left_alone(values.reshape(-1, values.shape[-1]), self.quantized.bits, self.quantized.method)

    def bits(self, name: str) -> dict[str, int]:
        """What a tensor takes in the file, by what is stored."""
        if self.coded(name):
            return self.quantized.stored_bits(name)
        return {"unquantized": self.quantized.checkpoint.bits(name)}


@lru_cache(maxsize=2)
def opened(original: Path, file: Path, *_: object) -> Pair:
    """The pair of two paths, in a process that measures many of its tensors; what follows is what they depend on."""
    return Pair(open_checkpoint(original), open_quantized(file))
