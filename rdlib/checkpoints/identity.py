"""Which model was quantized?  Tensors that were not quantized must equal those of the model."""

import ml_dtypes
import numpy as np

from rdlib.checkpoints.quantized import QuantizedCheckpoint
from rdlib.checkpoints.reader import EncodedLayer
from rdlib.code.code import Code
from rdlib.models.checkpoint import Checkpoint, examples
from rdlib.models.names import EMBEDDING, HEAD

ROWS = 4096  # compared at a time
ON_THE_WAY = (np.float32, ml_dtypes.bfloat16, np.float16)  # types in which a package may have held a model
TINY = 2.0**-24  # the smallest float16: what is less may have become zero or that


def refuse_other_model(quantized: QuantizedCheckpoint, reference: Checkpoint) -> None:
    """Raise unless a checkpoint can have been made of the reference.

    All that the reference computes with must be there, and nothing else but biases of zeros, copies, and a head of its
    own where the reference ties it to the embedding.  Names and shapes of all layers must be those of the reference,
    and so must the values of embedding, head and norms, rounded to the float types that they went through.  Norms that
    absorbed scales of inputs (AWQ) are left out: the embedding and the last norm identify the model.

    Raises:
        ValueError: the checkpoint is of another model; the message names the first tensor that differs.
    """
    other = f"{quantized.checkpoint.folder.name} was not made of {reference.folder.name}:"
    shapes = {weight.name: weight.shape for weight in reference.weights}
    own_head = {HEAD} if reference.tied else set()
    if own_head:
        shapes[HEAD] = shapes.get(EMBEDDING)
    for layer in quantized.linear:
        shape = quantized.shape(layer)
        if shapes.get(layer) != shape:
            raise ValueError(
                f"{other} it has {layer} {shape}, and the other {shapes.get(layer, 'has none')}."
            )
    asked, stored = reference.parameters.keys(), {*quantized.layers, *quantized.unquantized}
    if lacking := asked - stored:
        raise ValueError(f"{other} it lacks {examples(lacking)}.")
    if strange := quantized.needed - asked - own_head:
        raise ValueError(f"{other} it has {examples(strange)}, and the other has none.")
    scaled = {*quantized.scaled_norms, *(quantized.left_alone if quantized.folds_scales else [])}
    compared = [n for n in quantized.unquantized if n in reference and n not in scaled]
    if not compared:
        raise ValueError(f"{other} they have no unquantized tensor in common to tell by.")
    for name in compared:
        stored, original = quantized.checkpoint.tensor(name), reference.tensor(name)
        if stored.shape != original.shape:
            raise ValueError(f"{other} {name} is {stored.shape}, and not {original.shape}.")
        if not any(_same(stored, original, dtype) for dtype in ON_THE_WAY):
            place = _first_difference(stored, original)
            values = f"{float(stored[place]):.6g}, and not {float(original[place]):.6g}"
            raise ValueError(f"{other} {name} at {place} is {values}.")


def refuse_other_version(
    quantized: QuantizedCheckpoint, name: str, packed: EncodedLayer, W: np.ndarray
) -> None:
    """Raise if a layer is closer to the reference when it is read as another version of the format has it.

    Args:
        quantized: the checkpoint.
        name: of the layer.
        packed: the layer as its settings have it.
        W: the matrix that was quantized, (out, in).

    Raises:
        ValueError: another version fits better; the message names it.
    """
    W = W.astype(np.float32)

    def error(code: Code) -> float:
        return float(((packed.decoder.decode(code) - W) ** 2).mean())

    errors = {what: error(code) for what, code in quantized.other_readings(name, packed.code).items()}
    stated, best = error(packed.code), min(errors, key=errors.get, default=None)
    if best is not None and errors[best] < stated:
        raise ValueError(
            f"{name} of {quantized.checkpoint.folder.name} fits the reference with {best} (mean squared error "
            f"{errors[best]:.3g}), and not as the file says ({stated:.3g}): correct it."
        )


def _same(stored: np.ndarray, original: np.ndarray, dtype: type) -> bool:
    """Whether rounding to a type, then to the stored type, makes the one of the other."""
    return all(
        (_distance(stored[i : i + ROWS], original[i : i + ROWS].astype(dtype)) <= TINY).all()
        for i in range(0, len(stored), ROWS)
    )


def _distance(stored: np.ndarray, original: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return np.abs(stored.astype(np.float32) - original.astype(stored.dtype).astype(np.float32))


def _first_difference(stored: np.ndarray, original: np.ndarray) -> tuple[int, ...]:
    place = np.argmax(_distance(stored, original) > TINY)
    return tuple(int(i) for i in np.unravel_index(place, stored.shape))
