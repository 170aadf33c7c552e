"""GGUF, the files of llama.cpp: the container, types of tensors, and what they say about a Llama."""

from rdlib.models.gguf.file import GGUF, TensorInfo
from rdlib.models.gguf.model import GGUFContainer, GGUFTensor
from rdlib.models.gguf.types import TYPES, named_type
