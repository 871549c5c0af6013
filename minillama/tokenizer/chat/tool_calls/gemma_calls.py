"""Calls of Gemma 4: a name, and arguments in a notation that becomes JSON.

<|tool_call>call:add{a:1,note:<|"|>one<|"|>,more:[true,{b:null}]}<tool_call|>
"""

import json
from collections.abc import Container, Generator
from dataclasses import dataclass

from minillama.tokenizer.chat.tool_calls.answer_feed import AnswerFeed
from minillama.tokenizer.chat.tool_calls.tagged_calls import as_json, quoted_part

QUOTE = '<|"|>'
DEEPEST = 60  # objects and arrays in each other

Reading = Generator[None, None, bool]


@dataclass(frozen=True)
class GemmaCalls:
    """Calls of this form: keys are plain text, strings stand between special quotes."""

    starts: tuple[str, ...] = ("<|tool_call>",)
    ends: tuple[str, ...] = ("<tool_call|>",)

    def read(self, feed: AnswerFeed, start: str, tools: Container[str]) -> Reading:
        """Read a call; False if there is none."""
        yield from feed.blanks()
        if not (yield from feed.accept("call:")):
            return False
        size = yield from feed.find("{")
        name = feed.held[: max(size, 0)].strip()
        if name not in tools:
            return False
        feed.take(size)
        feed.announce(name)
        yield from _read_value(feed, 0)
        return True


def _read_value(feed: AnswerFeed, depth: int) -> Reading:
    """Pass a value on as JSON; False where it is malformed or not complete."""
    yield from feed.blanks()
    if (yield from feed.accept(QUOTE)):
        feed.add_arguments('"')
        end = yield from feed.until((QUOTE,), lambda text: feed.add_arguments(quoted_part(text)))
        feed.add_arguments('"' if (yield from feed.accept(end)) else "")
        return bool(end)
    first = yield from feed.peek()
    if first in ("{", "[") and depth < DEEPEST:
        feed.add_arguments(feed.take(1))
        return (yield from (_read_members(feed, depth) if first == "{" else _read_items(feed, depth)))
    pieces: list[str] = []
    end = yield from feed.until((",", "}", "]"), pieces.append)
    feed.add_arguments(as_json("".join(pieces)) if end else "")
    return bool(end)


def _read_members(feed: AnswerFeed, depth: int) -> Reading:
    """Read the rest of an object."""
    comma = ""
    while True:
        yield from feed.blanks()
        if (yield from feed.accept("}")):
            feed.add_arguments("}")
            return True
        size = yield from feed.find(":", "}")
        if size < 0 or feed.held[size] == "}":
            return False
        key = feed.take(size + 1).removesuffix(":").replace(QUOTE, "").strip()
        feed.add_arguments(f"{comma}{json.dumps(key, ensure_ascii=False)}: ")
        if not (yield from _read_value(feed, depth + 1)):
            return False
        comma = ", "
        yield from feed.blanks()
        yield from feed.accept(",")


def _read_items(feed: AnswerFeed, depth: int) -> Reading:
    """Read the rest of an array."""
    comma = ""
    while True:
        yield from feed.blanks()
        if (yield from feed.accept("]")):
            feed.add_arguments("]")
            return True
        if (yield from feed.peek()) in ("", "}"):
            return False
        feed.add_arguments(comma)
        if not (yield from _read_value(feed, depth + 1)):
            return False
        comma = ", "
        yield from feed.blanks()
        yield from feed.accept(",")
