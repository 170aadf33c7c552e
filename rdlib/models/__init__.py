"""A model on disk: which file holds which tensor, and what each tensor is."""

from rdlib.models.checkpoint import Checkpoint, Weight, open_checkpoint
from rdlib.models.hub import EMBEDDED, find_model
from rdlib.models.names import GROUPS, layer_and_group

__all__ = [
    "Checkpoint",
    "EMBEDDED",
    "find_model",
    "GROUPS",
    "open_checkpoint",
    "layer_and_group",
    "Weight",
]
