"""Functional distortion: how far the output Q of a changed network strays from the output P of the original."""

import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlamaForCausalLM

from rdlib.network.network import input_device
from rdlib.network.windows import Windows

IN_MEMORY = 2 << 30  # bytes of cached tensors; what is larger goes to a temporary file
CHUNK = 1 << 16  # logits that are compared at a time: they stay in the processor's cache
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@dataclass(frozen=True, eq=False)
class PerToken:
    """A quantity at every counted prediction.

    Args:
        values: (windows, predictions), float64.
    """

    values: np.ndarray

    def __sub__(self, other: "PerToken") -> "PerToken":
        """The paired difference: its error is that of two networks on the same text."""
        return PerToken(self.values - other.values)

    @property
    def mean(self) -> float:
        """Over all predictions; NaN where one is NaN."""
        return float(self.values.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean with windows as clusters, since neighbours in a text are alike.

        The standard deviation of the windows' means over √windows; NaN for a single window.
        """
        means = self.values.mean(axis=1)
        return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else float("nan")

    def quantile(self, share: float) -> float:
        """The value that a ``share`` of the predictions does not exceed; NaN where one is NaN."""
        return float(np.quantile(self.values, share))

    @property
    def bits(self) -> "PerToken":
        """Nats turned into bits."""
        return PerToken(self.values / math.log(2))


@dataclass(frozen=True, eq=False)
class Functional:
    """What separates Q from P, prediction by prediction.

    A prediction with a logit that is NaN or infinite is NaN in every quantity, and so is then every mean: it
    is counted in ``non_finite`` and never averaged away.

    Args:
        windows: the text, and the protocol by which it was cut.
        kl: KL(P‖Q) = Σ p ln(p/q) in nats.
        reverse_kl: KL(Q‖P) in nats.
        total_variation: ½ Σ |p − q|.
        logits_mse: mean over the vocabulary of (z_p − z_q)².
        centred_mse: the same after the mean of z_p − z_q is taken out, which no probability depends on.
        agreement: 1 where the most probable token is the same, else 0.
        loss: −ln q(next token) in nats.
        reference_loss: −ln p(next token) in nats.
        non_finite: predictions with a logit that is NaN or infinite.
    """

    windows: Windows
    kl: PerToken
    reverse_kl: PerToken
    total_variation: PerToken
    logits_mse: PerToken
    centred_mse: PerToken
    agreement: PerToken
    loss: PerToken
    reference_loss: PerToken
    non_finite: int

    @property
    def perplexity(self) -> float:
        """exp of the mean loss of Q, per token."""
        return _exp(self.loss.mean)

    @property
    def reference_perplexity(self) -> float:
        """exp of the mean loss of P, per token."""
        return _exp(self.reference_loss.mean)

    @property
    def ln_perplexity_ratio(self) -> PerToken:
        """ln of the perplexity of Q over that of P, token by token: its error is that of the pair."""
        return self.loss - self.reference_loss

    @property
    def row(self) -> dict[str, float]:
        """Every number, and the protocol, as one row of a table."""
        row: dict[str, float] = {}
        for name in ("kl", "reverse_kl"):
            quantity = getattr(self, name)
            row |= {name: quantity.mean, f"{name}_error": quantity.error, f"{name}_bits": quantity.bits.mean}
            row |= {f"{name}_{k}": quantity.quantile(q) for k, q in QUANTILES.items()}
        for name in ("total_variation", "logits_mse", "centred_mse", "ln_perplexity_ratio", "agreement"):
            row |= {name: getattr(self, name).mean, f"{name}_error": getattr(self, name).error}
        row |= {"perplexity": self.perplexity, "reference_perplexity": self.reference_perplexity}
        row |= {"non_finite": self.non_finite, "predictions": self.kl.values.size}
        w = self.windows
        return row | {"windows": len(w), "window": w.length, "stride": w.stride, "bos": w.bos is not None}


class Reference:
    """P: the logits of the original network on a text, computed once, in float32 and unclipped.

    Args:
        network: as it is now.
        windows: of the text.
        in_memory: bytes; logits that take more go to a temporary file, which ends with the object.

    Raises:
        ValueError: the text has tokens that the network does not know, a logit is NaN or infinite, or there
            is no room for the file.
    """

    def __init__(self, network: LlamaForCausalLM, windows: Windows, in_memory: int = IN_MEMORY):
        self.windows = windows
        self.logits = allocate((*windows.targets.shape, network.config.vocab_size), in_memory)
        for batch, logits in zip(windows.batches, forward(network, windows), strict=True):
            if not logits.isfinite().all():
                raise ValueError(
                    "The reference network gives NaN or infinite logits: it cannot be a reference."
                )
            self.logits[batch] = logits.cpu()


@torch.inference_mode()
def forward(network: LlamaForCausalLM, windows: Windows) -> Iterator[torch.Tensor]:
    """Logits of the predictions that count, batch by batch: (windows, stride, vocabulary), float32.

    Args:
        network: on any device, or spread over several by accelerate.
        windows: of the text.

    Raises:
        ValueError: the text has tokens that the network does not know.
    """
    known, used = network.config.vocab_size, (windows.ids.min(), windows.ids.max())
    if not 0 <= used[0] <= used[1] < known:
        raise ValueError(
            f"The text has tokens {used[0]} … {used[1]}, and the network knows 0 … {known - 1}: "
            "the tokenizer is that of another model."
        )
    for batch in windows.batches:
        inputs = torch.from_numpy(windows.ids[batch, :-1]).to(input_device(network))
        yield network(inputs, use_cache=False, logits_to_keep=windows.stride).logits


def compare(network: LlamaForCausalLM, reference: Reference) -> Functional:
    """How far the output Q of the network, as it is now, strays from P, prediction by prediction.

    Args:
        network: with the matrices that are judged, see :func:`rdlib.network.network.replaced`.
        reference: the logits of the original, and the text.

    Returns:
        KL, total variation and the like, in nats per token where they are information; see :class:`Functional`.

    Raises:
        ValueError: the text has tokens that the network does not know.
    """
    return compare_logits(forward(network, reference.windows), reference)


@torch.inference_mode()
def compare_logits(batches: Iterable[torch.Tensor], reference: Reference) -> Functional:
    """How far logits, in the batches of :func:`forward`, stray from the reference.

    In float64 and without clipping, so that KL(P‖P) is 0 and not almost 0.
    """
    windows = reference.windows
    columns = []
    for batch, logits in zip(windows.batches, batches, strict=True):
        targets = torch.from_numpy(windows.targets[batch]).flatten()
        rows = max(1, CHUNK // logits.shape[-1])
        parts = (x.flatten(0, -2).split(rows) for x in (reference.logits[batch], logits, targets[:, None]))
        for z_p, z_q, target in zip(*parts, strict=True):
            columns.append(_compare(z_p.to(z_q.device).double(), z_q.double(), target.to(z_q.device)).cpu())
    values = torch.cat(columns, dim=1).view(-1, *windows.targets.shape).numpy()
    non_finite = int(np.isnan(values[0]).sum())
    return Functional(windows, *map(PerToken, values), non_finite)


def _compare(z_p: torch.Tensor, z_q: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The quantities of :class:`Functional` in their order, each (rows,), of logits (rows, vocabulary)."""
    p, lse_p, top_p = _softmax(z_p)
    q, lse_q, top_q = _softmax(z_q)
    d, shift = z_p - z_q, lse_p - lse_q  # ln p − ln q = d − shift
    kl = torch.linalg.vecdot(p, d) - shift
    reverse_kl = shift - torch.linalg.vecdot(q, d)
    mse = (d * d).mean(-1)
    d -= d.mean(-1, keepdim=True)
    values = torch.stack(
        [
            kl,
            reverse_kl,
            p.sub_(q).abs_().sum(-1) / 2,
            mse,
            (d * d).mean(-1),
            (top_p == top_q).double(),
            lse_q - z_q.gather(1, target)[:, 0],
            lse_p - z_p.gather(1, target)[:, 0],
        ]
    )
    values[:, ~mse.isfinite()] = float("nan")
    return values


def _softmax(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities, ln Σ exp z, and the most probable token, of each row."""
    peak, top = z.max(-1, keepdim=True)
    p = (z - peak).exp_()
    total = p.sum(-1, keepdim=True)
    return p.div_(total), (peak + total.log())[:, 0], top[:, 0]


def allocate(shape: tuple[int, ...], in_memory: int = IN_MEMORY) -> torch.Tensor:
    """Room for float32 numbers: in memory, or in a temporary file where it takes more than so many bytes.

    Raises:
        ValueError: there is no room for the file.
    """
    size = 4 * math.prod(shape)
    if size <= in_memory:
        return torch.empty(shape)
    folder = tempfile.gettempdir()
    if size > shutil.disk_usage(folder).free:
        raise ValueError(f"{size / 1e9:.0f} GB do not fit in {folder}: use fewer windows, or set TMPDIR.")
    with tempfile.TemporaryFile() as file:  # the mapping outlives it
        return torch.from_numpy(np.memmap(file, np.float32, "w+", shape=shape))


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)
