"""Which matrices of a checkpoint of compressed-tensors are stored how: ``config_groups`` and ``ignore``.

Each group has ``targets``: names of modules, regular expressions that begin with ``re:``, or classes such as Linear.
A name goes before an expression, and an expression before a class.

References:
    https://github.com/vllm-project/compressed-tensors, 0.20.0, ``utils/match.py`` and ``quantization/quant_args.py``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rdlib.models.settings import Settings

FORMATS = {  # numbers of what kind, and of how many bits, each may have
    "pack-quantized": (("int",), range(1, 9)),
    "int-quantized": (("int",), range(1, 9)),
    "naive-quantized": (("int", "float"), range(1, 9)),
    "float-quantized": (("float",), (8,)),
    "nvfp4-pack-quantized": (("float",), (4,)),
    "mxfp4-pack-quantized": (("float",), (4,)),
    "mxfp6-pack-quantized": (("float",), (6,)),
    "mxfp8-quantized": (("float",), (8,)),
}
FLOATS = {4: "e2m1", 6: "e2m3", 8: "e4m3"}  # the element of so many bits
MIXED = "mixed-precision"  # each group says its own


@dataclass(frozen=True)
class Scheme:
    """How the matrices of one group are stored.

    Args:
        form: a key of :data:`FORMATS`.
        kind: int or float.
        bits: of an index.
        tile: how many outputs and inputs share a scale; 0 for all.
        symmetric: whether there are no zero points.
        ordered: whether groups are of inputs that are no neighbours.
    """

    form: str
    kind: str
    bits: int
    tile: tuple[int, int]
    symmetric: bool
    ordered: bool

    @property
    def element(self) -> str:
        """The levels, a key of :data:`rdlib.checkpoints.affine.LEVELS`."""
        return f"int{self.bits}" if self.kind == "int" else FLOATS[self.bits]

    @property
    def label(self) -> str:
        """Name in tables and plots."""
        if self.form[:2] in ("nv", "mx"):
            return self.form.partition("-")[0].upper()
        rows, columns = self.tile
        granularity = {(0, 0): "tensor", (1, 0): "channel"}.get(self.tile) or (
            f"g{columns}" if rows == 1 else f"{rows} × {columns}"
        )
        return f"{'W' if self.kind == 'int' else 'FP'}{self.bits} {granularity}"


class Schemes:
    """The scheme of every module.

    Args:
        settings: of the checkpoint.

    Raises:
        ValueError: there are none, or a field of one is missing, unknown, or contradicts another.
    """

    def __init__(self, settings: Settings):
        self._where = f"{settings.file_of('config_groups')} of {settings.folder}"
        groups = settings.get("config_groups")
        if not isinstance(groups, Mapping) or not all(isinstance(g, Mapping) for g in groups.values()):
            raise ValueError(
                f"{self._where} says config_groups = {groups!r}, which are no groups of settings."
            )
        common = settings.get("format")
        self._by_target = {
            target: self._scheme(group, common)
            for group in groups.values()
            if group.get("weights") is not None
            for target in self._names(group.get("targets"), "targets")
        }
        if not self._by_target:
            raise ValueError(f"{self._where} has no group of config_groups with weights and targets.")
        self._ignored = self._names(settings.get("ignore", []), "ignore")
        self._ordered = sorted(self._by_target, key=lambda target: (target.startswith("re:"), target))

    @property
    def first(self) -> Scheme:
        """That of the first group."""
        return next(iter(self._by_target.values()))

    def of(self, module: str) -> Scheme:
        """The scheme of a module.

        Raises:
            ValueError: it is ignored, or no target.
        """
        if any(_matches(module, target) for target in self._ignored):
            raise ValueError(f"{module} is quantized, but {self._where} leaves it alone: ignore names it.")
        kind = "Embedding" if module.endswith("embed_tokens") else "Linear"
        for target in self._ordered:
            if _matches(module, target):
                return self._by_target[target]
        if kind in self._by_target:
            return self._by_target[kind]
        raise ValueError(f"{module} is quantized, but {self._where} names it in no target.")

    def _scheme(self, group: Mapping, common: object) -> Scheme:
        args = group["weights"]
        if not isinstance(args, Mapping):
            raise ValueError(f"{self._where} says weights = {args!r}, which are no settings.")
        form = group.get("format") or common
        known = [name for name in FORMATS if name == form]
        if not known:
            raise ValueError(f"{self._where} says format = {form!r}; known: {', '.join(FORMATS)}.")
        kinds, widths = FORMATS[form]
        kind = self._one_of(args, "type", "int", kinds)
        bits = self._one_of(
            args, "num_bits", 8, [n for n in widths if kind == "int" or n == 8 or n in FLOATS]
        )
        symmetric = self._one_of(args, "symmetric", True, (True, False) if kind == "int" else (True,))
        ordered = self._one_of(args, "actorder", None, (None, False, "weight", "static", "group", "dynamic"))
        return Scheme(form, kind, bits, self._tile(args), symmetric, ordered in ("group", "dynamic"))

    def _tile(self, args: Mapping) -> tuple[int, int]:
        size, block = args.get("group_size"), args.get("block_structure")
        default = "tensor" if size is None else "channel" if size == -1 else "group"
        match self._one_of(
            args, "strategy", default, ("tensor", "channel", "group", "tensor_group", "block")
        ):
            case "tensor":
                return 0, 0
            case "channel":
                return 1, 0
            case "block":
                if isinstance(block, str):  # 128x128, of early versions
                    block = [int(n) if n.isdecimal() else n for n in block.split("x")]
                if (
                    isinstance(block, list)
                    and len(block) == 2
                    and all(type(n) is int and n > 0 for n in block)
                ):
                    return block[0], block[1]
                raise ValueError(f"{self._where} says block_structure = {block!r}, which are not two sizes.")
        if type(size) is not int or size < 1:
            raise ValueError(f"{self._where} says group_size = {size!r}, which is no number of inputs.")
        return 1, size

    def _one_of(self, args: Mapping, key: str, default: object, known: Iterable) -> object:
        value = args.get(key)
        value = default if value is None else value
        value = value.lower() if isinstance(value, str) else value
        if not any(value is k or type(value) is type(k) and value == k for k in known):
            names = ", ".join(str(k) for k in known if k is not None)
            raise ValueError(f"{self._where} says {key} = {value!r}; known: {names}.")
        return value

    def _names(self, targets: object, key: str) -> list[str]:
        if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
            raise ValueError(f"{self._where} says {key} = {targets!r}, which are no names of modules.")
        for target in targets:
            try:
                re.compile(target.removeprefix("re:") if target.startswith("re:") else "")
            except re.error as error:
                raise ValueError(
                    f"{self._where} has the target {target!r}, which is no expression: {error}."
                ) from None
        return targets


def _matches(module: str, target: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return module == target
