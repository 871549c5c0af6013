"""Values of options, read as llama.cpp reads them: words, numbers, lists and ranges.

Each function parses the text of one value, and raises ArgumentTypeError with the values that are possible.
"""

import logging
import re
from argparse import ArgumentTypeError
from collections.abc import Callable

logger = logging.getLogger("minillama")

TRUE, FALSE, AUTO = ("on", "enabled", "true", "1"), ("off", "disabled", "false", "0"), ("auto", "-1")
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
_FLOAT_MAX = 3.4028234663852886e38
_MAX_CORES = 512

MOST_VALUES = 1000  # of one range; more is a typing error

_RANGE = re.compile(r"(-?[0-9]{1,9})(?:-([0-9]{1,9})(?:([+*])([0-9]{1,9}))?)?")

_BLANK = r"[ \t\n\v\f\r]*"
_WHOLE = re.compile(_BLANK + r"([+-]?[0-9]+)")
_NUMBER = re.compile(
    _BLANK + r"([+-]?(?:inf(?:inity)?|nan|0x(?:[0-9a-f]+\.?[0-9a-f]*|\.[0-9a-f]+)(?:p[+-]?[0-9]+)?"
    r"|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?))",
    re.IGNORECASE,
)


def switch(text: str) -> bool:
    """`on` or `off`."""
    if text not in TRUE + FALSE:
        raise ArgumentTypeError("use on or off")
    return text in TRUE


def switch_or_auto(text: str) -> bool | None:
    """`on`, `off` or `auto`, which is None."""
    if text not in TRUE + FALSE + AUTO:
        raise ArgumentTypeError("use on, off or auto")
    return None if text in AUTO else text in TRUE


def integer(text: str) -> int:
    """A whole number of 32 bits (std::stoi)."""
    return _whole(text, INT_MIN, INT_MAX)


def integer_in(low: int, high: int = INT_MAX) -> Callable[[str], int]:
    """A parser of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        value = integer(text)
        if not low <= value <= high:
            raise ArgumentTypeError(
                f"expected a number from {low} to {high}" if high < INT_MAX else f"expected at least {low}"
            )
        return value

    return read


def unsigned(text: str) -> int:
    """A whole number of 64 bits (std::stoul): a negative one counts back from 2**64."""
    return _whole(text, -(2**64) + 1, 2**64 - 1) % 2**64


def seed(text: str) -> int:
    """A seed of 32 bits; -1 (2**32 - 1) is a random one."""
    value = unsigned(text) % 2**32
    return -1 if value == 2**32 - 1 else value


def number(text: str) -> float:
    """A decimal or hexadecimal number, `inf` or `nan` (std::stof)."""
    match = _NUMBER.match(text)
    if match is None:
        raise ArgumentTypeError("expected a number")
    value = float.fromhex(match[1]) if "x" in match[1].lower() else float(match[1])
    if _FLOAT_MAX < abs(value) < float("inf") or (abs(value) == float("inf") and "inf" not in match[1].lower()):
        raise ArgumentTypeError(f"expected a number of at most {_FLOAT_MAX:.3g}")
    _warn_of_rest(text, match, value)
    return value


def choice(*words: str) -> Callable[[str], str]:
    """A parser that accepts one of some words."""

    def read(text: str) -> str:
        if text not in words:
            raise ArgumentTypeError(f"use one of {', '.join(filter(None, words))}")
        return text

    return read


def list_of(kind: Callable[[str], object], separators: str = ",") -> Callable[[str], tuple[object, ...]]:
    """A parser of several values of one kind."""

    def read(text: str) -> tuple[object, ...]:
        return tuple(kind(part) for part in re.split(f"[{separators}]+", text))

    return read


def numbers(text: str, *, least: int = 0) -> tuple[int, ...]:
    """Parse a list of numbers and ranges.

    `512`, `128,256`, `1-4` (1 2 3 4), `0-1024+512` (0 512 1024) or `16-64*2` (16 32 64).
    Raises ValueError for other text and for a value below `least`.
    """
    values: list[int] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part!r} should be a number, or a range as 1-4, 0-1024+512 or 16-128*2")
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        step = int(match[4]) if match[4] else 1
        if min(first, last) < least:
            raise ValueError(f"{part!r} should be at least {least}")
        if last < first:
            raise ValueError(f"{part!r} ends before it begins")
        values += _range_values(part, first, last, match[3] or "+", step)
    return tuple(values)


def read_list(least: int) -> Callable[[str], tuple[int, ...]]:
    """A parser of lists and ranges for argparse."""

    def read(text: str) -> tuple[int, ...]:
        try:
            return numbers(text, least=least)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from error

    return read


def cpu_mask(text: str) -> str:
    """Hexadecimal digits, one bit for each core."""
    if not re.fullmatch(r"(0x)?[0-9a-fA-F]*", text) or not text:
        raise ArgumentTypeError("expected hexadecimal digits, as in 0xff")
    return text


def cpu_range(text: str) -> str:
    """The first and the last core: `0-3`; one of them may be missing."""
    match = re.fullmatch(r"([0-9]{0,9})-([0-9]{0,9})", text)
    if match is None or any(int(core or 0) >= _MAX_CORES for core in match.groups()):
        raise ArgumentTypeError(f"expected the first and the last core below {_MAX_CORES}, as in 0-3")
    return text


def tensor_placement(text: str) -> str:
    """Patterns of tensors, each with a type of buffer: `exps=CPU`."""
    if not all("=" in part for part in re.split("[,;]", text)):
        raise ArgumentTypeError("expected a pattern, = and a type of buffer, as in exps=CPU")
    return text


def _range_values(part: str, first: int, last: int, sign: str, step: int) -> list[int]:
    values = []
    value = first
    while value <= last:
        values.append(value)
        following = value + step if sign == "+" else value * step
        if following <= value or len(values) > MOST_VALUES:
            raise ValueError(f"{part!r} does not get to its end within {MOST_VALUES} values")
        value = following
    return values


def _whole(text: str, low: int, high: int) -> int:
    match = _WHOLE.match(text)
    if match is None:
        raise ArgumentTypeError("expected a whole number")
    if len(match[1]) > 40 or not low <= int(match[1]) <= high:
        raise ArgumentTypeError(f"expected a whole number from {low} to {high}")
    _warn_of_rest(text, match, int(match[1]))
    return int(match[1])


def _warn_of_rest(text: str, match: re.Match[str], value: float) -> None:
    """Warn if characters follow the number: llama.cpp ignores them."""
    if text[match.end() :].strip():
        logger.warning("the value %.60r is read as %s; what follows the number is ignored", text, value)
