"""Networks for tests: a small random Llama, the trained ones that are here, and windows of random tokens."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rdlib.functional.divergence import Distribution, Functional, functional
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.hub import EMBEDDED
from rdlib.network.network import load_network, replaced
from rdlib.network.texts import load_tokenizer
from rdlib.network.windows import Windows, cut_windows, read_tokens
from rdlib.quantizers import Quantizer

ROOT = Path(__file__).parents[1]
TRAINED = [
    p for p in (EMBEDDED, ROOT.parent / "shared" / "models" / "stories260K") if (p / "config.json").exists()
]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
VOCABULARY = 50


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """On small networks threads only wait for each other; a module that imports this runs on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tiny(tied: bool = True, layers: int = 3, seed: int = 0) -> LlamaForCausalLM:
    """A random Llama of some ten thousand weights, large enough for its output to be far from uniform."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def sliding() -> Qwen2ForCausalLM:
    """The same with a window of three tokens in two of its four layers, which are neither the first nor neighbours."""
    torch.manual_seed(0)
    config = tiny().config.to_dict()
    kept = {key: config[key] for key in ("vocab_size", "hidden_size", "intermediate_size", "bos_token_id")}
    kept |= {key: config[key] for key in ("num_attention_heads", "num_key_value_heads", "initializer_range")}
    types = ["full_attention", "sliding_attention"] * 2
    config = Qwen2Config(
        **kept, num_hidden_layers=4, use_sliding_window=True, sliding_window=3, layer_types=types
    )
    return Qwen2ForCausalLM(config).eval().requires_grad_(False)


def saved(network: LlamaForCausalLM, folder: Path, **how: object) -> Checkpoint:
    """The checkpoint of a network, as ``save_pretrained`` writes it."""
    network.save_pretrained(folder, **how)
    return Checkpoint(folder)


def random_windows(count: int = 5, length: int = 12, seed: int = 0, **how: object) -> Windows:
    """Windows of uniform random tokens; the token 0 serves as BOS."""
    stride = how.get("stride") or length
    tokens = np.random.default_rng(seed).integers(1, VOCABULARY, length + stride * count)
    return cut_windows(tokens, length, **how).take(count)


def trained(folder: Path, count: int = 2, length: int = 128) -> tuple[LlamaForCausalLM, Checkpoint, Windows]:
    """A trained network with its checkpoint and some windows of the evaluation text."""
    checkpoint = Checkpoint(folder)
    windows = cut_windows(read_tokens("evaluation", load_tokenizer(folder)), length).take(count)
    return load_network(checkpoint, "cpu"), checkpoint, windows


def noisy(network: LlamaForCausalLM, *names: str, size: float = 0.1, seed: int = 1) -> dict[str, np.ndarray]:
    """Tensors of the network with Gaussian noise of so many of their own standard deviations."""
    rng = np.random.default_rng(seed)
    changed = {}
    for name in names:
        W = network.get_parameter(name).cpu().numpy()
        changed[name] = (W + size * (W.std() or 1) * rng.standard_normal(W.shape)).astype(np.float32)
    return changed


def inputs_of(network: LlamaForCausalLM, windows: Windows, names: list[str]) -> dict[str, torch.Tensor]:
    """What enters some matrices, (windows, length, in), by a plain call of the network."""
    inputs: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        for name in names:
            module = network.get_submodule(name.removesuffix(".weight"))
            hook = module.register_forward_pre_hook(lambda _, x, name=name: inputs.update({name: x[0]}))
            stack.callback(hook.remove)
        logits_of(network, windows)
    return inputs


def quantized_in_turn(
    network: LlamaForCausalLM, windows: Windows, quantizer: Quantizer, names: list[str]
) -> dict[str, np.ndarray]:
    """Ŵ of some matrices, layer by layer: H from plain calls of the network with all layers before as they became."""
    tensors = {}
    for layer in range(len(network.model.layers)):
        mine = [name for name in names if f".layers.{layer}." in name]
        with replaced(network, tensors):
            inputs = inputs_of(network, windows, mine)
        for name in mine:
            X = inputs[name].flatten(0, 1).double().numpy()
            code = quantizer.encode(network.get_parameter(name).numpy(), X.T @ X / len(X))
            tensors[name] = quantizer.decode(code)
    return tensors


def bits_of(network: LlamaForCausalLM) -> dict[str, bytes]:
    """Every parameter and buffer, to the last bit."""
    state = dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers())
    return {name: tensor.cpu().numpy().tobytes() for name, tensor in state.items()}


class Reference:
    """P by a plain call of the network: what a walk has to agree with."""

    def __init__(self, network: LlamaForCausalLM, windows: Windows):
        self.windows, self.logits = windows, logits_of(network, windows)[:, -windows.stride :]


def compare(network: LlamaForCausalLM, reference: Reference) -> Functional:
    """Q by a plain call of the network, against P."""
    windows = reference.windows
    return compare_logits(logits_of(network, windows)[:, -windows.stride :], reference)


def compare_logits(logits: torch.Tensor, reference: Reference) -> Functional:
    """Q, (windows, predictions, vocabulary), against P."""
    columns = []
    for P, Q, ids in zip(reference.logits, logits, reference.windows.targets, strict=True):
        columns.append(Distribution(P).compared(Q, torch.from_numpy(ids)[:, None]))
    return functional(reference.windows, columns)


@contextmanager
def bfloat16_rounding(network: LlamaForCausalLM) -> Iterator[None]:
    """The network with its weights, and what enters and leaves every module, rounded to bfloat16."""

    def rounded(value):
        if isinstance(value, tuple):
            return tuple(map(rounded, value))
        return value.bfloat16().float() if isinstance(value, torch.Tensor) else value

    weights = {name: rounded(W).numpy() for name, W in network.named_parameters()}
    with replaced(network, weights), ExitStack() as stack:
        for module in network.modules():
            if module not in (network, network.model):
                stack.callback(module.register_forward_hook(lambda m, x, y: rounded(y)).remove)
            if isinstance(module, torch.nn.Linear):
                stack.callback(module.register_forward_pre_hook(lambda m, x: rounded(x)).remove)
        yield


def logits_of(network: LlamaForCausalLM, windows: Windows) -> torch.Tensor:
    """Logits of all windows at once, by a plain call of the network."""
    with torch.inference_mode():
        return network(torch.from_numpy(windows.ids[:, :-1])).logits
