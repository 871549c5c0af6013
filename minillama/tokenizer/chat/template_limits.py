"""Limits for chat templates: a budget for work and memory, and what charges it.

Each loop iteration, each call and each 16 characters of new text are charged in advance. The budget is much larger than
ordinary templates need, and allows a few seconds of work.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from types import MappingProxyType

import jinja2
from jinja2.filters import FILTERS, do_indent, make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import SecurityError

BUDGET = 10_000_000
CHARACTERS = 16  # per unit of the budget
ITEM = 8  # units for a value that becomes text, and for each value inside a list or dictionary
CALL, MACRO = 8, 64  # units for a call, and the minimum for a macro of the template
MAX_INDENT = 64
MAX_BITS = 4096  # bits of an integer
# Jinja's filters, except those whose result can be much larger than their input. TEXT_FILTERS turn any value into text.
TEXT_FILTERS = (
    "capitalize", "e", "escape", "forceescape", "indent", "join", "lower", "replace", "safe", "string", "striptags",
    "title", "tojson", "trim", "truncate", "upper", "urlencode", "wordcount",
)  # fmt: skip
OTHER_FILTERS = (
    "abs", "attr", "count", "d", "default", "dictsort", "first", "float", "groupby", "int", "items", "last", "length",
    "list", "map", "max", "min", "reject", "rejectattr", "reverse", "round", "select", "selectattr", "sort", "sum",
    "unique",
)  # fmt: skip
FORBIDDEN_METHODS = frozenset({"center", "expandtabs", "ljust", "rjust", "to_bytes", "translate", "zfill"})
SEQUENCES = (str, bytes, list, tuple)
FORBIDDEN_FORMAT = re.compile(r"\d{4,}|\*|:[^}]*\{")


class BudgetExceeded(Exception):
    """The rendering has no budget left."""


@dataclass
class Budget:
    """Remaining units of a rendering; a macro call costs `macro` units."""

    left: int
    macro: int

    def spend(self, units: int) -> None:
        """Take units; BudgetExceeded if too few are left."""
        if units > self.left:
            raise BudgetExceeded("it does too much work")
        self.left -= units

    def charge_text(self, value: object) -> None:
        """Charge the text of a value, including all contents of lists and dictionaries."""
        units, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            units += ITEM + (len(item) // CHARACTERS if isinstance(item, str | bytes) else 0)
            if isinstance(item, dict):
                waiting.extend(item)
                waiting.extend(item.values())
            elif isinstance(item, list | tuple | set | frozenset):
                waiting.extend(item)
            if units > self.left:
                break
        self.spend(units)

    def charge_read(self, value: object) -> None:
        """Charge one pass over a value."""
        if isinstance(value, str | bytes):
            self.spend(1 + len(value) // CHARACTERS)
        elif isinstance(value, list | tuple | set | frozenset | dict | range):
            self.spend(1 + len(value))


# The budget of this thread's current rendering
_current: ContextVar[Budget] = ContextVar("budget")


@contextmanager
def rendering_budget(characters: int) -> Iterator[None]:
    """Set the budget of a rendering; `characters` is the length of the template."""
    token = _current.set(Budget(BUDGET, macro=MACRO + characters // CHARACTERS))
    try:
        yield
    finally:
        _current.reset(token)


def charge_call(called: object, arguments: tuple[object, ...], *, macro: bool) -> tuple[object, ...]:
    """Charge a call; SecurityError for a method with a possibly much larger result.

    Returns the arguments for the call: `join` gets a list in place of an iterator.
    """
    budget = _current.get()
    budget.spend(budget.macro if macro else CALL)
    method = getattr(called, "__wrapped__", called)  # Jinja wraps str.format
    owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
    if name in FORBIDDEN_METHODS:
        raise SecurityError(f"the method {name!r} is not allowed")
    if isinstance(owner, str):
        budget.charge_read(owner)
        if name in ("format", "format_map"):
            _check_format(owner)
        elif name == "replace" and len(arguments) >= 2:
            _charge_replace(owner, arguments[0], arguments[1])
        elif name == "join" and arguments:
            return (_charge_join(owner, arguments[0]), *arguments[1:])
    return arguments


def charge_operator(operator: str, left: object, right: object) -> None:
    """Charge `+`, `*`, `**` or `%`, whose results can be large."""
    if operator == "%":
        _check_format(left)
    elif isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 1) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise SecurityError(f"the number is too large for {operator}")
    elif operator == "*":
        sized, count = (left, right) if isinstance(right, int) else (right, left)
        if isinstance(sized, SEQUENCES) and isinstance(count, int):
            _current.get().spend(len(sized) * max(count, 0) // (CHARACTERS if isinstance(sized, str) else 1))
    elif isinstance(left, SEQUENCES) and isinstance(right, SEQUENCES):
        _current.get().spend(1 + (len(left) + len(right)) // CHARACTERS)


@jinja2.pass_context
def charge_loop(context: Context, items: Iterable[object], weight: int) -> list[object]:
    """Charge a loop in advance, `weight` units per iteration, and return its items."""
    listed = list(items)
    _current.get().spend(weight * len(listed))
    return listed


@jinja2.pass_context
def charge_concat(context: Context, items: list[object]) -> str:
    """Charge and compute the concatenation `~`."""
    _current.get().charge_text(items)
    return "".join(map(str, items))


@jinja2.pass_context
def charge_output(context: Context, value: object) -> object:
    """Charge a value that is written to the output."""
    _current.get().charge_text(value)
    return value


def _charged(function: Callable[..., object], charge: Callable[[Budget, object], None]) -> Callable[..., object]:
    """Wrap a filter so that it charges all its arguments first."""

    @wraps(function)  # keeps Jinja's mark for a first argument that is the context or environment
    def charged(*arguments: object, **named: object) -> object:
        budget = _current.get(None)
        if budget is not None:  # None during constant folding at compile time
            for value in (*arguments, *named.values()):
                charge(budget, value)
        return function(*arguments, **named)

    return charged


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Hugging Face's tojson, which keeps all characters; Jinja's own escapes for HTML."""
    _check_indent(indent)
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    _check_indent(width)
    return do_indent(text, width, first, blank)


@jinja2.pass_context  # prevents a call at compile time
def _replace(context: Context, text: object, old: str, new: str, count: int | None = None) -> str:
    _charge_replace(str(text), old, new)
    return str(text).replace(old, new, -1 if count is None else count)


@jinja2.pass_context
def _join(context: Context, items: Iterable[object], d: str = "", attribute: str | int | None = None) -> str:
    if attribute is not None:
        items = map(make_attrgetter(context.environment, attribute), items)
    return str(d).join(map(str, _charge_join(str(d), items)))


def _charge_replace(text: str, old: object, new: object) -> None:
    if isinstance(old, str) and isinstance(new, str):
        _current.get().spend((text.count(old) * len(new) + len(text)) // CHARACTERS)


def _charge_join(separator: str, items: Iterable[object]) -> list[object]:
    listed = list(items)
    budget = _current.get()
    budget.charge_text(listed)
    budget.spend(len(listed) * len(separator) // CHARACTERS)
    return listed


def _check_format(text: object) -> None:
    if isinstance(text, str | bytes) and FORBIDDEN_FORMAT.search(
        text if isinstance(text, str) else text.decode("latin-1")
    ):
        raise SecurityError(f"the format {text[:40]!r} is too wide")


def _check_indent(width: object) -> None:
    if (len(width) if isinstance(width, str) else width or 0) > MAX_INDENT:
        raise SecurityError(f"an indent of more than {MAX_INDENT} is not allowed")


_ALL = FILTERS | {"indent": _indent, "join": _join, "replace": _replace, "tojson": _tojson}
CHARGED_FILTERS: Mapping[str, Callable[..., object]] = MappingProxyType(
    {name: _charged(_ALL[name], Budget.charge_text) for name in TEXT_FILTERS}
    | {name: _charged(_ALL[name], Budget.charge_read) for name in OTHER_FILTERS}
)
