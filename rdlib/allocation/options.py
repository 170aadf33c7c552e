"""What each matrix may become: bits and predicted KL of every option, of one family of codes or of several."""

from collections.abc import Callable, Hashable, Mapping, Sequence

import pandas as pd

from rdlib.engine import Progress, Variant, walk
from rdlib.models.checkpoint import Checkpoint
from rdlib.network import Windows


def options(
    checkpoint: Checkpoint,
    calibration: Windows,
    tries: Sequence[Variant],
    alpha: Mapping[str, float],
    progress: Callable[[Progress], object] | None = None,
) -> pd.DataFrame:
    """The table that :mod:`rdlib.allocation.rules` take: tensor, option, bits, and cost = α·relative output error.

    The codes of a matrix may be of several families: only bits and cost are compared.

    Args:
        checkpoint: of the model.
        calibration: text for H, by which codes are made and errors weighed.
        tries: variants whose labels are the options; each offers its sources for the tensors that it has.
        alpha: name of a tensor → α, see :meth:`rdlib.engine.Curvature.alpha`.
        progress: see :func:`rdlib.engine.walk`.

    Raises:
        ValueError: a matrix cannot be made; the message names it.
    """
    found = walk(checkpoint, tries, calibration=calibration, progress=progress)
    rows = [
        [name, variant.label, row.rate * row.weights, alpha[name] * row.relative_output]
        for variant in tries
        for name, row in found.of(variant).iterrows()
    ]
    return pd.DataFrame(rows, columns=["tensor", "option", "bits", "cost"])


def mixed(
    chosen: pd.DataFrame, tries: Sequence[Variant], label: Hashable = "plan", sequential: bool = False
) -> Variant:
    """The variant that makes every tensor by its chosen option.

    Args:
        chosen: rows of :func:`options`, one a tensor.
        tries: as there.
        label: of the variant.
        sequential: see :class:`rdlib.engine.Variant`.
    """
    sources = {variant.label: variant.sources for variant in tries}
    pairs = zip(chosen.tensor, chosen.option, strict=True)
    return Variant(label, {tensor: sources[option][tensor] for tensor, option in pairs}, sequential)
