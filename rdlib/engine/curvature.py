"""The curvature of the KL at the model, layer by layer from the last: which errors of a matrix cost how much.

The labels of a text are drawn from the model itself.  Of L, the sum of the losses of a window, g is the gradient with
respect to what leaves a matrix.  The Fisher information of the matrix is E[∇L ∇Lᵀ], ∇L = Σ g xᵀ over the window; it is
the Hessian of the KL.  Its Kronecker form takes the positions as independent, and g as independent of x.

References:
    Martens and Grosse 2015 (K-FAC), arXiv:1503.05671; Kunstner et al. 2019, arXiv:1905.12558, for why labels are drawn
    from the model.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rdlib.engine.layers import STAGES, Layer, Layers
from rdlib.engine.moments import Moments, eigenvalues
from rdlib.engine.room import IN_MEMORY, Room
from rdlib.engine.text import Text, squares
from rdlib.models.checkpoint import Checkpoint
from rdlib.network.windows import Windows
from rdlib.theory import spectrum
from rdlib.weights import mean_square


@dataclass(frozen=True, eq=False)
class Curvature:
    """KL ≈ ½ tr(G E H Eᵀ) of an error E of one matrix, nats per token.

    Args:
        H: E[x xᵀ] of the inputs, (in, in) float64.
        G: Σ g gᵀ / predictions, (out, out) float64.
        trace: Σ ‖∇L‖² / predictions: the trace of the Fisher information, without the Kronecker form.
    """

    H: np.ndarray
    G: np.ndarray
    trace: float

    @property
    def kronecker_trace(self) -> float:
        """tr G · tr H: what the Kronecker form has for the trace."""
        return float(self.G.trace() * self.H.trace())

    @property
    def inputs(self) -> np.ndarray:
        """λ, the eigenvalues of H, (in,); computed once for all matrices of one input."""
        return eigenvalues(self.H)

    @property
    def outputs(self) -> np.ndarray:
        """γ, the eigenvalues of G, (out,)."""
        return spectrum(self.G)

    def alpha(self, W: np.ndarray) -> float:
        """α = ½ · mean w² · trace: KL for white noise of the power of W, (out, in), if it went on quadratically."""
        return mean_square(W) * self.trace / 2


def curvature(
    checkpoint: Checkpoint,
    windows: Windows,
    seed: int = 0,
    device: str | None = None,
    in_memory: int = IN_MEMORY,
) -> Iterator[dict[str, Curvature]]:
    """The curvature of the matrices of each layer by name, from the last layer to the first.

    In memory are one layer, its matrices' H and G, and the hidden states that enter every layer.

    Args:
        checkpoint: of the model.
        windows: of the text.
        seed: of the labels.
        device: see :class:`rdlib.engine.layers.Layers`.
        in_memory: bytes; hidden states that take more go to a temporary file.

    Raises:
        ValueError: the model cannot be run.
    """
    network = Layers(checkpoint, device)
    texts = [Text.embedded(network, windows, Room(in_memory))]
    for number in range(len(network)):
        hidden = texts[-1].hidden
        with network.layer(number) as layer:
            texts.append(texts[-1].passed(lambda batch, layer=layer, x=hidden: layer.run(x[batch])))
    gradient = texts.pop().hidden
    _backward_of_head(network, windows, gradient, seed)
    for number in reversed(range(len(network))):
        with network.layer(number) as layer:
            x = texts.pop().hidden
            yield _backward_of_layer(layer, windows, x, gradient)
            gradient = x


def _backward_of_head(network: Layers, windows: Windows, hidden: torch.Tensor, seed: int) -> None:
    """Replace what leaves the last layer by the gradient of L with respect to it, one window after another."""
    output, random = network.output(), torch.Generator().manual_seed(seed)
    for window in range(len(windows)):
        x = hidden[window].to(network.device).requires_grad_()
        with torch.enable_grad():
            logits = output.head(output.norm(x))[-windows.stride :]
            labels = torch.multinomial(logits.detach().softmax(-1).cpu(), 1, generator=random)[:, 0]
            loss = nn.functional.cross_entropy(logits, labels.to(network.device), reduction="sum")
        hidden[window] = torch.autograd.grad(loss, x)[0]


def _backward_of_layer(
    layer: Layer, windows: Windows, x: torch.Tensor, gradient: torch.Tensor
) -> dict[str, Curvature]:
    """The curvature of the matrices of a layer; x, what enters it, is replaced by the gradient with respect to it."""
    sums: dict[str, _Sums] = {}
    with ExitStack() as stack, torch.enable_grad():
        for key, module in layer.module.named_modules():
            if isinstance(module, nn.Linear):
                sums[key] = total = _Sums(wanted=key in STAGES)
                stack.callback(module.register_forward_pre_hook(total.enter).remove)
                stack.callback(module.register_full_backward_hook(total.leave).remove)
        for batch in windows.batches:
            inputs = x[batch].to(layer.network.device).requires_grad_()
            outputs = layer.forward(inputs)
            x[batch] = torch.autograd.grad(outputs, inputs, gradient[batch].to(outputs.device))[0]
    tokens, predictions = windows.tokens, windows.targets.size
    H = Moments({layer.prefix + key: sums[key].H / tokens for key in STAGES}, tokens)
    found = {}
    for key, total in sums.items():
        name = f"{layer.prefix}{key}.weight"
        found[name] = Curvature(H[name], total.G / predictions, total.trace / predictions)
    return found


class _Sums:
    """Σ x xᵀ where it is wanted, Σ g gᵀ, and the sum of ‖Σ g xᵀ‖² over windows, of one matrix."""

    def __init__(self, wanted: bool):
        self.wanted, self.H, self.G, self.trace = wanted, 0, 0, 0.0

    def enter(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        """Hook before the matrix is applied to x, (windows, length, in)."""
        self.x = inputs[0].detach()

    def leave(self, module: nn.Module, _: object, gradients: tuple[torch.Tensor, ...]) -> None:
        """Hook after the gradient g, (windows, length, out), has come to what leaves the matrix."""
        (g,) = gradients
        self.H = self.H + squares(self.x) if self.wanted else 0
        self.G = self.G + squares(g)
        self.trace += sum(float((b.T @ a).square().sum()) for a, b in zip(self.x, g, strict=True))
