"""Train the small Llama in ``rdlib/assets`` from a folder of text: seeded, resumable, on the CPU.

    python -m rdlib.tools.train CORPUS OUT --passes tinystories.txt=5 books=1

Every entry at the top of CORPUS (a ``.txt`` file or a folder of them) is a *source*; ``--passes`` says how
often each is read.  Training that was stopped goes on from the last checkpoint in OUT when the command is
given again.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rdlib.files import END, documents, sha256, whole

HOLD_OUT = {"test": range(0, 2), "valid": range(2, 4)}  # of the document's hash modulo 100


@dataclass(frozen=True)
class Recipe:
    """What determines the trained weights, besides the text."""

    passes: dict[str, float] = field(default_factory=dict)
    vocabulary: int = 2048
    hidden: int = 256
    intermediate: int = 768
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    window: int = 256  # tokens
    batch: int = 16  # windows
    learning_rate: float = 2e-3
    muon_rate: float = 0.0  # learning rate of Muon on the linear layers; 0: AdamW everywhere
    warmup: int = 100  # steps
    steps: int = 0  # stop after so many; 0: when the text is read
    cooldown: int = 0  # last steps, over which the learning rate falls to zero on a line
    weight_decay: float = 0.1
    seed: int = 0


# --- text ----------------------------------------------------------------------------------------------------


def read_documents(source: Path) -> Iterator[str]:
    """The documents of a source: what stands between END marks, or pieces of some 2,000 characters of a book."""
    for path in sorted(source.rglob("*.txt")) if source.is_dir() else [source]:
        text = path.read_text(encoding="utf-8")
        yield from documents(text) if END in text else pieces(text)


def pieces(text: str, size: int = 2000) -> Iterator[str]:
    """Cut a book at the first paragraph end after every ``size`` characters."""
    piece: list[str] = []
    for paragraph in text.split("\n\n"):
        piece.append(paragraph)
        if sum(map(len, piece)) >= size:
            yield "\n\n".join(piece)
            piece = []
    yield "\n\n".join(piece)


def split(corpus: Path) -> dict[str, dict[str, list[str]]]:
    """Documents by source and part (train, valid, test), each once; the part is fixed by the document's hash."""
    seen: set[str] = set()
    parts: dict[str, dict[str, list[str]]] = {}
    for source in sorted(p for p in corpus.iterdir() if p.is_dir() or p.suffix == ".txt"):
        parts[source.name] = {"train": [], "valid": [], "test": []}
        for text in map(str.strip, read_documents(source)):
            digest = sha256(" ".join(text.split()).encode())
            if not text or digest in seen:
                continue
            seen.add(digest)
            bucket = int(digest, 16) % 100
            part = next((name for name, buckets in HOLD_OUT.items() if bucket in buckets), "train")
            parts[source.name][part].append(text)
    if not parts:
        raise ValueError(f"{corpus} holds no text: put .txt files, or folders of them, into it.")
    return parts


def train_tokenizer(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level byte-pair encoding that puts END before every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END} $A", pair=f"{END} $A {END} $B", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> np.ndarray:
    """One stream of tokens, END before every text."""
    encodings = tokenizer._tokenizer.encode_batch(texts)
    return np.concatenate([np.asarray(e.ids, np.int64) for e in encodings] or [np.empty(0, np.int64)])


def schedule(streams: dict[str, np.ndarray], recipe: Recipe) -> np.ndarray:
    """All training windows in the order in which they are read, shape (steps·batch, window + 1).

    Each pass over a source starts at another offset, so that no window is ever the same.
    """
    rng = np.random.default_rng(recipe.seed)
    windows = []
    for name, passes in recipe.passes.items():
        stream, left = streams[name], passes
        while left > 0:
            offset = rng.integers(recipe.window)
            count = (len(stream) - offset - 1) // recipe.window
            starts = offset + recipe.window * rng.permutation(count)[: round(count * min(left, 1))]
            windows.append(stream[starts[:, None] + np.arange(recipe.window + 1)])
            left -= 1
    order = interleave([len(w) for w in windows], list(recipe.passes.values()), rng)
    windows = np.concatenate(windows)[order]
    return windows[: len(windows) // recipe.batch * recipe.batch]


def interleave(lengths: list[int], passes: list[float], rng: np.random.Generator) -> np.ndarray:
    """Order in which a source's later pass comes after its earlier one and the sources are evenly mixed."""
    position, block = [], iter(lengths)
    for total in passes:
        for k in range(math.ceil(total)):
            span = min(1.0, total - k)
            position.append((k + span * rng.random(next(block))) / total)
    return np.argsort(np.concatenate(position), kind="stable")


# --- training ------------------------------------------------------------------------------------------------


def build(recipe: Recipe) -> LlamaForCausalLM:
    """A Llama with the traits of Llama-3.2-1B: grouped-query attention, SwiGLU, RMSNorm, RoPE, tied embeddings."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        max_position_embeddings=recipe.window,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        use_cache=True,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def optimizers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """AdamW, or Muon on the matrices of the layers and AdamW on the rest; norms are not decayed.

    Each group has its learning rate as ``peak``, too.
    """
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" in n]
    rest = [p for n, p in model.named_parameters() if p.ndim == 2 and "layers" not in n]
    norms = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": rest}, {"params": norms, "weight_decay": 0.0}]
    adam = {"lr": recipe.learning_rate, "betas": (0.9, 0.95), "weight_decay": recipe.weight_decay}
    if recipe.muon_rate:
        opts = [torch.optim.AdamW(groups, **adam), Muon(matrices, recipe.muon_rate, recipe.weight_decay)]
    else:
        opts = [torch.optim.AdamW([{"params": matrices}, *groups], **adam)]
    for group in (group for opt in opts for group in opt.param_groups):
        group["peak"] = group["lr"]
    return opts


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton–Schulz, with updates of RMS 0.2 as AdamW's.

    References:
        Jordan 2024; Liu et al. 2025, arXiv:2502.16982.

    In float32: ``torch.optim.Muon`` iterates in bfloat16, which is ten times slower on a CPU without it.
    """

    def __init__(
        self, matrices: list[torch.nn.Parameter], lr: float, weight_decay: float, momentum: float = 0.95
    ):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                velocity = state.setdefault("velocity", torch.zeros_like(p))
                velocity.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonalised(p.grad.lerp(velocity, group["momentum"]))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)


def orthogonalised(G: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """About U Vᵀ of the singular value decomposition G = U S Vᵀ, by the quintic Newton–Schulz iteration."""
    a, b, c = 3.4445, -4.7750, 2.0315
    X = G.T if G.shape[0] > G.shape[1] else G
    X = X / (X.norm() + 1e-7)
    for _ in range(steps):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X.T if G.shape[0] > G.shape[1] else X


def learning_rate(step: int, steps: int, text: int, recipe: Recipe) -> float:
    """Linear warm-up, then half a cosine to zero at the end of the text, and a linear cool-down before that.

    As a fraction of the peak; ``steps`` are made of the ``text`` steps that the text has.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * step / text))
    return min((step + 1) / (recipe.warmup or 1), cosine) * min(1.0, (steps - step) / (recipe.cooldown or 1))


def loss_of(model: LlamaForCausalLM, windows: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy in nats of each token given those before it in its window."""
    with torch.autocast("cpu", torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
        logits = model(windows[:, :-1], use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), windows[:, 1:].flatten(), reduction=reduction
    )


@torch.no_grad()
def held_out_loss(
    model: LlamaForCausalLM, stream: np.ndarray, window: int, stride: int | None = None
) -> float:
    """Mean nats per token of a stream; each token is predicted from at least ``window − stride`` before it."""
    stride = stride or window
    starts = np.arange(0, len(stream) - 1, stride)
    total = count = 0.0
    for batch in np.array_split(starts, math.ceil(len(starts) / 16)):
        places = batch[:, None] + np.arange(window + 1)  # those beyond the end are not counted
        ids = torch.from_numpy(stream[np.minimum(places, len(stream) - 1)])
        fresh = (np.arange(window) >= window - stride) | (batch[:, None] == 0)
        counted = fresh & (places[:, 1:] < len(stream))
        losses = loss_of(model, ids, "none").view(len(batch), window)
        total += losses[torch.from_numpy(counted)].sum().item()
        count += counted.sum()
    return float(total / count)


@dataclass
class Trainer:
    """A model on its way through the text, in a folder from which it goes on after it was stopped.

    Args:
        recipe: what is trained.
        out: for ``checkpoint.safetensors``, the last state, and ``best.safetensors``, of the lowest validation loss.
        history: step, train and valid loss in nats per token of every validation.
    """

    recipe: Recipe
    out: Path
    history: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model = build(self.recipe)
        self.optimizers = optimizers(self.model, self.recipe)
        self.step = self._load() if (self.out / "checkpoint.safetensors").exists() else 0

    def run(self, windows: np.ndarray, valid: np.ndarray, every: int, compile: bool) -> None:
        """Train on windows (steps·batch, window + 1), validate after ``every`` steps, and keep the best weights."""
        text = len(windows) // self.recipe.batch
        steps = min(self.recipe.steps or text, text)
        model = torch.compile(self.model) if compile else self.model
        losses: list[float] = []
        for step in tqdm(range(self.step, steps), initial=self.step, total=steps, unit="step"):
            batch = torch.from_numpy(windows[step * self.recipe.batch : (step + 1) * self.recipe.batch])
            losses.append(self._update(loss_of(model, batch), learning_rate(step, steps, text, self.recipe)))
            if (step + 1) % every == 0 or step + 1 == steps:
                self._validate(step + 1, float(np.mean(losses)), valid)
                losses = []

    def _update(self, loss: torch.Tensor, rate: float) -> float:
        """One step of all optimizers, at a fraction of their peak rates; the loss."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for opt in self.optimizers:
            for group in opt.param_groups:
                group["lr"] = group["peak"] * rate
            opt.step()
            opt.zero_grad()
        return loss.item()

    def _validate(self, step: int, train: float, valid: np.ndarray) -> None:
        best = min((h["valid"] for h in self.history), default=math.inf)
        loss = held_out_loss(self.model, valid, self.recipe.window)
        self.history.append({"step": step, "train": train, "valid": loss})
        tqdm.write(json.dumps(self.history[-1]))
        if loss <= best:
            weights = {n: p.detach().to(torch.bfloat16) for n, p in self.model.named_parameters()}
            save_file(weights, self.out / "best.safetensors")
        self._save(step)

    def _save(self, step: int) -> None:
        """Write weights, optimizer state and loss curve to one safetensors file, atomically."""
        tensors = {f"model.{n}": p.detach() for n, p in self.model.named_parameters()}
        for k, opt in enumerate(self.optimizers):
            for i, state in opt.state_dict()["state"].items():
                tensors |= {f"opt.{k}.{i}.{name}": value for name, value in state.items()}
        meta = {"step": str(step), "history": json.dumps(self.history)}
        with whole(self.out / "checkpoint.safetensors") as unfinished:
            save_file({n: t.contiguous() for n, t in tensors.items()}, unfinished, metadata=meta)

    def _load(self) -> int:
        """Restore what :meth:`_save` wrote; the step."""
        path = self.out / "checkpoint.safetensors"
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            meta = file.metadata()
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(tensors[f"model.{name}"])
        for k, opt in enumerate(self.optimizers):
            state: dict[int, dict] = {}
            for name, value in tensors.items():
                if name.startswith(f"opt.{k}."):
                    _, _, i, key = name.split(".", 3)
                    state.setdefault(int(i), {})[key] = value
            opt.load_state_dict({**opt.state_dict(), "state": state})
        self.history = json.loads(meta["history"])
        return int(meta["step"])


def train(corpus: Path, out: Path, recipe: Recipe, every: int = 250, compile: bool = False) -> dict:
    """Train by the recipe; write the best weights as bfloat16, the tokenizer and the record; return the record."""
    out.mkdir(parents=True, exist_ok=True)
    parts = split(corpus)
    tokenizer = train_tokenizer((t for s in recipe.passes for t in parts[s]["train"]), recipe.vocabulary)
    streams = {s: encode(tokenizer, parts[s]["train"]) for s in recipe.passes}
    judge = parts[next(iter(recipe.passes))]  # the source that validates and tests
    valid, test = (encode(tokenizer, judge[part]) for part in ("valid", "test"))
    trainer = Trainer(recipe, out)
    trainer.run(schedule(streams, recipe), valid, every, compile)
    trainer.model.load_state_dict(load_file(out / "best.safetensors"), strict=False)
    record = {
        "recipe": asdict(recipe),
        "data_sha256": {name: hash_of_texts(corpus / name) for name in recipe.passes},
        "tokens": {s: len(t) for s, t in streams.items()},
        "tokens_seen": trainer.history[-1]["step"] * recipe.batch * recipe.window,
        "history": trainer.history,
        "test": tested(trainer.model, test, judge["test"], recipe.window),
    }
    trainer.model.to(torch.bfloat16).save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    (out / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    draw(trainer.history, out / "loss.png")
    return record


def tested(model: LlamaForCausalLM, stream: np.ndarray, texts: list[str], window: int) -> dict:
    """Perplexity and bits per character of held-out texts, by the stride of the windows."""
    characters = sum(map(len, texts))
    losses = {str(stride): held_out_loss(model, stream, window, stride) for stride in (window, window // 2)}
    per_character = (len(stream) - 1) / characters / math.log(2)
    return {
        "stories": len(texts),
        "characters": characters,
        "tokens": len(stream),
        "perplexity": {stride: math.exp(loss) for stride, loss in losses.items()},
        "bits_per_character": {stride: loss * per_character for stride, loss in losses.items()},
    }


def draw(history: list[dict], path: Path) -> None:
    """The loss curve as a picture."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.subplots()
    for part, look in (("train", {"color": "0.6"}), ("valid", {"color": "#0072B2", "marker": "o", "ms": 3})):
        ax.plot([h["step"] for h in history], [h[part] / math.log(2) for h in history], label=part, **look)
    ax.set(xlabel="step", ylabel="loss (bits per token)")
    ax.legend(frameon=False)
    ax.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def hash_of_texts(source: Path) -> str:
    """Hash of a text, or of the texts of a folder in the order of their names."""
    files = sorted(source.rglob("*.txt")) if source.is_dir() else [source]
    return sha256(b"".join(file.read_bytes() for file in files))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpus", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--compile", action="store_true", help="a few per cent faster; needs a C++ compiler")
    parser.add_argument("--passes", nargs="+", required=True, metavar="SOURCE=TIMES")
    for name, value in asdict(Recipe()).items():
        if name != "passes":
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    options = vars(parser.parse_args())
    corpus, out, compile = options.pop("corpus"), options.pop("out"), options.pop("compile")
    passes = {s: float(n) for s, n in (p.split("=") for p in options.pop("passes"))}
    print(json.dumps(train(corpus, out, Recipe(passes, **options), compile=compile)["test"]))


if __name__ == "__main__":
    main()
