"""One walk through a model: each layer is read once, measured, made anew in every way, run in every variant, forgotten.

Variants that are equal up to a layer are one until then; a variant begins at the first matrix in which it differs from
the model; a matrix is made once for all variants that have it.  In memory are one layer, its second moments, the
matrices of one variant in it, and the hidden states: of the model, and of every variant since it differs.
"""

from collections.abc import Collection, Hashable, Sequence

from tqdm import tqdm

from rdlib.engine.bench import Bench
from rdlib.engine.branches import Branches, split
from rdlib.engine.found import Walk
from rdlib.engine.layers import NORM, Layers
from rdlib.engine.moments import Moments
from rdlib.engine.text import Text
from rdlib.engine.variant import Variant
from rdlib.functional.divergence import IN_MEMORY
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
        in_memory: bytes; hidden states of a text that take more go to temporary files.

    Raises:
        ValueError: a variant has a tensor that the model does not have, or one that cannot be made; the message names
            it; or the model itself gives NaN or infinite logits.
    """
    network = Layers(checkpoint, device)
    _refuse_unknown(network, variants)
    found = Walk(tensors={label: {} for label in keep})
    bench = Bench(checkpoint, found, limits)
    if evaluation is not None and outputs:
        known = None if calibration is None else Text(network, calibration, in_memory)
        _run(network, Branches(network, evaluation, variants, in_memory), known, bench)
    else:
        texts = (
            None if text is None else Text(network, text, in_memory) for text in (calibration, evaluation)
        )
        _measure(network, variants, list(texts), bench)
    return found


def _refuse_unknown(network: Layers, variants: Sequence[Variant]) -> None:
    """Raise a ValueError that names the first tensor that the model does not have, and the variant."""
    for variant in variants:
        for name in variant.sources:
            if name not in network:
                raise ValueError(f"{variant.label} changes {name}, which {network.name} does not have.")


def _run(network: Layers, branches: Branches, known: Text | None, bench: Bench) -> None:
    """Every variant is run on the text."""
    branches.embed(bench)
    for number in tqdm(range(len(network)), desc="layers", leave=False, delay=5):
        with network.layer(number) as layer:
            branches.advance(layer, bench, known and known.advance(layer)[0])
    bench.found.outputs.update(branches.outputs(bench, known))


def _measure(
    network: Layers, variants: Sequence[Variant], texts: Sequence[Text | None], bench: Bench
) -> None:
    """Nothing is run but the model itself, on the texts that are there, as far as a variant differs from it."""
    changed = {name for variant in variants for name in variant.sources}
    ends, last = changed & {EMBEDDING, NORM, network.head}, network.last_layer(changed)
    for number in tqdm(range(len(network) if ends else last + 1), desc="layers", leave=False, delay=5):
        with network.layer(number) as layer:
            _make_all(variants, layer.names, bench, *(text and text.advance(layer)[0] for text in texts))
    if ends:
        output = network.output()
        _make_all(variants, ends, bench, *(text and text.output(output) for text in texts))


def _make_all(
    variants: Sequence[Variant], names: Collection[str], bench: Bench, *moments: Moments | None
) -> None:
    """The matrices of all variants among some tensors."""
    tasks = split(variants, names)
    bench.prepare((changes for changes, _ in tasks), *moments)
    for changes, same in tasks:
        bench.make(changes, same)
