"""NVIDIA ModelOpt: NVFP4, FP8 and MX, with settings in hf_quant_config.json or config.json.

    NVFP4  weight (e2m1, two a byte), weight_scale (e4m3 for 16 inputs), weight_scale_2 (float32), which multiplies
    FP8    weight (e4m3), weight_scale (float32) for the matrix, for each row, or for each block
    MX     weight (e4m3, or e2m1, two a byte), weight_scale (bytes for 32 inputs: powers of two)

weight_scale_2 is the reciprocal of what compressed-tensors calls weight_global_scale, so that products round otherwise,
and there is no −0.  ModelOpt decodes in bfloat16, to which it rounds the scale of FP8 first; kernels multiply by it in
float32.  Inputs that were scaled (``pre_quant_scale``, AWQ) are refused.

References:
    https://github.com/NVIDIA/Model-Optimizer, 0.47.0, ``quantization/qtensor``.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import ClassVar

from rdlib.checkpoints.affine import RoundedScale, TwoLevel
from rdlib.checkpoints.narrow_floats import read_fp8, read_mx, read_nvfp4, with_reciprocal
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.code.code import Code
from rdlib.models.checkpoint import Checkpoint

NVFP4, FP8, MX = "NVFP4", "FP8", "MX"
ALGORITHMS = {
    "nvfp4": (NVFP4, 4),
    "w4a16_nvfp4": (NVFP4, 4),
    "w4a8_nvfp4_fp8": (NVFP4, 4),
    "fp8": (FP8, 8),
    "fp8_per_channel_per_token": (FP8, 8),
    "fp8_pb_wo": (FP8, 8),
    "mxfp8": (MX, 8),
    "mxfp4": (MX, 4),
    "w4a8_mxfp4_fp8": (MX, 4),
    "mixed_precision": (None, 4),
}


class ModelOpt(Reader):
    """Layers of one format, or of several (MIXED_PRECISION)."""

    quant_methods: ClassVar[tuple[str, ...]] = ("modelopt", "modelopt_fp4", "modelopt_mixed")
    marks: ClassVar[tuple[str, ...]] = ("weight_scale", "weight_scale_2")
    streams: ClassVar[Mapping[str, str]] = {
        "weight": "index",
        "weight_scale": "scale",
        "weight_scale_2": "scale_scale",
    }

    def __init__(self, checkpoint: Checkpoint):
        settings = checkpoint.settings
        self.kind, self.bits = ALGORITHMS[settings.one_of("quant_algo", *ALGORITHMS)]
        self.excluded = [*settings.names("exclude_modules"), *settings.names("ignore")]
        self.size = settings.group_size() if settings.get("group_size") is not None else 16
        self.method = f"ModelOpt {self.kind or 'mixed'}{self.bits if self.kind == MX else ''}"

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        rows, columns = parts.shape("weight", 2)
        return rows, columns * 8 // self._format(parts)[1]

    def read(self, parts: LayerTensors) -> EncodedLayer:
        if "pre_quant_scale" in parts:
            raise ValueError(f"{parts.name('pre_quant_scale')} scales inputs, which rdlib does not read.")
        if any(fnmatch(parts.stem, pattern) for pattern in self.excluded):
            raise ValueError(f"{parts.stem} is quantized, but the settings exclude it.")
        kind, bits = self._format(parts)
        if self.kind not in (None, kind):
            raise ValueError(f"{parts.stem} is stored as {kind}, but the settings say {self.kind}.")
        if kind == NVFP4:
            names = "weight", "weight_scale", "weight_scale_2"
            return read_nvfp4(parts, "ModelOpt NVFP4", names, self.size, TwoLevel, "e2m1 with one zero")
        if kind == MX:
            return read_mx(parts, f"ModelOpt MXFP{bits}", ("weight", "weight_scale"), bits)
        return read_fp8(parts, "ModelOpt FP8", "weight_scale", None, RoundedScale, "bfloat16")

    def other_readings(self, name: str, code: Code) -> Mapping[str, Code]:
        """As compressed-tensors has NVFP4."""
        return with_reciprocal(code)

    def _format(self, parts: LayerTensors) -> tuple[str, int]:
        """What a layer is by its tensors, and the bits of an index."""
        if "weight_scale_2" in parts:
            return NVFP4, 4
        if parts.dtype("weight_scale") != "uint8":
            return FP8, 8
        return MX, 4 if parts.shape("weight", 2)[1] == 16 * parts.shape("weight_scale", 2)[1] else 8
