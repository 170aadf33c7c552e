"""Settings that hold for some matrices only, or leave them as they are.

``dynamic`` (gptqmodel) maps regular expressions to settings: the first that matches the name of a module decides, and
one that begins with ``-:`` leaves it as it is.  ``extra_config`` (AutoRound) maps names of modules to settings; 16 bits
leave it as it is.

References:
    https://github.com/ModelCloud/GPTQModel, ``QuantizeConfig.dynamic_get``; https://github.com/intel/auto-round.
"""

import re
from collections.abc import Mapping

from rdlib.models.settings import Settings


class Overrides:
    """The settings that each module has of its own.

    Args:
        settings: of the checkpoint.

    Raises:
        ValueError: they are no rules, or no regular expressions.
    """

    def __init__(self, settings: Settings):
        self._named = _rules(settings, "extra_config")
        try:
            self._patterns = [
                (rule.startswith("-:"), re.compile(re.sub(r"^[-+]:", "", rule)), own)
                for rule, own in _rules(settings, "dynamic").items()
            ]
        except re.error as error:
            raise ValueError(f"dynamic of {settings.folder} is no regular expression: {error}.") from None

    def of(self, module: str) -> Mapping[str, object]:
        """The settings of a quantized module, empty where it has none of its own.

        Raises:
            ValueError: it is to be left as it is.
        """
        for excludes, pattern, own in self._patterns:
            if pattern.match(module):
                if excludes:
                    raise ValueError(f"{module} is quantized, but dynamic excludes it from quantization.")
                return own
        own = self._named.get(module, {})
        if own.get("bits") == 16:
            raise ValueError(f"{module} is quantized, but extra_config leaves it in 16 bits.")
        return own


def _rules(settings: Settings, name: str) -> Mapping[str, Mapping[str, object]]:
    rules = settings.get(name, {})
    if not isinstance(rules, Mapping) or not all(isinstance(own, Mapping) for own in rules.values()):
        raise ValueError(
            f"{settings.file_of(name)} of {settings.folder} says {name} = {rules!r}, which are no rules."
        )
    return rules
