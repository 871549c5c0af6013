"""Exceptions of minillama: each message is one line with thing, value and fix.

The command line prints that line and exits with status 2. A notebook shows it as the last line of the cell's output.
"""

import reprlib

from minillama.printable_text import printable_line


class MinillamaError(Exception):
    """Base class of all errors that minillama raises deliberately.

    Its text is one printable line, even if a name or a value in it is long or has control characters.
    """

    def __str__(self) -> str:
        return printable_line(super().__str__())


class FormatError(MinillamaError):
    """A malformed file: truncated, inconsistent or hostile."""


class UnsupportedError(MinillamaError):
    """A valid file or request that uses a feature minillama does not support."""


class NonFiniteError(MinillamaError):
    """A model that computes NaN or infinite numbers."""


class OptionError(MinillamaError):
    """An invalid option value, or options that contradict each other."""


class ResourceError(MinillamaError):
    """A missing or insufficient resource: a file, memory, a device or the network."""


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 64


def quoted(value: object) -> str:
    """A value as `repr` writes it, on one line and shortened."""
    return " ".join(_SHORT.repr(value).split())


def first_line(error: BaseException, *, with_type: bool = False, limit: int | None = None) -> str:
    """First line of an exception's message, or its type's name if that is empty.

    with_type: put the name of the type before the message. limit: maximum number of characters of the message.
    """
    name = type(error).__name__
    message = str(error).strip()
    if not message:
        return name
    line = printable_line(message.splitlines()[0][:limit])
    return f"{name}: {line}" if with_type else line
