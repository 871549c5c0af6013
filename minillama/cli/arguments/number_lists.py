"""Lists and ranges of numbers on the command line, as llama-bench reads them."""

import argparse
import re
from collections.abc import Callable

MOST_VALUES = 1000  # of one range; more is a typing error

_RANGE = re.compile(r"(-?[0-9]{1,9})(?:-([0-9]{1,9})(?:([+*])([0-9]{1,9}))?)?")


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


def read_list(least: int) -> Callable[[str], tuple[int, ...]]:
    """A parser of lists and ranges for argparse."""

    def read(text: str) -> tuple[int, ...]:
        try:
            return numbers(text, least=least)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read
