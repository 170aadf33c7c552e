"""What packages wrote, a file each; each is one :class:`rdlib.checkpoints.reader.Reader`."""

from rdlib.checkpoints.reader import Reader
from rdlib.checkpoints.readers.awq import Awq
from rdlib.checkpoints.readers.bitsandbytes import BitsAndBytes4
from rdlib.checkpoints.readers.compressed_tensors import CompressedTensors
from rdlib.checkpoints.readers.exl3 import Exl3
from rdlib.checkpoints.readers.fp8 import Fp8
from rdlib.checkpoints.readers.gguf import GGUFReader
from rdlib.checkpoints.readers.gptq import Gptq
from rdlib.checkpoints.readers.hqq import Hqq
from rdlib.checkpoints.readers.llm_int8 import BitsAndBytes8
from rdlib.checkpoints.readers.mlx import Mlx
from rdlib.checkpoints.readers.modelopt import ModelOpt

READERS: tuple[type[Reader], ...] = (
    *(GGUFReader, Gptq, Awq, BitsAndBytes4, BitsAndBytes8),
    *(CompressedTensors, Fp8, ModelOpt, Mlx, Exl3, Hqq),
)
