"""Second moments H = E[x xᵀ] of what enters each linear layer: they say which errors of a matrix matter."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rdlib.models.weight import Weight
from rdlib.theory.output import sample_size_bias, spectrum
from rdlib.weights import remembered

SAME = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj"}  # reads the same input as


@dataclass(frozen=True, eq=False)
class Moments:
    """H = E[x xᵀ], (in, in) float64, of the inputs x of every linear layer and of the output head.

    ``moments[weight]`` is H for a weight matrix, by its name in the checkpoint.  q, k and v of a layer read the
    same input and have the same array, and so have gate and up.

    Args:
        inputs: module → H of its inputs; one module for each input, the arrays read-only.
        tokens: how many inputs the mean is over.
    """

    inputs: Mapping[str, np.ndarray]
    tokens: int

    def __post_init__(self) -> None:
        for H in self.inputs.values():
            H.setflags(write=False)

    def __getitem__(self, weight: str | Weight) -> np.ndarray:
        """H of the inputs of a weight matrix; that of a tied output head is ``lm_head.weight``.

        Raises:
            ValueError: it is the matrix of no linear layer.
        """
        name = weight.name if isinstance(weight, Weight) else weight
        if name not in self:
            raise ValueError(f"{name} is the matrix of no linear layer: its inputs have no second moments.")
        return self.inputs[_inputs_of(name)]

    def __contains__(self, name: str) -> bool:
        return _inputs_of(name) in self.inputs


def eigenvalues(H: np.ndarray) -> np.ndarray:
    """λ, the spectrum of H, (in,), ascending; computed once for all matrices that read the same input."""
    return remembered(H, "spectrum", lambda: spectrum(H))


def bias_of_limits(inputs: int, tokens: int) -> str:
    """How far a limit from H of so many tokens lies too low, as a sentence to print beside it.

    See :func:`rdlib.theory.sample_size_bias`; from 20 tokens an input on it is 0.02 bit and less.

    >>> bias_of_limits(100, 1000)
    'H from 1,000 tokens, 10 for each of the 100 inputs of the widest layer: a limit from it is too low by 0.04 bit, and by more since tokens depend on each other'
    """  # noqa: E501
    low = -sample_size_bias(inputs, tokens)
    if not np.isfinite(low):
        return (
            f"H from {tokens:,} tokens, fewer than the {inputs:,} inputs of the widest layer: it has no limit"
        )
    return (
        f"H from {tokens:,} tokens, {tokens / inputs:.0f} for each of the {inputs:,} inputs of the widest "
        f"layer: a limit from it is too low by {low:.2f} bit, and by more since tokens depend on each other"
    )


def _inputs_of(name: str) -> str:
    """The module whose inputs are those of a weight matrix."""
    block, dot, module = name.removesuffix(".weight").rpartition(".")
    return f"{block}{dot}{SAME.get(module, module)}"
