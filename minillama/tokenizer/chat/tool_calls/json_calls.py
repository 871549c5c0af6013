"""Calls that are JSON objects: `{"name": "add", "arguments": {"a": 1}}`, alone or in an array.

Hermes and Qwen 3 write them between `<tool_call>` tags, Granite and Mistral as an array after a marker, and Llama 3
alone.
"""

import json
from collections.abc import Container, Generator
from dataclasses import dataclass

from minillama.tokenizer.chat.tool_calls.answer_feed import MAX_HEADER, AnswerFeed

NAMES = {"name", "tool_name", "function"}
ARGUMENTS = {"arguments", "parameters"}
IDS = {"id", "tool_call_id"}


@dataclass(frozen=True)
class JsonCalls:
    """Calls as JSON after one of the texts `starts`; texts `ends` after them are dropped.

    The other fields are for grammars. keys: of the name and of the arguments. is_array: calls stand in an array.
    id_key, id_gbnf: an id, as an expression of GBNF; is_id_first: before the name, not after the arguments.
    """

    starts: tuple[str, ...]
    ends: tuple[str, ...] = ()
    is_array: bool = False
    keys: tuple[str, str] = ("name", "arguments")
    id_key: str = "id"
    id_gbnf: str = ""
    is_id_first: bool = False

    def read(self, feed: AnswerFeed, start: str, tools: Container[str]) -> Generator[None, None, bool]:
        """Read one object or an array of them; False if there is no call."""
        yield from feed.blanks()
        is_array = (yield from feed.accept("[")) != ""
        yield from feed.blanks()
        before = feed.calls
        while (yield from _read_object(feed, tools)):
            yield from feed.blanks()
            if not is_array or not (yield from feed.accept(",")):
                break
            yield from feed.blanks()
        if feed.calls == before:
            return False
        if is_array:
            yield from feed.accept("]")
        return True


def _read_object(feed: AnswerFeed, tools: Container[str]) -> Generator[None, None, bool]:
    """Read one call; False if there is none, with nothing announced."""
    if not (yield from feed.accept("{")):
        return False
    name, call_id, early, announced = "", "", "", False
    while True:
        yield from feed.blanks()
        if (yield from feed.peek()) != '"':
            break
        key = yield from _read_string(feed)
        yield from feed.blanks()
        if not (yield from feed.accept(":")):
            break
        if key in ARGUMENTS and name and not announced:
            feed.announce(name, call_id)
            announced = True
            yield from _read_arguments(feed)
        elif announced:
            value = yield from _read_string(feed)
            if key in IDS and not call_id:
                feed.add_id(value)
        else:
            value = yield from _read_string(feed)
            if len(value) > MAX_HEADER:
                return False
            if key in NAMES:
                name = value if value in tools else ""
            elif key in ARGUMENTS:
                early = value
            elif key in IDS:
                call_id = value
        yield from feed.blanks()
        if not (yield from feed.accept(",")):
            break
    closed = (yield from feed.accept("}")) != ""
    if announced:
        return True
    if not name or not closed:
        return False
    feed.announce(name, call_id)
    feed.add_arguments(early or "{}")
    return True


def _read_arguments(feed: AnswerFeed) -> Generator[None, None, None]:
    """Read the arguments; some models write the object once more as a string."""
    yield from feed.blanks()
    if (yield from feed.peek()) == '"':
        feed.add_arguments((yield from _read_string(feed)) or "{}")
    else:
        yield from feed.json_value(feed.add_arguments)


def _read_string(feed: AnswerFeed) -> Generator[None, None, str]:
    """Read a JSON value: the text of a string, or the JSON of another value."""
    pieces: list[str] = []
    yield from feed.json_value(pieces.append)
    written = "".join(pieces)
    try:
        value = json.loads(written)
    except (ValueError, RecursionError):
        return written
    return value if isinstance(value, str) else written
