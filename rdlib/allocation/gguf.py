"""A plan for llama.cpp: a type of GGUF for each matrix, the list that llama-quantize takes, and the file itself.

The KL of a plan is predicted by the quadratic law: α of a matrix, from one pass back through the model, times the
relative error of its output.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from rdlib.allocation.rules import lagrangian
from rdlib.checkpoints.llama_cpp import WITH, LlamaCpp, LlamaCppImportance, writable
from rdlib.engine import Curvature, Variant, curvature, walk
from rdlib.files import whole, write_whole
from rdlib.functional.divergence import Functional
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.gguf.model import GGUFContainer
from rdlib.models.gguf.names import gguf_name, permuted, permuted_heads
from rdlib.network import Windows, cut_windows, load_tokenizer, read_tokens
from rdlib.theory import ModelLimit, Share

TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "IQ4_NL")
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
    """Write ``tensor-types.txt`` and ``model.gguf`` of the best plan within a size, and say how good they are.

    Args:
        checkpoint: of the model.
        out: folder for both.
        calibration: text for H and α, by which types are chosen and written: in the box, or a file.
        evaluation: text for KL and the limit.
        tokens: of either text.
        bits: per weight of the linear layers; or
        gib: of the whole file, in units of 2³⁰ bytes.
        types: see :func:`options`.

    Returns:
        sentences: the size, KL predicted and measured, and the distance to the limit.

    Raises:
        ValueError: the size is too small, or the model has a form that is not read or written.
    """
    tokenizer = load_tokenizer(checkpoint.folder)
    length = min(WINDOW, checkpoint.config.get("max_position_embeddings", WINDOW), tokens)
    known, text = (
        cut_windows(read_tokens(name, tokenizer), length).take(max(tokens // length, 1))
        for name in (calibration, evaluation)
    )
    weights = sum(weight.size for weight in checkpoint.weights if weight.layer >= 0)
    budget = bits * weights if gib is None else 8 * (gib * 2**30 - outer_bytes(checkpoint))
    table = options(checkpoint, known, types)
    chosen = lagrangian(table, budget)
    types_of = chosen.set_index("tensor").option.to_dict()
    listed, file = out / "tensor-types.txt", out / "model.gguf"
    write_whole(listed, tensor_types(types_of))
    kl = write_gguf(checkpoint, types_of, file, known, text.take(JUDGED)).kl
    rate = chosen.bits.sum() / weights
    said = [
        f"{file}: {file.stat().st_size / 2**30:.3g} GiB, {rate:.3f} bits per weight of the linear layers; "
        f"embedding and head are {OUTER}.",
        f"KL: {kl.mean:.3g} ± {kl.error:.1g} nats per token on {text.take(JUDGED).protocol}; "
        f"predicted {chosen.cost.sum():.3g}.",
    ]
    if limit := limit_of(checkpoint, text):
        least = limit.rate(kl.mean)
        said.append(f"Limit for that KL: {least:.2f} bits; the file is {rate - least:.2f} above it.")
    else:
        said.append(
            "No limit: it takes 20 tokens for each input of the widest matrix: "
            f"--tokens {20 * widest(checkpoint)}, and a text that has as many."
        )
    return [
        *said,
        f"The same by llama-quantize: --tensor-type-file {out / 'tensor-types.txt'} and an imatrix.",
    ]


def options(checkpoint: Checkpoint, calibration: Windows, types: Sequence[str] = TYPES) -> pd.DataFrame:
    """What each linear layer may become, for :mod:`rdlib.allocation.rules`: tensor, option, bits, and cost in KL.

    Args:
        checkpoint: of the model.
        calibration: text for H and α.
        types: of GGUF; those whose blocks do not divide the rows of a matrix are no option for it.

    Raises:
        ValueError: a matrix has no type at all, or libgguf is not installed.
    """
    linear = [weight for weight in checkpoint.weights if weight.layer >= 0]
    fits = {w.name: writable(types, {w.shape[1]}) for w in linear}
    for name, (kinds, why) in fits.items():
        if not kinds:
            raise ValueError(f"There is no type for {name}. {why}")
    by_type = {kind: [name for name in fits if kind in fits[name][0]] for kind in types}
    tries = [Variant.by(k, names, LlamaCppImportance(k)) for k, names in by_type.items() if names]
    alpha = {n: c.alpha(checkpoint.tensor(n)) for n, c in curvatures(checkpoint, calibration)}
    found = walk(checkpoint, tries, calibration=calibration)
    rows = [
        [name, variant.label, LlamaCpp(variant.label).bits * row.weights, alpha[name] * row.relative_output]
        for variant in tries
        for name, row in found.of(variant).iterrows()
    ]
    return pd.DataFrame(rows, columns=["tensor", "option", "bits", "cost"])


def curvatures(checkpoint: Checkpoint, text: Windows) -> Iterator[tuple[str, Curvature]]:
    """The curvature of every linear layer, see :func:`rdlib.engine.curvature`."""
    for layer in curvature(checkpoint, text):
        yield from layer.items()


def limit_of(checkpoint: Checkpoint, text: Windows) -> ModelLimit | None:
    """The limit of the model by H, G and α of a text; None where it has fewer than 20 tokens an input."""
    if text.tokens < 20 * widest(checkpoint):
        return None
    return ModelLimit(
        {
            name: Share(found.alpha(checkpoint.tensor(name)), found.inputs, found.outputs)
            for name, found in curvatures(checkpoint, text)
        }
    )


def widest(checkpoint: Checkpoint) -> int:
    """Inputs of the widest linear layer."""
    return max(w.shape[1] for w in checkpoint.weights if w.layer >= 0)


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


@dataclass(frozen=True, eq=False)
class Blocks:
    """A tensor by a type of GGUF, whose bytes are left in a folder."""

    kind: str
    folder: Path

    @property
    def method(self) -> str:
        return f"llama.cpp {self.kind}"

    @property
    def bits(self) -> float:
        return LlamaCpp(self.kind).bits

    def make(self, name: str, W: np.ndarray, H: np.ndarray | None) -> tuple[np.ndarray, dict[str, float]]:
        quantizer = LlamaCppImportance(self.kind)
        rows = quantizer.blocks(W, H)
        np.save(self.folder / f"{name}.npy", rows)
        return quantizer.decoded(rows), {"rate": self.bits, "side_rate": float("nan")}


def write_gguf(
    checkpoint: Checkpoint,
    plan: Mapping[str, str],
    path: Path,
    calibration: Windows,
    evaluation: Windows | None = None,
) -> Functional | None:
    """Write a model as a GGUF file, each matrix by its type, with importance diag H; whole or not at all.

    Embedding and head are Q8_0, all else float32.  Metadata and tokenizer are those of a GGUF file; a folder's file
    has sizes and no tokenizer.

    Args:
        checkpoint: of the model.
        plan: name of each linear layer → type.
        path: of the file; one of this name is replaced.
        calibration: text for H.
        evaluation: text to judge the output by.

    Returns:
        how far the output of what was written strays from the model's, by the evaluation text.

    Raises:
        ValueError: the model has a form that GGUF does not have, or gguf or libgguf is not installed.
    """
    types = {n: OUTER for n, w in checkpoint.parameters.items() if w.layer < 0 and len(w.shape) == 2} | dict(
        plan
    )
    with TemporaryDirectory() as folder, whole(path) as unfinished:
        writer = described(checkpoint, unfinished)
        variant = Variant("file", {n: Blocks(kind, Path(folder)) for n, kind in types.items()})
        found = walk(checkpoint, [variant], evaluation, calibration)
        for name, weight in checkpoint.tensors.items():
            if name not in checkpoint.parameters and gguf_name(name) != name:
                continue  # a tied head
            made = Path(folder, f"{name}.npy")
            rows = np.load(made) if made.exists() else np.asarray(weight.values(), np.float32)
            add_tensor(writer, checkpoint, name, rows, types[name] if made.exists() else "F32")
        finish(writer)
    return found.outputs.get("file")


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
