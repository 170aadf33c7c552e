"""One walk through a model: each layer is read once, measured, made anew in every way, run in every variant, forgotten.

Variants that are equal up to a layer are one until then; a variant begins at the first matrix in which it differs from
the model; a matrix is made once for all variants that have it.  In memory are one layer, its second moments, the
matrices of one variant in it, and the hidden states: of the model, and of every variant since it differs.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from pathlib import Path

from rdlib.engine.bench import JUDGED, KNOWN, Bench
from rdlib.engine.branches import TOKENS, Branches
from rdlib.engine.course import Clock, Progress, course
from rdlib.engine.found import Walk
from rdlib.engine.layers import NORM, Layers
from rdlib.engine.resume import Kept, question
from rdlib.engine.room import IN_MEMORY, Room, refuse_full
from rdlib.engine.solver import solver_on
from rdlib.engine.variant import Variant
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import EMBEDDING
from rdlib.network.windows import Windows


def walk(
    checkpoint: Checkpoint,
    variants: Sequence[Variant],
    evaluation: Windows | None = None,
    calibration: Windows | None = None,
    keep: Collection[Hashable] = (),
    limits: bool = False,
    outputs: bool = True,
    device: str | None = None,
    in_memory: int = IN_MEMORY,
    folder: str | Path | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Walk:
    """Measure variants of a model: their matrices, and where there is a text to judge by, their output.

    Args:
        checkpoint: of the model.
        variants: to be measured; no two have one label.
        evaluation: windows that the output is judged by; without them only matrices are measured.
        calibration: windows for H; without them no quantizer feeds errors back, and no error is weighed.
        keep: labels of variants whose tensors are wanted: these are held for the whole model.
        limits: whether the least rate for each error of an output is wanted; it takes the eigenvalues of every H.
        outputs: whether the variants are run; else the evaluation text gives its H and nothing more, and the walk ends
            with the last layer in which a variant differs.
        device: see :class:`rdlib.engine.layers.Layers`.
        in_memory: bytes; hidden states that take more in all go to temporary files.
        folder: where the state is left after each layer.  A walk that was interrupted goes on from there when the same
            is asked again, and ends with the same results to the last bit; what else is asked has a state of its own.
            The folder is the caller's to remove.
        progress: is told after every step how far the walk is; :func:`rdlib.engine.bar` is one that shows it.

    Raises:
        ValueError: a variant has a tensor that the model does not have, or one that cannot be made; the message names
            it.  A variant is calibrated on its own inputs, and there is no calibration text; or the model itself gives
            NaN or infinite logits.
    """
    network = Layers(checkpoint, device)
    _refuse_unknown(network, variants)
    texts = {KNOWN: calibration, JUDGED: evaluation}
    windows = {name: text for name, text in texts.items() if text is not None}
    if KNOWN not in windows and (own := next((v for v in variants if v.sequential), None)):
        raise ValueError(f"{own.label} is calibrated on its own inputs: give a calibration text.")
    judged = outputs and JUDGED in windows
    changed = {name for variant in variants for name in variant.sources}
    ends = judged or changed & {EMBEDDING, NORM, network.head}
    found = Walk({variant.label: {} for variant in variants}, tensors={label: {} for label in keep})
    bench = Bench(checkpoint, found, limits)
    branches = Branches(network, variants, windows, judged, Room(in_memory))
    layers = [network.names(n) for n in range(len(network) if ends else network.last_layer(changed) + 1)]
    settings = (limits, judged, [variant.label in found.tensors for variant in variants])
    kept = folder and Kept(folder, question(checkpoint, variants, windows, *settings))
    first = kept.load(branches, found, variants) if kept else 0
    if not first:
        branches.embed(bench)
    clock = _clock(branches, layers[first:], ends, kept and kept.folder, progress)
    bench.step = branches.step = clock.step
    for number in range(first, len(layers)):
        clock.layer = number
        with network.layer(number) as layer, solver_on(network.device):
            branches.advance(layer, bench)
        if kept:
            kept.save(number + 1, branches, found, variants)
    clock.layer = len(network)
    if ends:
        with solver_on(network.device):
            found.outputs.update(branches.end(bench))
    return found


def _clock(
    branches: Branches,
    layers: Sequence[Collection[str]],
    ends: bool,
    folder: Path | None,
    progress: Callable[[Progress], object] | None,
) -> Clock:
    """The clock of what is ahead.

    Raises:
        ValueError: a disk has no room for the hidden states.
    """
    network, most = branches.network, Counter()
    *passed, (end, _) = course(branches, [*layers, [NORM, network.head]])
    ahead = sum((steps for steps, _ in passed), Counter())
    if ends:
        ahead += Counter({kind: count for kind, count in end.items() if kind[0] == "made"})
    if branches.judged:
        ahead["compared",] = len(branches.windows[JUDGED].parts(TOKENS))
    for _, held in passed:
        most = max(most, held, key=Counter.total)
    model = {name: 4 * text.hidden.numel() for name, text in branches.model.items()}
    states = sum(most[name] * size for name, size in model.items())
    disk = {tempfile.gettempdir(): max(0, states - branches.room.left)}
    if folder:
        disk[str(folder)] = 2 * (states + sum(model.values()))  # the old state goes when the new one is there
    for place, size in disk.items():
        refuse_full(place, size)
    return Clock(ahead, progress, len(network), {place: size for place, size in disk.items() if size})


def _refuse_unknown(network: Layers, variants: Sequence[Variant]) -> None:
    """Raise a ValueError that names the first tensor that the model does not have, and the variant."""
    for variant in variants:
        for name in variant.sources:
            if name not in network:
                raise ValueError(f"{variant.label} changes {name}, which {network.name} does not have.")
