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

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

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
FED_BY = {fed: layer for layer, fed in FEEDS.items()}


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
class Aligned(Mapping[str, EncodedLayer]):
    """The code of every layer of a checkpoint by its name, with a decoder whose Ŵ can be compared with W.

    A layer is read when it is asked for, and not held.  Layers that were left alone are among them, at the price of the
    width in which they are stored.  A decoder of scaled inputs is :class:`Unfolded`; its ``inner`` is the file's own.

    Args:
        quantized: the checkpoint.
        reference: the model that it was made of.
    """

    quantized: QuantizedCheckpoint
    reference: Checkpoint

    def __len__(self) -> int:
        return len(self.quantized.linear)

    def __iter__(self) -> Iterator[str]:
        return iter(self.quantized.linear)

    def __getitem__(self, name: str) -> EncodedLayer:
        """The code of a layer.

        Raises:
            ValueError: it cannot be read, or fits the reference better if the settings are not believed.
        """
        packed = self.quantized.packed(name)
        if layer_and_group(name)[0] == self._first:
            refuse_other_version(self.quantized, name, packed, self.reference.tensor(name))
        if not self.quantized.folds_scales:
            return packed
        s = self._columns(name)
        r = self._rows(name, packed, s) if self._is_folded(name) else np.ones(packed.code.shape[0])
        return EncodedLayer(packed.code, Unfolded(packed.decoder, r, s))

    @cached_property
    def _first(self) -> int:
        """The number of the first quantized layer."""
        return min((n for n, _ in map(layer_and_group, self.quantized.layers) if n >= 0), default=-1)

    def _columns(self, name: str) -> np.ndarray:
        """What every column was multiplied by, float64 (in,): by the rows of the layer before it, or by its norm."""
        block, role = _split(name)
        before = f"{block}.{FED_BY.get(role)}.weight"
        if before in self.quantized.linear and self._is_folded(before):
            return self._rows(before, self.quantized.packed(before), self._columns(before))
        return _scales_of_norm(self.quantized, self.reference, name)

    def _is_folded(self, name: str) -> bool:
        """Whether the rows of a layer are the inputs of another that is scaled."""
        block, role = _split(name)
        fed = f"{block}.{FEEDS.get(role)}.weight"
        return fed in self.quantized.linear and self.quantized.shape(fed)[1] == self.quantized.shape(name)[0]

    def _rows(self, name: str, packed: EncodedLayer, columns: np.ndarray) -> np.ndarray:
        """What every row was divided by, float64 (out,): 1 / s = ⟨ŵ, w⟩ / ⟨w, w⟩."""
        original = as_float32(self.reference.tensor(name)).astype(np.float64)
        inner, power = (packed.weight / columns * original).sum(axis=1), (original**2).sum(axis=1)
        factor = np.divide(inner, power, out=np.ones_like(power), where=power > 0)
        if (factor <= 0).any():
            raise ValueError(
                f"Row {int(np.argmin(factor))} of {name} has nothing in common with that of the reference."
            )
        return 1 / factor


def aligned(quantized: QuantizedCheckpoint, reference: Checkpoint) -> Aligned:
    """The layers of a checkpoint in the coordinates of the model that it was made of.

    Raises:
        ValueError: it was not made of the reference.
    """
    refuse_other_model(quantized, reference)
    return Aligned(quantized, reference)


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


def _split(name: str) -> tuple[str, str]:
    """``model.layers.3`` and ``mlp.up_proj`` of the name of a weight."""
    prefix, _, role = name.removesuffix(".weight").rpartition(".")
    block, _, part = prefix.rpartition(".")
    return block, f"{part}.{role}"
