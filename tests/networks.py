"""Networks for tests: a small random Llama, the trained ones that are here, and windows of random tokens."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from rdlib.models.checkpoint import Checkpoint
from rdlib.models.hub import EMBEDDED
from rdlib.network.network import load_network
from rdlib.network.texts import load_tokenizer
from rdlib.network.windows import Windows, cut_windows, read_tokens

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


def bits_of(network: LlamaForCausalLM) -> dict[str, bytes]:
    """Every parameter and buffer, to the last bit."""
    state = dict(network.named_parameters(remove_duplicate=False)) | dict(network.named_buffers())
    return {name: tensor.cpu().numpy().tobytes() for name, tensor in state.items()}


def logits_of(network: LlamaForCausalLM, windows: Windows) -> torch.Tensor:
    """Logits of all windows at once, by a plain call of the network."""
    with torch.inference_mode():
        return network(torch.from_numpy(windows.ids[:, :-1])).logits
