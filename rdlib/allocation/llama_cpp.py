"""A plan for llama.cpp: a type of GGUF for each matrix, and what llama-quantize takes to write it.

The KL of a plan is predicted by the quadratic law: α of a matrix, from one pass back through the model, times the
relative error of its output.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from rdlib.allocation.gguf import OUTER, Blocks, described, outer_bytes, write_gguf
from rdlib.allocation.options import mixed, options
from rdlib.allocation.rules import lagrangian, refuse_small, uniform
from rdlib.checkpoints.llama_cpp import writable
from rdlib.engine import Variant, bar
from rdlib.engine.law import ENOUGH, law, widest
from rdlib.files import write_whole
from rdlib.functional.divergence import PerToken
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.gguf.model import GGUFContainer
from rdlib.models.gguf.names import gguf_name
from rdlib.models.weight import Weight
from rdlib.network import cut_windows, load_tokenizer, read_tokens
from rdlib.theory import ModelLimit

TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
FLOATS = {"F32", "F16", "BF16"}
WINDOW = 512  # tokens
JUDGED = 16  # windows that KL is measured on


def plan(
    checkpoint: Checkpoint,
    out: Path,
    calibration: str,
    evaluation: str,
    tokens: int,
    bits: float | None = None,
    gib: float | None = None,
    types: Sequence[str] = TYPES,
) -> list[str]:
    """Write the best plan within a size, and say how good it is: the file, and what llama-quantize takes to write it.

    ``model.gguf`` is the file, ``tensor-types.txt`` a type for every matrix, and ``imatrix.gguf`` its importance.

    Args:
        checkpoint: of the model.
        out: folder for all three.
        calibration: text for H, G and α, by which types are chosen and written: in the box, or a file.
        evaluation: text for KL.
        tokens: of the calibration text, and at most of the other.
        bits: per weight of the linear layers; or
        gib: of the whole file, in units of 2³⁰ bytes.
        types: see :func:`tries`.

    Returns:
        sentences: the size; KL, predicted, measured, and with one type for all; and the distance to the limit.

    Raises:
        ValueError: the size is too small, or the model has a form that is not read or written.
    """
    tokenizer, linear = load_tokenizer(checkpoint.folder), _linear(checkpoint)
    length = min(WINDOW, checkpoint.config.get("max_position_embeddings", WINDOW), tokens)
    known, text = (
        cut_windows(read_tokens(name, tokenizer), length).take(max(tokens // length, 1))
        for name in (calibration, evaluation)
    )
    text, offered = text.take(JUDGED), tries(checkpoint, types)
    weights = sum(weight.size for weight in linear)
    budget = bits * weights if gib is None else 8 * (gib * 2**30 - outer_bytes(checkpoint))
    listed, importance, file = out / "tensor-types.txt", out / "imatrix.gguf", out / "model.gguf"
    refuse_small(prices(checkpoint, offered), budget)
    described(checkpoint, file)  # what is not written is refused before hours of work
    alpha, limit = law(checkpoint, known)
    table = options(checkpoint, known, offered, alpha, bar("types"))
    chosen = lagrangian(table, budget)
    types_of, rate = chosen.set_index("tensor").option.to_dict(), chosen.bits.sum() / weights
    write_whole(listed, tensor_types(types_of))
    try:
        alike = [mixed(one := uniform(table, budget), offered, "alike")]
    except ValueError:  # there is no type for all
        alike = []
    outputs = write_gguf(checkpoint, types_of, file, known, text, alike, importance)
    kl = outputs["file"].kl
    said = [
        f"{file}: {file.stat().st_size / 2**30:.3g} GiB, {rate:.3f} bits per weight of the linear layers; "
        f"embedding and head are {OUTER}.",
        f"KL: {_shown(kl)} nats per token on {text.protocol}; predicted {chosen.cost.sum():.3g}.",
    ]
    if alike:
        said.append(
            f"{one.option.iloc[0]} for all, {one.bits.sum() / weights:.3f} bits: KL {_shown(outputs['alike'].kl)}; "
            f"the plan has {_shown(outputs['alike'].kl - kl)} less."
        )
    return [*said, *_distance(checkpoint, limit, rate, kl.mean), *_again(checkpoint, listed, importance)]


def _distance(checkpoint: Checkpoint, limit: ModelLimit | None, rate: float, kl: float) -> list[str]:
    """How far a file is from the limit, as a sentence."""
    if not limit:
        return [
            f"No limit: it takes {ENOUGH} tokens for each input of the widest matrix: "
            f"--tokens {ENOUGH * widest(checkpoint)}, and a calibration text that has as many."
        ]
    if not kl > 0:
        return []
    least = limit.rate(kl)
    return [f"Limit for that KL: {least:.2f} bits; the file is {rate - least:.2f} above it."]


def _again(checkpoint: Checkpoint, listed: Path, importance: Path) -> list[str]:
    """What llama.cpp writes the same file by.

    The type after the names is that of embedding and head.  Were it one of blocks that do not divide the rows, older
    versions would not look at the list.
    """
    said, again, container = [], "", checkpoint.container
    if coded := sorted({weight.dtype for weight in _linear(checkpoint)} - FLOATS):
        said.append(
            f"The model itself is stored as {' and '.join(coded)}: KL is from its weights as they are, and the same "
            "type may give them back exactly. Better plan a file of 16 or 32 bits."
        )
        again = "--allow-requantize "
    stored = container.path if isinstance(container, GGUFContainer) else "MODEL-F16.gguf"
    return [
        *said,
        f"The same by llama.cpp: llama-quantize {again}--imatrix {importance} --tensor-type-file {listed} "
        f"{stored} OUT.gguf {OUTER}",
    ]


def _linear(checkpoint: Checkpoint) -> list[Weight]:
    return [weight for weight in checkpoint.weights if weight.layer >= 0]


def _shown(quantity: PerToken) -> str:
    """Mean ± standard error, if there is one."""
    error = "" if math.isnan(quantity.error) else f" ± {quantity.error:.1g}"
    return f"{quantity.mean:.3g}{error}"


def tries(checkpoint: Checkpoint, types: Sequence[str] = TYPES) -> list[Variant]:
    """For each type of GGUF the variant in which it writes all linear layers that it can.

    Args:
        checkpoint: of the model.
        types: those whose blocks do not divide the rows of a matrix are no option for it.

    Raises:
        ValueError: a matrix has no type at all, or libgguf is not installed.
    """
    fits = {w.name: writable(types, {w.shape[1]}) for w in _linear(checkpoint)}
    for name, (kinds, why) in fits.items():
        if not kinds:
            raise ValueError(f"There is no type for {name}. {why}")
    by_type = {kind: [name for name in fits if kind in fits[name][0]] for kind in types}
    return [Variant.by(kind, names, Blocks(kind)) for kind, names in by_type.items() if names]


def prices(checkpoint: Checkpoint, offered: Sequence[Variant]) -> pd.DataFrame:
    """The bits of every option, which follow from its type: tensor, option and bits."""
    rows = [
        [name, variant.label, source.bits * checkpoint.size(name)]
        for variant in offered
        for name, source in variant.sources.items()
    ]
    return pd.DataFrame(rows, columns=["tensor", "option", "bits"])


def tensor_types(plan: Mapping[str, str]) -> str:
    """The list that ``llama-quantize --tensor-type-file`` takes: a line for every matrix, a pattern and its type."""
    lines = [f"^{re.escape(gguf_name(name))}$={kind.lower()}" for name, kind in plan.items()]
    return "\n".join(lines) + "\n"
