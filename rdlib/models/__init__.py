"""A model on disk: which file holds which tensor, and what each tensor is."""

from rdlib.models.checkpoint import Checkpoint, open_checkpoint
from rdlib.models.container import Container
from rdlib.models.hub import EMBEDDED, find_model
from rdlib.models.names import GROUPS, layer_and_group
from rdlib.models.weight import Kind, Weight
