"""A model written as a GGUF file, a type for each matrix, and the importance that it was written with."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from rdlib.checkpoints.llama_cpp import WITH, LlamaCpp, LlamaCppImportance
from rdlib.engine import Variant, bar, walk
from rdlib.files import whole
from rdlib.functional.divergence import Functional
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.gguf.model import GGUFContainer
from rdlib.models.gguf.names import gguf_name, permuted, permuted_heads
from rdlib.network import Windows

OUTER = "Q8_0"  # of embedding and head, which a plan does not choose
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
        plan: name of a linear layer → its type, see :func:`rdlib.allocation.llama_cpp.tries`.
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


def outer_bytes(checkpoint: Checkpoint) -> int:
    """Bytes of a file beside those of the linear layers: embedding, head, norms, and what describes the model."""
    container = checkpoint.container
    described = METADATA
    if isinstance(container, GGUFContainer):
        described = min(info.offset for info in container.gguf.tensors.values())
    outer = [w for w in checkpoint.parameters.values() if w.layer < 0 or len(w.shape) == 1]
    bits = (LlamaCpp(OUTER).bits if len(w.shape) == 2 else 32 for w in outer)
    return described + sum(int(w.size * b / 8) + 32 for w, b in zip(outer, bits, strict=True))
