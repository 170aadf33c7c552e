"""What a checkpoint says about its own quantization, in config.json and in files beside it."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path

from rdlib.models.json_file import read_object, without_nulls

FILES = (  # beside config.json
    "quantize_config.json",  # of auto-gptq and gptqmodel
    "quant_config.json",  # of early autoawq
    "quantization_config.json",  # of optimum
)
MODELOPT = "hf_quant_config.json"  # of NVIDIA's ModelOpt, one level deeper
SYNONYMS = {"w_bit": "bits", "q_group_size": "group_size", "checkpoint_format": "format"}
DECISIVE = ("quant_method", "bits", "group_size", "sym", "desc_act", "format", "version")  # for decoding


class Settings:
    """The settings of the quantization of a checkpoint; none where it is not quantized.

    A null is absent, and so is an empty ``quantization_config``.

    Args:
        folder: whose files are read.
        config: config.json, without nulls.

    Raises:
        ValueError: a file is no JSON object, or two files contradict each other.
    """

    def __init__(self, folder: Path, config: Mapping[str, object]):
        self.folder = folder.name
        self._settings: dict[str, object] = {}
        self._file_of: dict[str, str] = {}
        of_text = config.get("text_config", {})  # a decoder in a larger model
        for part in (config, of_text if isinstance(of_text, Mapping) else {}):
            if isinstance(part.get("quantization"), Mapping):
                self._add("config.json", {"quant_method": "mlx"})
            self._add("config.json", part.get("quantization_config", {}))
        for file in FILES:
            if (folder / file).is_file():
                self._add(file, without_nulls(read_object(folder / file, self.folder)))
        if (folder / MODELOPT).is_file():
            found = without_nulls(read_object(folder / MODELOPT, self.folder)).get("quantization")
            self._add(
                MODELOPT, {"quant_method": "modelopt", **found} if isinstance(found, Mapping) else found
            )

    def __bool__(self) -> bool:
        return bool(self._settings)

    def _add(self, file: str, settings: object) -> None:
        if not isinstance(settings, Mapping):
            raise ValueError(f"{file} of {self.folder} holds {settings!r} where settings should be.")
        for key, value in settings.items():
            name = SYNONYMS.get(key, key)
            if isinstance(value, str):
                value = value.lower()
            if name in DECISIVE and value != self.get(name, value):
                raise ValueError(
                    f"{file} of {self.folder} says {key} = {value!r}, but {self._file_of[name]} says "
                    f"{self.get(name)!r}."
                )
            if name not in self._settings:
                self._settings[name], self._file_of[name] = value, file

    def overridden(self, own: Mapping[str, object]) -> "Settings":
        """These settings with some others in their place."""
        found = copy(self)
        found._settings = self._settings | {SYNONYMS.get(key, key): value for key, value in own.items()}
        return found

    def file_of(self, name: str) -> str:
        """The file that a setting is in; config.json for one that is not set."""
        return self._file_of.get(name, "config.json")

    def get(self, name: str, default: object = None) -> object:
        """A setting, or what holds where it is not set."""
        return self._settings.get(name, default)

    def one_of(self, name: str, *known: object) -> object:
        """A setting that has to have one of some values.

        Raises:
            ValueError: it has another.
        """
        value = self.get(name)
        if isinstance(value, bool) or value not in known:
            values = ", ".join(str(k) for k in known if k is not None)
            raise ValueError(
                f"{self.file_of(name)} of {self.folder} says {name} = {value!r}; known: {values}."
            )
        return value

    def group_size(self) -> int:
        """How many inputs share a scale; −1 for all of a row.

        Raises:
            ValueError: it is missing, or neither −1 nor positive.
        """
        value = self.get("group_size")
        if type(value) is not int or value < 1 and value != -1:
            raise ValueError(
                f"{self.file_of('group_size')} of {self.folder} says group_size = {value!r}, "
                "which is neither -1 nor a number of inputs."
            )
        return value

    def names(self, key: str) -> list[str]:
        """A setting that is a list of names; none where it is not set.

        Raises:
            ValueError: it is something else.
        """
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise ValueError(
                f"{self.file_of(key)} of {self.folder} says {key} = {value!r}, which are no names."
            )
        return value

    def refuse(self, *names: str) -> None:
        """Raise for settings that change the format in a way that is not read."""
        for name in names:
            if self.get(name):
                raise ValueError(
                    f"{self._file_of[name]} of {self.folder} sets {name}, which rdlib does not read."
                )

    @property
    def quant_method(self) -> str:
        """Which package wrote the checkpoint; files of before 2023 do not name it. Empty where it is not quantized."""
        if not self:
            return ""
        if self.get("load_in_4bit") or self.get("load_in_8bit"):
            return str(self.get("quant_method", "bitsandbytes"))
        return str(self.get("quant_method", "awq" if self.get("zero_point") is not None else "gptq"))

    @property
    def quantizers(self) -> list[str]:
        """Packages that gptqmodel and its heirs name in ``meta``."""
        meta = self.get("meta", {})
        named = meta.get("quantizer", []) if isinstance(meta, Mapping) else []
        return [str(name) for name in ([named] if isinstance(named, str) else named)]
