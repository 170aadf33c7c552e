"""Functional distortion: how far the output Q of a changed network strays from the output P of the original."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from rdlib.network.windows import Windows

CHUNK = 1 << 16  # logits that are compared at a time: they stay in the processor's cache
QUANTILES = {"median": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
TOP = 256  # tokens that a truncated KL tells apart


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


@dataclass(frozen=True, eq=False, repr=False)
class Functional:
    """What separates Q from P, prediction by prediction.

    A prediction with a logit that is NaN or infinite is NaN in every quantity, and so is then every mean: it
    is counted in ``non_finite`` and never averaged away.

    Args:
        windows: the text, and the protocol by which it was cut.
        kl: KL(P‖Q) = Σ p ln(p/q) in nats.
        kl_top: the same with all tokens but the 256 that P finds most probable taken as one, as tools compute it that
            keep no more of P.  It is no larger than KL (log-sum inequality), and equal where no more tokens exist.
        reverse_kl: KL(Q‖P) in nats.
        total_variation: ½ Σ |p − q|.
        logits_mse: mean over the vocabulary of (z_p − z_q)².
        centred_mse: the same after the mean of z_p − z_q is taken out, which no probability depends on.
        agreement: 1 where the most probable token is the same, else 0.
        loss: −ln q(next token) in nats.
        reference_loss: −ln p(next token) in nats.
        non_finite: predictions with a logit that is NaN or infinite.

    References:
        Truncated KL: mlx-kld, github.com/sammcj/mlx-kld, ``--top-k-cache 256``; the inequality: Cover and Thomas,
        Elements of Information Theory, 2006, theorem 2.7.1.
    """

    windows: Windows
    kl: PerToken
    kl_top: PerToken
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
    def table(self) -> pd.DataFrame:
        """Mean, standard error, median and 99 % of what is read most, one row a quantity."""
        names = {"kl": "KL(P‖Q), nats", "agreement": "same top token", "loss": "loss of Q, nats"}
        names |= {"ln_perplexity_ratio": "ln of perplexities, Q over P", "total_variation": "total variation"}
        rows = {text: getattr(self, name) for name, text in names.items()}
        return pd.DataFrame(
            {text: (q.mean, q.error, q.quantile(0.5), q.quantile(0.99)) for text, q in rows.items()},
            index=["mean", "± error", "median", "99 %"],
        ).T

    def __repr__(self) -> str:
        return f"{self._protocol}\n{self.table.to_string(float_format='{:.4g}'.format)}"

    def _repr_html_(self) -> str:
        return f"<div>{self._protocol}</div>{self.table.to_html(border=0, float_format='{:.4g}'.format)}"

    @property
    def _protocol(self) -> str:
        missing = f"; {self.non_finite} predictions are not finite" if self.non_finite else ""
        return f"Q against P on {self.windows.protocol}{missing}"

    @property
    def row(self) -> dict[str, float]:
        """Every number, and the protocol, as one row of a table."""
        row: dict[str, float] = {}
        for name in ("kl", "reverse_kl"):
            quantity = getattr(self, name)
            row |= {name: quantity.mean, f"{name}_error": quantity.error, f"{name}_bits": quantity.bits.mean}
            row |= {f"{name}_{k}": quantity.quantile(q) for k, q in QUANTILES.items()}
        for name in (
            *("kl_top", "total_variation", "logits_mse", "centred_mse", "ln_perplexity_ratio", "agreement"),
        ):
            row |= {name: getattr(self, name).mean, f"{name}_error": getattr(self, name).error}
        row |= {"perplexity": self.perplexity, "reference_perplexity": self.reference_perplexity}
        row |= {"non_finite": self.non_finite, "predictions": self.kl.values.size}
        w = self.windows
        return row | {"windows": len(w), "window": w.length, "stride": w.stride, "bos": w.bos is not None}


def functional(windows: Windows, columns: Iterable[torch.Tensor]) -> Functional:
    """What :meth:`Distribution.compared` gave for the predictions of a text, in their order."""
    values = torch.cat(list(columns), dim=1).view(-1, *windows.targets.shape).numpy()
    return Functional(windows, *map(PerToken, values), int(np.isnan(values[0]).sum()))


class Distribution:
    """P at some predictions, in float64: computed once for all that is compared with it.

    Args:
        logits: (rows, vocabulary).
    """

    def __init__(self, logits: torch.Tensor):
        self.logits = logits.double()
        self.p, self.lse, self.top = _softmax(self.logits)
        self.likeliest = self.p.topk(min(TOP, logits.shape[-1])).indices
        self.rest = _rest(self.p, self.likeliest)

    def compared(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The quantities of :class:`Functional` in their order, (quantities, rows), on the CPU.

        Args:
            logits: of Q, (rows, vocabulary).
            target: the tokens that come next, (rows, 1).
        """
        own = (self.logits, self.p, self.lse, self.top, self.likeliest, self.rest)
        rows = max(1, CHUNK // logits.shape[-1])
        parts = zip(*(x.split(rows) for x in (*own, logits, target)), strict=True)
        return torch.cat([_compare(*P, Q.double(), t).cpu() for *P, Q, t in parts], dim=1)


def _compare(
    z_p: torch.Tensor,
    p: torch.Tensor,
    lse_p: torch.Tensor,
    top_p: torch.Tensor,
    likeliest: torch.Tensor,
    rest_p: torch.Tensor,
    z_q: torch.Tensor,
    target: torch.Tensor,
) -> torch.Tensor:
    """The quantities of :class:`Functional` in their order, each (rows,)."""
    q, lse_q, top_q = _softmax(z_q)
    d, shift = z_p - z_q, lse_p - lse_q  # ln p − ln q = d − shift
    kl = torch.linalg.vecdot(p, d) - shift
    kl_top = (p.gather(1, likeliest) * (d.gather(1, likeliest) - shift[:, None])).sum(-1)
    kl_top += rest_p * (rest_p / _rest(q, likeliest)).log()
    reverse_kl = shift - torch.linalg.vecdot(q, d)
    mse = (d * d).mean(-1)
    d -= d.mean(-1, keepdim=True)
    values = torch.stack(
        [
            kl,
            kl_top,
            reverse_kl,
            (p - q).abs_().sum(-1) / 2,
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


def _rest(p: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The probability of all other tokens, of each row; at least 10⁻³⁰⁸, so that it has a logarithm."""
    return p.scatter(1, tokens, 0).sum(-1).clamp_min(torch.finfo(p.dtype).tiny)


def _exp(x: float) -> float:
    return math.inf if x > 700 else math.exp(x)
