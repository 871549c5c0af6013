"""Check values that are given as token ids."""

from collections.abc import Iterable, Mapping, Set

from minillama.errors import OptionError, quoted
from minillama.option_values import as_int

_NO_IDS = (str, bytes, bytearray, memoryview, Mapping, Set)  # iterable, but not sequences of ids


def checked_ids(values: object, size: int, name: str = "ids") -> list[int]:
    """Python integers of a sequence of token ids.

    values: a list, a tuple, another sequence, or an integer array of one axis.
    size: number of tokens of the vocabulary. name: of the argument, for errors.
    Raises OptionError with the first value that is not an id.
    """
    axes = getattr(values, "ndim", 1)
    if axes != 1:
        raise OptionError(f"{name} is an array of {axes} axes; give token ids in one axis")
    if isinstance(values, _NO_IDS) or not isinstance(values, Iterable):
        raise OptionError(f"{name} is of type {type(values).__name__}; expected a sequence of token ids")
    found = values.tolist() if hasattr(values, "tolist") else list(values)
    if set(map(type, found)) - {int}:
        found = [_integer(value, f"{name}[{place}]") for place, value in enumerate(found)]
    if found and not (min(found) >= 0 and max(found) < size):
        wrong = next(value for value in found if not 0 <= value < size)
        raise OptionError(f"token id {wrong} is outside the vocabulary of {size}; ids are 0 to {size - 1}")
    return found


def checked_id(value: object, size: int) -> int:
    """The Python integer of one token id; raises OptionError if it is none."""
    number = _integer(value, "token")
    if not 0 <= number < size:
        raise OptionError(f"no token has the id {number}; expected 0 to {size - 1}")
    return number


def _integer(value: object, name: str) -> int:
    if (number := as_int(value)) is None:
        raise OptionError(f"{name} is {quoted(value)}; expected a token id, which is a whole number")
    return number
