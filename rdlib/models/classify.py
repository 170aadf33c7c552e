"""What each tensor of a checkpoint is: a weight, the code of one, a part of a code, a norm, a bias, a buffer.

It follows from names, types and neighbours, and from the settings of a quantization, which are held against each other:

* A tensor whose neighbours are scales, tables or zero points is a **code**, whatever its type: bytes of bitsandbytes
  are at times stored as bfloat16, and FP8 is a float type.
* An FP8 code with one scale of a granularity that is understood is decoded, see :class:`rdlib.models.weight.Scaled`.
  Every other code has a *fault*: its numbers are not weights, and are refused wherever weights are asked for.
* Beside a tensor of no usual float type whatever belongs to the same module is a part of its code, but for a bias.
* FP8 without a scale is taken as it is stored only if no other FP8 tensor has one, no settings say that the model
  is quantized, and none of its numbers is the largest of its type.
* Scales of inputs and of the cache of keys and values are no weights, and change none.

Scales for FP8 are named ``weight_scale`` (compressed-tensors, fbgemm, modelopt), ``weight_scale_inv`` (DeepSeek,
transformers; it multiplies, too) or ``scale_weight`` (ComfyUI).
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields, replace

from rdlib.models.settings import Settings
from rdlib.models.weight import FLOATS, FP8, Kind, Scaled, Weight

MULTIPLIERS = (
    "{leaf}_scale",
    "{leaf}_scale_inv",
    "scale_{leaf}",
    "{leaf}.scale",
    "{leaf}.scale_inv",
    "scale",
)
SCALES = {*FLOATS, *FP8, "F8_E8M0"}  # types of numbers that multiply; bytes may be exponents
_CODES = (  # leaves that no weight is called
    *("qweight", "weight_packed", "W_q", "trellis", "Qidxs", "codes"),
    *("weight._data", "_weight_qdata"),  # of quanto and torchao
)
_PART = re.compile(  # of the code of a leaf "weight", by what follows the name of its module
    r"(?:weight\.)?(?:.*(?:scale|zero_?point|absmax|quant_map|quant_state|codebook).*"
    r"|qzeros|zeros|biases|g_idx|perm|SCB|SCBt|weight_format|weight_shape)"
)
OF_INPUTS = re.compile(  # what belongs to inputs or to the cache of keys and values, and changes no weight
    r"(?:.*_)?(?:input|activation|act|output|[qkv])_(?:(?:global_)?scale(?:_ub)?|zero_point)|scale_(?:input|output)"
)
_NORM = re.compile(r".*norm.*\.weight")
_BUFFER = re.compile(r".*(?:inv_freq|masked_bias|position_ids|scaled_fp8)")


def classify(
    tensors: Mapping[str, Weight], settings: Settings, inputs_of: Mapping[str, int]
) -> dict[str, Weight]:
    """The same tensors with their kind; codes that can be decoded are :class:`Scaled`, the others have a fault.

    Args:
        tensors: of a whole checkpoint.
        settings: of its quantization.
        inputs_of: group → how many inputs config.json gives its matrices, where it does.
    """
    parts = _parts(tensors)
    owned = {part.name for found in parts.values() for part in found.values()}
    scaled = any(t.dtype in FP8 and parts.get(name) for name, t in tensors.items())
    found = {}
    for name, tensor in tensors.items():
        if name in owned or OF_INPUTS.fullmatch(name.rpartition(".")[2]):
            found[name] = replace(tensor, kind=Kind.SCALE)
        else:
            found[name] = _classified(tensor, parts.get(name, {}), settings, scaled, inputs_of)
    return found


def _parts(tensors: Mapping[str, Weight]) -> dict[str, dict[str, Weight]]:
    """Name of a weight or code → what lies beside it that only a code has, by the rest of its name."""
    found: dict[str, dict[str, Weight]] = defaultdict(dict)
    for name, tensor in tensors.items():
        owner, rest = _owner(name, tensors)
        if owner:
            found[owner][rest] = tensor
    return found


def _owner(name: str, tensors: Mapping[str, Weight]) -> tuple[str, str]:
    """The weight or code that a tensor is a part of, and the rest of its name; nothing where it is none."""
    words = name.split(".")
    for k in range(len(words) - 1, 0, -1):  # every way to take it for the name of a module and the rest
        stem, rest = ".".join(words[:k]), ".".join(words[k:])
        for code in (f"{stem}.{leaf}" for leaf in _CODES):
            if code in tensors and code != name and rest != "bias":
                return code, rest
        code = tensors.get(f"{stem}.weight")
        if code and rest not in ("weight", "bias") and (code.dtype not in FLOATS or _PART.fullmatch(rest)):
            return code.name, rest
    other = re.fullmatch(r"(.+)_scale(?:_inv)?", name)
    return (other[1], words[-1]) if other and other[1] in tensors else ("", "")


def _classified(
    tensor: Weight, parts: dict[str, Weight], settings: Settings, scaled: bool, inputs_of: Mapping[str, int]
) -> Weight:
    """A tensor that is no part of another's code."""
    beside = [rest for rest in parts if not OF_INPUTS.fullmatch(rest)]
    if tensor.fault:  # of its container
        return tensor
    if tensor.dtype in FP8:
        return _fp8(tensor, {rest: parts[rest] for rest in beside}, settings, scaled)
    kind = _plain_kind(tensor)
    coded = kind is Kind.WEIGHT and tensor.dtype not in FLOATS and settings
    if beside or coded or tensor.name.rpartition(".")[2] in _CODES:
        why = f"{_listed(beside)} beside it" if beside else f"it is {tensor.dtype}"
        return _code(tensor, why, settings)
    inputs = inputs_of.get(tensor.group)
    if inputs not in (None, 1) and tensor.shape[-1:] == (1,):
        return _code(
            tensor, f"its shape is {tensor.shape}, where config.json gives it {inputs} inputs", settings
        )
    return replace(tensor, kind=kind)


def _plain_kind(tensor: Weight) -> Kind:
    """What a tensor is that is stored as it is."""
    if _BUFFER.fullmatch(tensor.name):
        return Kind.BUFFER
    if _NORM.fullmatch(tensor.name) and len(tensor.shape) == 1:
        return Kind.NORM
    if tensor.name.endswith(".bias"):
        return Kind.BIAS
    return Kind.WEIGHT if tensor.group != "other" or len(tensor.shape) > 1 else Kind.UNKNOWN


def _fp8(tensor: Weight, beside: dict[str, Weight], settings: Settings, scaled: bool) -> Weight:
    """A tensor of 8-bit floats: decoded with its scale, or refused."""
    leaf = tensor.name.rpartition(".")[2]
    known = {rule.format(leaf=leaf) for rule in MULTIPLIERS}
    scale = next(iter(beside.values()), None)
    if len(beside) == 1 and beside.keys() <= known and scale.dtype in SCALES:
        shared = {f.name: getattr(tensor, f.name) for f in fields(Weight)}
        block = _block(settings)
        note = f"decoded with {scale.name} {scale.shape}{f', blocks of {block}' if block else ''}"
        more = {"kind": Kind.WEIGHT, "note": note, "scale": scale, "block": block}
        return Scaled(**shared | more)
    if beside:
        return _code(tensor, f"{_listed(beside)} beside it", settings)
    if scaled or settings:
        why = "other tensors of its type have a scale" if scaled else "the model is quantized"
        return _code(tensor, f"{why}, and none lies beside this one", settings)
    return replace(tensor, kind=Kind.WEIGHT, note=f"{tensor.dtype} without a scale, taken as it is stored")


def _block(settings: Settings) -> tuple[int, ...]:
    """How long blocks are along the last two axes, where the settings say so."""
    block = settings.get("weight_block_size")
    whole = isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block)
    return tuple(block) if whole else ()


def _code(tensor: Weight, why: str, settings: Settings) -> Weight:
    by = f", and the settings say {settings.quant_method}" if settings else ""
    fault = (
        f"{tensor.name} holds codes and no weights ({why}{by}): open the model with open_quantized, or analyse the "
        "one that it was made of."
    )
    return replace(tensor, kind=Kind.CODE, fault=fault)


def _listed(names: Mapping[str, Weight] | list[str]) -> str:
    names = sorted(names)
    return f"{', '.join(names[:3])}{', …' if len(names) > 3 else ''} {'lies' if len(names) == 1 else 'lie'}"
