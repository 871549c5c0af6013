"""Calls in Python's notation, whose arguments become JSON: LFM2, OLMo 3.

<|tool_call_start|>[add(a=1, note="one"), other()]<|tool_call_end|>
"""

import ast
import json
import re
import warnings
from collections.abc import Callable, Container, Generator
from dataclasses import dataclass

from minillama.tokenizer.chat.tool_calls.answer_feed import AnswerFeed
from minillama.tokenizer.chat.tool_calls.tagged_calls import as_json, is_json

UNIT = re.compile(r"[^\"'\\()\[\]{},]+|\\.|[\"'()\[\]{},]", re.DOTALL)  # a backslash at the end waits for more
JSON_NAMES = {"true": True, "false": False, "null": None}


@dataclass(frozen=True)
class PythonCalls:
    """Calls after one of the texts `starts`; texts `ends` after them are dropped.

    is_list: a grammar writes them in brackets, with commas between.
    """

    starts: tuple[str, ...]
    ends: tuple[str, ...] = ()
    is_list: bool = True

    def read(self, feed: AnswerFeed, start: str, tools: Container[str]) -> Generator[None, None, bool]:
        """Read all calls of a list; False if there is none."""
        yield from feed.blanks()
        is_list = (yield from feed.accept("[")) != ""
        before = feed.calls
        while (yield from _read_call(feed, tools)):
            yield from feed.blanks()
            yield from feed.accept(",")
        if feed.calls == before:
            return False
        if is_list:
            yield from feed.accept("]")
        return True


def _read_call(feed: AnswerFeed, tools: Container[str]) -> Generator[None, None, bool]:
    """Read one call; False if there is none, and nothing but blanks read."""
    yield from feed.blanks()
    size = yield from feed.find("(", "]", "<")
    name = feed.held[: max(size, 0)].strip()
    if name not in tools or feed.held[size] != "(":
        return False
    feed.take(size + 1)
    feed.announce(name)
    feed.add_arguments("{")
    comma = ""
    while True:
        yield from feed.blanks()
        if (yield from feed.accept(")")):
            feed.add_arguments("}")
            return True
        size = yield from feed.find("=", ")")
        if size < 0 or feed.held[size] == ")":
            return True  # the answer ends here, or is malformed: the arguments stay open
        key = feed.take(size + 1).removesuffix("=").strip()
        feed.add_arguments(f"{comma}{json.dumps(key, ensure_ascii=False)}: ")
        pieces: list[str] = []
        if not (yield from _read_value(feed, pieces.append)):
            return True
        feed.add_arguments(python_to_json("".join(pieces).strip()))
        comma = ", "
        yield from feed.accept(",")


def _read_value(feed: AnswerFeed, sink: Callable[[str], None]) -> Generator[None, None, bool]:
    """Pass a value on, up to a comma or the end of the call.

    False at the end of the answer.
    """
    depth, quote = 0, ""
    while True:
        read = 0
        while (unit := UNIT.match(feed.held, read)) is not None:
            mark = unit[0]
            if quote:
                quote = "" if mark == quote else quote
            elif mark in ("'", '"'):
                quote = mark
            elif depth == 0 and mark in (",", ")"):
                sink(feed.take(read))
                return True
            elif mark in "()[]{}":
                depth += 1 if mark in "([{" else -1
            read = unit.end()
        sink(feed.take(read))
        if not (yield from feed.more()):
            return False


def python_to_json(text: str) -> str:
    """A value in Python's notation as JSON.

    Names of JSON are allowed, and any other text is a string.
    """
    if is_json(text):
        return text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes in strings
            tree = _Constants().visit(ast.parse(text, mode="eval"))
        return json.dumps(ast.literal_eval(tree), ensure_ascii=False, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return as_json(text)


class _Constants(ast.NodeTransformer):
    """Puts Python's constants in place of JSON's."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(JSON_NAMES[node.id]) if node.id in JSON_NAMES else node
