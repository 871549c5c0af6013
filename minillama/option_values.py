"""Check the types of option values before they are used."""

import operator

from minillama.errors import OptionError, quoted


def as_int(value: object) -> int | None:
    """The Python int of a whole number, numpy's included; None for anything else, booleans included."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_int(name: str, value: object) -> int:
    """The Python int of an option; OptionError if it is no whole number."""
    if (number := as_int(value)) is None:
        raise OptionError(f"{name} is {quoted(value)}; expected a whole number")
    return number


def check_flag(name: str, value: object) -> None:
    """Raise OptionError if an option is not True or False."""
    if not isinstance(value, bool):
        raise OptionError(f"{name} is {quoted(value)}; expected True or False")


def check_text(name: str, value: object) -> None:
    """Raise OptionError if an option is neither a text nor None."""
    if not isinstance(value, str | None):
        raise OptionError(f"{name} is {quoted(value)}; expected a text")
