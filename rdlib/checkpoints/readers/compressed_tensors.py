"""compressed-tensors, as llm-compressor saves checkpoints for vLLM: integers and floats of 1 to 8 bits.

Which matrices are stored how: see :mod:`rdlib.checkpoints.config_groups`.  By format a matrix has

    pack-quantized           weight_packed (int32, the fields of a row one after the other), weight_scale, weight_shape
    int-, naive-quantized    weight (int8), weight_scale
    float-, naive-quantized  weight (e4m3), weight_scale
    nvfp4-pack-quantized     weight_packed (e2m1, two a byte), weight_scale (e4m3), weight_global_scale, which divides
    mxfp4-, mxfp6-pack-…     weight_packed (e2m1, or four e2m3 in three bytes), weight_scale (bytes: powers of two)
    mxfp8-quantized          weight (e4m3), weight_scale (bytes: powers of two)

and what else :mod:`rdlib.checkpoints.tiles` has: zero points, the group of every input.  Products are rounded to the
type of the scale, those of NVFP4 and MX to bfloat16.  recipe.yaml says whether AWQ folded scales into norms.

References:
    https://github.com/vllm-project/compressed-tensors, 0.20.0 and 0.14.0, ``compressors`` and ``forward_helpers.py``.
"""

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar

from rdlib.checkpoints.affine import TwoLevelInverse
from rdlib.checkpoints.config_groups import Schemes
from rdlib.checkpoints.narrow_floats import read_mx, read_nvfp4, with_reciprocal
from rdlib.checkpoints.parts import LayerTensors
from rdlib.checkpoints.reader import EncodedLayer, Reader
from rdlib.checkpoints.readers.awq import Awq
from rdlib.checkpoints.tiles import G_IDX, PACKED, SCALE, ZERO, read_tiles
from rdlib.code.code import Code
from rdlib.models.checkpoint import Checkpoint

GLOBAL = "weight_global_scale"


class CompressedTensors(Reader):
    """Layers of any format, each of its own."""

    quant_methods: ClassVar[tuple[str, ...]] = ("compressed-tensors",)
    marks: ClassVar[tuple[str, ...]] = (PACKED, SCALE, ZERO, GLOBAL, "weight_shape", G_IDX)
    streams: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys((PACKED, "weight"), "index"),
        **{SCALE: "scale", ZERO: "zero", GLOBAL: "scale_scale"},
        **{"weight_shape": "shape", G_IDX: "g_idx"},
    }

    def __init__(self, checkpoint: Checkpoint):
        settings, recipe = checkpoint.settings, checkpoint.folder / "recipe.yaml"
        settings.one_of("quantization_status", None, "compressed")
        settings.refuse("sparsity_config", "transform_config")
        self._schemes = Schemes(settings)
        count = Counter(self._schemes.of(stem) for stem in self.stems(checkpoint.names))
        most = max(count, key=count.get, default=self._schemes.first)
        self.bits, self.method = most.bits, f"compressed-tensors {most.label}"
        if recipe.is_file() and "AWQModifier" in recipe.read_text(encoding="utf-8", errors="replace"):
            self.scaled_norms = Awq.scaled_norms

    def shape(self, parts: LayerTensors) -> tuple[int, int]:
        scheme = self._schemes.of(parts.stem)
        if scheme.form == "pack-quantized":
            shape = parts.integers("weight_shape", "int64", "int32", dimensions=1)
            if len(shape) != 2 or (shape < 1).any():
                raise ValueError(f"{parts.name('weight_shape')} is {shape.tolist()}, and not (out, in).")
            return int(shape[0]), int(shape[1])
        rows, columns = parts.shape(PACKED if "-pack-" in scheme.form else "weight", 2)
        return rows, columns * 8 // scheme.bits

    def read(self, parts: LayerTensors) -> EncodedLayer:
        scheme = self._schemes.of(parts.stem)
        method, size = f"compressed-tensors {scheme.label}", scheme.tile[1]
        if scheme.form.startswith("nv"):
            return read_nvfp4(parts, method, (PACKED, SCALE, GLOBAL), size, TwoLevelInverse)
        if scheme.form.startswith("mx"):
            return read_mx(parts, method, (PACKED if PACKED in parts else "weight", SCALE), scheme.bits, size)
        return read_tiles(parts, method, scheme, self.shape(parts))

    def other_readings(self, name: str, code: Code) -> Mapping[str, Code]:
        """As ModelOpt has NVFP4."""
        return with_reciprocal(code)
