"""A plan for llama.cpp: a type of GGUF for each matrix, the list that llama-quantize takes, and the file itself.

The KL of a plan is predicted by the quadratic law: α of a matrix, from one pass back through the model, times the
relative error of its output.
"""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from rdlib.allocation.options import mixed, options
from rdlib.allocation.rules import lagrangian, refuse_small, uniform
from rdlib.checkpoints.llama_cpp import WITH, LlamaCpp, LlamaCppImportance, writable
from rdlib.engine import Variant, bar, counted, curvature, walk
from rdlib.files import whole, write_whole
from rdlib.functional.divergence import Functional, PerToken
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.gguf.model import GGUFContainer
from rdlib.models.gguf.names import gguf_name, permuted, permuted_heads
from rdlib.models.weight import Weight
from rdlib.network import Windows, cut_windows, load_tokenizer, read_tokens
from rdlib.theory import ModelLimit, Share

TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
FLOATS = {"F32", "F16", "BF16"}
OUTER = "Q8_0"  # of embedding and head, which a plan does not choose
WINDOW = 512  # tokens
JUDGED = 16  # windows that KL is measured on
METADATA = 1 << 16  # bytes, at most, of a file without tokenizer
KEYS = {  # of config.json → of GGUF
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "vocab_size": "vocab_size",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}


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
            "No limit: it takes 20 tokens for each input of the widest matrix: "
            f"--tokens {20 * widest(checkpoint)}, and a calibration text that has as many."
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


def law(checkpoint: Checkpoint, text: Windows) -> tuple[dict[str, float], ModelLimit | None]:
    """α of every linear layer, and the limit of the model, by one pass back through it.

    Args:
        checkpoint: of the model.
        text: for H, G and α; the limit is None where it has fewer than 20 tokens an input.
    """
    alpha, shares, enough = {}, {}, text.tokens >= 20 * widest(checkpoint)
    layers = 1 + max(weight.layer for weight in checkpoint.weights)
    for layer in counted(curvature(checkpoint, text), "α", layers):
        for name, found in layer.items():
            alpha[name] = found.alpha(checkpoint.tensor(name))
            if enough:
                shares[name] = Share(alpha[name], found.inputs, found.outputs)
    return alpha, ModelLimit(shares) if enough else None


def widest(checkpoint: Checkpoint) -> int:
    """Inputs of the widest linear layer."""
    return max(weight.shape[1] for weight in _linear(checkpoint))


def outer_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of a file beside those of the linear layers: embedding, head, norms, and what describes the model."""
    container = checkpoint.container
    described = METADATA
    if isinstance(container, GGUFContainer):
        described = min(info.offset for info in container.gguf.tensors.values())
    outer = [w for w in checkpoint.parameters.values() if w.layer < 0 or len(w.shape) == 1]
    bits = (LlamaCpp(OUTER).bits if len(w.shape) == 2 else 32 for w in outer)
    return described + sum(int(w.size * b / 8) + 32 for w, b in zip(outer, bits, strict=True))


def tensor_types(plan: Mapping[str, str]) -> str:
    """The list that ``llama-quantize --tensor-type-file`` takes: a line for every matrix, a pattern and its type."""
    lines = [f"^{re.escape(gguf_name(name))}$={kind.lower()}" for name, kind in plan.items()]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Blocks:
    """A tensor by a type of GGUF with importance diag H; its rate is that of the file.

    Args:
        kind: the type, such as Q4_K.
        folder: where its bytes are left, and diag H; nowhere where None.
    """

    kind: str
    folder: Path | None = None

    @property
    def method(self) -> str:
        return LlamaCppImportance(self.kind).method

    @property
    def bits(self) -> float:
        return LlamaCpp(self.kind).bits

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        quantizer = LlamaCppImportance(self.kind)
        rows = quantizer.blocks(W, H)
        if self.folder:
            np.save(self.folder / f"{name}.npy", rows)
        if self.folder and H is not None:
            np.save(self.folder / f"{name}.H.npy", H.diagonal())
        return quantizer.decoded(rows), {"rate": self.bits, "side_rate": float("nan")}


def write_gguf(
    checkpoint: Checkpoint,
    plan: Mapping[str, str],
    path: Path,
    calibration: Windows,
    evaluation: Windows | None = None,
    others: Sequence[Variant] = (),
    importance: Path | None = None,
) -> dict[Hashable, Functional]:
    """Write a model as a GGUF file, each matrix by its type, with importance diag H; whole or not at all.

    Embedding and head are Q8_0, all else float32.  Metadata and tokenizer are those of a GGUF file; a folder's file
    has sizes and no tokenizer.

    Args:
        checkpoint: of the model.
        plan: name of a linear layer → its type, see :func:`tries`.
        path: of the file.
        calibration: text for H.
        evaluation: text to judge the output by.
        others: variants that are judged beside it.
        importance: file for diag H, as llama-imatrix writes it and ``llama-quantize --imatrix`` takes it.

    Returns:
        ``file``, and the label of each other → how far its output strays from the model's, by the evaluation text.

    Raises:
        ValueError: the model has a form that GGUF does not have, or gguf or libgguf is not installed.
    """
    types = {n: OUTER for n, w in checkpoint.parameters.items() if w.layer < 0 and len(w.shape) == 2} | dict(
        plan
    )
    with TemporaryDirectory() as folder, whole(path) as unfinished:
        writer = described(checkpoint, unfinished)
        variant = Variant("file", {n: Blocks(kind, Path(folder)) for n, kind in types.items()})
        found = walk(checkpoint, [variant, *others], evaluation, calibration, progress=bar("file"))
        for name, weight in checkpoint.tensors.items():
            if name not in checkpoint.parameters and gguf_name(name) != name:
                continue  # a tied head
            made = Path(folder, f"{name}.npy")
            rows = np.load(made) if made.exists() else np.asarray(weight.values(), np.float32)
            add_tensor(writer, checkpoint, name, rows, types[name] if made.exists() else "F32")
        finish(writer)
        if importance:
            squares = {name: np.load(Path(folder, f"{name}.H.npy")) for name in plan}
            write_imatrix(importance, squares, calibration)
    return found.outputs


def write_imatrix(path: Path, squares: Mapping[str, np.ndarray], text: Windows) -> None:
    """Write diag H as an importance matrix of llama.cpp: Σ x² over the tokens of a text, and their number.

    Args:
        path: of the file.
        squares: name of a matrix → mean x² of its inputs, (in,).
        text: that they were measured on.

    References:
        ggml-org/llama.cpp, ``common/imatrix-loader.cpp``.
    """
    from gguf import GGUFWriter

    with whole(path) as unfinished:
        writer = GGUFWriter(unfinished, "")
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [text.sha256])
        writer.add_uint32("imatrix.chunk_count", len(text))
        writer.add_uint32("imatrix.chunk_size", text.length)
        for name, mean in squares.items():
            writer.add_tensor(f"{gguf_name(name)}.in_sum2", np.float32(mean * text.tokens)[None])
            writer.add_tensor(f"{gguf_name(name)}.counts", np.float32([[text.tokens]]))
        finish(writer)


def add_tensor(writer, checkpoint: Checkpoint, name: str, rows: np.ndarray, kind: str) -> None:
    """Add a tensor to a file in its place there: heads of q and k permuted as llama.cpp has them.

    Args:
        writer: of :func:`described`.
        checkpoint: of the model.
        name: of the tensor in the model.
        rows: its blocks, or float32.
        kind: their type, such as Q4_K or F32.
    """
    from gguf import GGMLQuantizationType

    if heads := permuted_heads(name, checkpoint.config):
        rows = permuted(rows, heads)
    writer.add_tensor(gguf_name(name), rows, raw_dtype=GGMLQuantizationType[kind])


def finish(writer) -> None:
    """Write what has been added, and close the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def described(checkpoint: Checkpoint, path: Path):
    """A writer of a file that has what describes the model.

    Raises:
        ValueError: gguf is not installed, or the settings of a folder say more than is written.
    """
    try:
        from gguf import GGUFReader, GGUFValueType, GGUFWriter
    except ImportError:
        raise ValueError(f"A GGUF file is {WITH}") from None

    config, container = checkpoint.config, checkpoint.container
    architecture = config["model_type"]
    writer = GGUFWriter(path, architecture)
    if isinstance(container, GGUFContainer):
        for field in GGUFReader(container.path).fields.values():
            if not field.name.startswith(("GGUF.", "general.architecture", "general.file_type", "split.")):
                inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], inner)
        return writer
    rope = config.get("rope_parameters") or {}
    scaled = config.get("rope_scaling") or rope
    if scaled.get("rope_type", "default") != "default" or architecture not in ("llama", "qwen2", "qwen3"):
        raise ValueError(
            f"{container.path.name} is written as GGUF by convert_hf_to_gguf.py of llama.cpp: plan that file."
        )
    for ours, theirs in KEYS.items():
        add = writer.add_float32 if ours == "rms_norm_eps" else writer.add_uint32
        add(f"{architecture}.{theirs}", config[ours])
    writer.add_rope_freq_base(config.get("rope_theta", rope.get("rope_theta", 10000.0)))
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for add in writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count:
        add(head)
    return writer
