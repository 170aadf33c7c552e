"""AWQ's scales undone: Ŵ in the coordinates of the weights that were quantized.

AWQ scales the inputs of a layer by 1/s, its columns by s, and folds 1/s into what comes before the layer, so that
the model computes the same function:

    q, k, v     Ŵ ≈ W·diag(s), and the norm before them became γ/s
    gate, up    the same, with the other norm
    down        Ŵ ≈ W·diag(s), and the rows of up were divided by s
    o           Ŵ ≈ W·diag(s), and the rows of v were divided by s: only where v has as many rows as o has inputs,
                so not under grouped-query attention

The scales of norms follow from s = γ / γ̂.  Those of rows were written down nowhere: a row of up (or v) is 1/s of
what it was, plus the error of rounding, and 1/s is the factor of least squares of the stored on the original row.
An error that is not correlated with the row does not bias it.  Comparing Ŵ with W as stored measures s and not
the error of quantization.

References:
    Lin et al. 2023, arXiv:2306.00978; autoawq 0.2.9, ``scale_ln_fcs`` and ``scale_fc_fc``.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from rdlib.checkpoints.identity import refuse_other_model, refuse_other_version
from rdlib.checkpoints.quantized import QuantizedCheckpoint
from rdlib.checkpoints.reader import EncodedLayer
from rdlib.code.code import Code
from rdlib.code.decoder import Decoder
from rdlib.models.checkpoint import Checkpoint
from rdlib.models.names import layer_and_group
from rdlib.weights import as_float32

BEFORE = {  # the norm before a layer
    "self_attn.q_proj": "input_layernorm",
    "self_attn.k_proj": "input_layernorm",
    "self_attn.v_proj": "input_layernorm",
    "mlp.gate_proj": "post_attention_layernorm",
    "mlp.up_proj": "post_attention_layernorm",
}
FEEDS = {
    "self_attn.v_proj": "self_attn.o_proj",
    "mlp.up_proj": "mlp.down_proj",
}  # rows of the one, columns of the other


@dataclass(frozen=True, eq=False)
class Unfolded(Decoder):
    """Ŵ = diag(r)·Ŵ'·diag(s)⁻¹, Ŵ' that of another decoder.

    r and s cost nothing: the norm before the layer and the rows of the layer before it hold them.

    Args:
        inner: of the layer as it is stored.
        rows: r, float64 (out,).
        columns: s, float64 (in,).
    """

    inner: Decoder
    rows: np.ndarray
    columns: np.ndarray

    @property
    def bits(self) -> int:
        return self.inner.bits

    @property
    def method(self) -> str:
        return self.inner.method

    def reconstruct(self, code: Code) -> np.ndarray:
        return (self.rows[:, None] * self.inner.decode(code) / self.columns).astype(np.float32)


@dataclass(frozen=True, eq=False)
class UnfoldedWeight:
    """A layer in the coordinates of the model that was quantized.

    Args:
        weight: Ŵ, float32 (out, in).
        residual: ‖W − Ŵ‖² / ‖W‖².
        folded_residual: the same of Ŵ as it is stored: the wrong number.
        rows: r, which the rows of the stored weight were divided by; ones where they were not.
        columns: s, which its columns were multiplied by.
    """

    weight: np.ndarray
    residual: float
    folded_residual: float
    rows: np.ndarray
    columns: np.ndarray


def unfold_awq(quantized: QuantizedCheckpoint, reference: Checkpoint) -> dict[str, UnfoldedWeight]:
    """Every layer of an AWQ checkpoint with its scales undone, and how far it is from the original.

    All layers are held at once; :func:`aligned` gives one at a time.

    Raises:
        ValueError: the checkpoint is not AWQ's, or was not made of the reference.
    """
    if not quantized.folds_scales:
        raise ValueError(f"{quantized.checkpoint.folder.name} is {quantized.method}, which folds no scales.")
    found = {}
    for name, packed in aligned(quantized, reference):
        W, decoder = as_float32(reference.tensor(name)).astype(np.float64), packed.decoder
        weight, stored, power = packed.weight, decoder.inner.decode(packed.code), (W**2).sum()
        residuals = [float(((W - x) ** 2).sum() / power) if power else 0.0 for x in (weight, stored)]
        found[name] = UnfoldedWeight(weight, *residuals, decoder.rows, decoder.columns)
    return found


def aligned(quantized: QuantizedCheckpoint, reference: Checkpoint) -> Iterator[tuple[str, EncodedLayer]]:
    """The name of every layer and its code, with a decoder whose Ŵ can be compared with the reference's W.

    Layers that were left alone are among them, at the price of the width in which they are stored.

    Raises:
        ValueError: the checkpoint was not made of the reference, or fits it better if its settings are not believed.
    """
    refuse_other_model(quantized, reference)
    columns: dict[str, np.ndarray] = {}  # of layers that are fed by one that came before
    first = min((n for n, _ in map(layer_and_group, quantized.layers) if n >= 0), default=-1)
    for name in quantized.linear:
        packed = quantized.packed(name)
        if layer_and_group(name)[0] == first:
            refuse_other_version(quantized, name, packed, reference.tensor(name))
        if quantized.folds_scales:
            s = columns.pop(name) if name in columns else _scales_of_norm(quantized, reference, name)
            r = np.ones(packed.code.shape[0])
            fed = _fed_by(name)
            if fed in quantized.linear and quantized.shape(fed)[1] == len(r):
                r = columns[fed] = _scales_of_rows(packed.weight / s, reference.tensor(name), name)
            packed = EncodedLayer(packed.code, Unfolded(packed.decoder, r, s))
        yield name, packed


def _scales_of_norm(quantized: QuantizedCheckpoint, reference: Checkpoint, name: str) -> np.ndarray:
    """The scales s = γ / γ̂ of the norm before a layer; ones where there is none, or where a channel is zero in both."""
    prefix, role = _split(name)
    norm = f"{prefix}.{BEFORE.get(role)}.weight"
    if norm not in quantized.checkpoint:
        return np.ones(quantized.shape(name)[1])
    original, stored = (
        as_float32(c.tensor(norm)[None])[0].astype(np.float64) for c in (reference, quantized.checkpoint)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(original == stored, 1.0, original / stored)
    if not (np.isfinite(s) & (s > 0)).all():
        raise ValueError(f"{norm} is not that of {reference.folder.name} divided by positive scales.")
    return s


def _scales_of_rows(stored: np.ndarray, W: np.ndarray, name: str) -> np.ndarray:
    """What every row was divided by, float64 (out,): 1 / s = ⟨ŵ, w⟩ / ⟨w, w⟩."""
    original = as_float32(W).astype(np.float64)
    inner, power = (stored * original).sum(axis=1), (original**2).sum(axis=1)
    factor = np.divide(inner, power, out=np.ones_like(power), where=power > 0)
    if (factor <= 0).any():
        raise ValueError(
            f"Row {int(np.argmin(factor))} of {name} has nothing in common with that of the reference."
        )
    return 1 / factor


def _fed_by(name: str) -> str:
    """The layer whose inputs the rows of a layer are, as far as AWQ folds scales from the one into the other."""
    prefix, role = _split(name)
    return f"{prefix}.{FEEDS.get(role)}.weight"


def _split(name: str) -> tuple[str, str]:
    """``model.layers.3`` and ``mlp.up_proj`` of the name of a weight."""
    prefix, _, role = name.removesuffix(".weight").rpartition(".")
    block, _, part = prefix.rpartition(".")
    return block, f"{part}.{role}"
