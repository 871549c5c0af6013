"""The one exception family: every message is a single line that names the thing, the value and the fix.

The command line prints the line and exits with status 2; a notebook shows it as the last line of the cell.
"""


class MinillamaError(Exception):
    """Base of all errors that minillama raises on purpose."""


class FormatError(MinillamaError):
    """A file is malformed: truncated, inconsistent or hostile."""


class UnsupportedError(MinillamaError):
    """A file or request is well formed but names something minillama does not know."""


class OptionError(MinillamaError):
    """An option has an impossible value, or options contradict each other."""


class ResourceError(MinillamaError):
    """Something needed is not there or too small: a file, memory, a device, the network."""
