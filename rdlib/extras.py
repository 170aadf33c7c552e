"""What an extra of the package installs, and one sentence where it is missing."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(ImportError):
    """A package is not installed that an extra brings; the message says how to get it."""


@contextmanager
def extra(name: str, user: str) -> Iterator[None]:
    """Around imports: say which extra is missing where one of them fails.

    Args:
        name: of the extra, like ``models``.
        user: what needs it, for the message.

    Raises:
        MissingExtra: one of the imports is of a package that is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "rdlib").startswith("rdlib"):
            raise
        raise MissingExtra(f"{user} needs {error.name}: pip install 'rdlib[{name}]'") from None
