"""Integers between two bounds, as a GBNF expression over their digits.

They have as many digits as llama.cpp allows."""

from minillama.engine.grammar.json_schema.keywords import Schema, failure
from minillama.errors import quoted

MOST_DIGITS = 16


def integer_bounds(schema: Schema, path: str) -> tuple[int | None, int | None]:
    """The least and the greatest integer."""
    found: dict[str, int] = {}
    for name in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum"):
        value = schema.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
            raise failure(path, f"{name} is {quoted(value)}; expected a number within 64 bits")
        whole = int(value // 1)
        if name == "minimum":
            found[name] = whole + (whole != value)
        elif name == "exclusiveMaximum":
            found[name] = whole - (whole == value)
        else:
            found[name] = whole + (name == "exclusiveMinimum")
    low = max((found[name] for name in ("minimum", "exclusiveMinimum") if name in found), default=None)
    high = min((found[name] for name in ("maximum", "exclusiveMaximum") if name in found), default=None)
    if low is not None and high is not None and low > high:
        raise failure(path, f"no integer is at least {low} and at most {high}")
    return low, high


def integer_range(low: int | None, high: int | None) -> str:
    """Integers from low to high, both included.

    None: no bound on that side. One of them is given."""
    if low is not None and high is not None:
        return _between(low, high)
    if low is not None:
        return _at_least(low) if low >= 0 else f'"-" ({_between(0, -low)}) | {_at_least(0)}'
    assert high is not None
    if high < 0:
        return f'"-" ({_at_least(-high)})'
    return f'"-" [1-9] {_digits(0, MOST_DIGITS - 1)} | {_between(0, high)}'


def _between(low: int, high: int) -> str:
    if low < 0 and high < 0:
        return f'"-" ({_between(-high, -low)})'
    if low < 0:
        return f'"-" ({_between(0, -low)}) | {_between(0, high)}'
    parts, first = [], str(low)
    for length in range(len(first), len(str(high))):
        parts.append(_same_length(first, "9" * length))
        first = "1" + "0" * length
    return " | ".join([*parts, _same_length(first, str(high))])


def _at_least(low: int) -> str:
    length = len(str(low))
    return f"{_same_length(str(low), '9' * length)} | [1-9] {_digits(length, MOST_DIGITS - 1)}"


def _same_length(low: str, high: str) -> str:
    """Numbers of as many digits as both bounds."""
    common = next((i for i, (a, b) in enumerate(zip(low, high, strict=True)) if a != b), len(low))
    prefix = f'"{low[:common]}"' if common else ""
    if common == len(low):
        return prefix
    first, last, low, high = int(low[common]), int(high[common]), low[common + 1 :], high[common + 1 :]
    if not low:
        return f"{prefix} {_digit(first, last)}".strip()
    zeros, nines = "0" * len(low), "9" * len(low)
    parts = []
    reached = False
    if low == zeros:
        parts.append(f"{_digit(first, last - 1)} {_digits(len(low), len(low))}")
    else:
        parts.append(f"{_digit(first, first)} ({_same_length(low, nines)})")
        if first < last - 1:
            reached = high == nines
            parts.append(f"{_digit(first + 1, last if reached else last - 1)} {_digits(len(low), len(low))}")
    if not reached:
        parts.append(f"{_digit(last, last)} {_same_length(zeros, high)}")
    return f"{prefix} ({' | '.join(parts)})".strip()


def _digit(low: int, high: int) -> str:
    return f"[{low}]" if low == high else f"[{low}-{high}]"


def _digits(least: int, most: int) -> str:
    most = max(least, most)
    if least == most:
        return "[0-9]" if least == 1 else f"[0-9]{{{least}}}"
    return f"[0-9]{{{least},{most}}}"
