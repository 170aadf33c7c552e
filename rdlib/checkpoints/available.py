"""Which of some quantized checkpoints can be compared with a model, and why the others cannot."""

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from rdlib.checkpoints.folded import aligned
from rdlib.checkpoints.quantized import QuantizedCheckpoint, open_quantized
from rdlib.models.checkpoint import Checkpoint


def open_available(
    models: Iterable[str | Path], reference: Checkpoint
) -> tuple[dict[str, QuantizedCheckpoint], dict[str, str]]:
    """Name → checkpoint of those that were made of the reference, and name → reason of those that are left out.

    Every layer is read once, one at a time, so that whatever is wrong with a file shows here, and not in the middle of
    a table.  The price of each is remembered, so that :attr:`QuantizedCheckpoint.rates` read none again.

    Args:
        models: each as :func:`rdlib.checkpoints.open_quantized` takes it.
        reference: the model that they were made of.
    """
    found, reasons = {}, {}
    for model in models:
        try:
            quantized = open_quantized(model)
            deque(aligned(quantized, reference).values(), maxlen=0)
            found[str(model)] = quantized
        except ValueError as error:
            reasons[str(model)] = str(error)
    return found, reasons
