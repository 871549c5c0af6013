"""Calls with tags around each argument: Qwen 3 Coder, GLM 4, DeepSeek 3.2, MiniMax.

    <function=add>
    <parameter=a>
    1
    </parameter>
    </function>

The tags have no types. An argument is text if the tool's JSON schema has a string there; otherwise it is JSON.
"""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from minillama.tokenizer.chat.tool_calls.answer_feed import AnswerFeed, Wait

Schemas = Mapping[str, Mapping[str, Any]]  # JSON schemas of the parameters, by the tool's name
CONSTANTS = {"True": "true", "False": "false", "None": "null"}
CDATA = ("<![CDATA[", "]]>")
IS_TEXT, IS_JSON = ' string="true"', ' string="false"'  # DeepSeek's attributes


@dataclass(frozen=True)
class TaggedCalls:
    """Calls that begin with one of `starts`.

    name: texts before and after the name; the first of the second ones is read, unless it begins an argument or ends
    the call. argument: text before a key, text after it, and the text before the value. value_end, call_end: tags.
    lines: values stand on lines of their own. ends: texts after a call that are dropped. states_text: an attribute
    states if a value is text. cdata: a text may stand in a CDATA section.
    """

    starts: tuple[str, ...]
    name: tuple[str, tuple[str, ...]]
    argument: tuple[str, str, str]
    value_end: str
    call_end: str
    lines: bool = False
    ends: tuple[str, ...] = ()
    states_text: bool = False
    cdata: bool = False

    def read(self, feed: AnswerFeed, start: str, tools: Schemas) -> Generator[None, None, bool]:
        """Read a call; False if there is none."""
        before, after = self.name
        if start != before:
            yield from feed.blanks()
            if not (yield from feed.accept(before)):
                return False
        size = yield from feed.find(*after)
        name = feed.held[: max(size, 0)].strip()
        if name not in tools:
            return False
        feed.take(size)
        if not feed.held.startswith((self.argument[0], self.call_end)):
            yield from feed.accept(*after)
        feed.announce(name)
        yield from self._read_arguments(feed, tools[name])
        return True

    def _read_arguments(self, feed: AnswerFeed, schemas: Mapping[str, Any]) -> Wait:
        """Read all arguments as one JSON object; it stays open in a truncated answer."""
        before_key, after_key, before_value = self.argument
        feed.add_arguments("{")
        comma = ""
        while True:
            yield from feed.blanks()
            if (yield from feed.accept(before_key, self.call_end)) != before_key:
                break
            size = yield from feed.find(after_key)
            if size < 0:
                return
            key = feed.take(size).strip()
            yield from feed.accept(after_key)
            attributes = feed.take(max((yield from feed.find(before_value)), 0)) if before_value else ""
            yield from feed.accept(before_value)
            feed.add_arguments(f"{comma}{json.dumps(key, ensure_ascii=False)}: ")
            if not (yield from self._read_value(feed, _is_text(attributes, schemas.get(key)))):
                return
            comma = ", "
        feed.add_arguments("}")

    def _read_value(self, feed: AnswerFeed, is_text: bool) -> Generator[None, None, bool]:
        """Read a value and its end; False if the answer ends before."""
        ends = (f"\n{self.value_end}", self.value_end) if self.lines else (self.value_end,)
        if self.lines:
            yield from feed.accept("\n")
        if not is_text and (yield from _read_json(feed, ends)):
            return True
        if self.cdata and (yield from feed.accept(CDATA[0])):
            ends = (CDATA[1] + self.value_end,)
        if is_text:
            feed.add_arguments('"')
            end = yield from feed.until(ends, lambda text: feed.add_arguments(quoted_part(text)))
        else:
            pieces: list[str] = []
            end = yield from feed.until(ends, pieces.append)
            if end:
                feed.add_arguments(as_json("".join(pieces)))
        yield from feed.accept(end)
        if end and is_text:
            feed.add_arguments('"')
        return bool(end)


def _read_json(feed: AnswerFeed, ends: tuple[str, ...]) -> Generator[None, None, bool]:
    """Read a string, array or object of JSON; it may hold the end tag.

    False, and nothing read, without one.
    """
    feed.record()
    yield from feed.blanks()
    pieces: list[str] = []
    if (yield from feed.peek()) in ('"', "[", "{"):
        yield from feed.json_value(pieces.append)
        yield from feed.blanks()
        if is_json(text := "".join(pieces)) and (yield from feed.accept(ends[-1])):
            feed.keep()
            feed.add_arguments(text)
            return True
    feed.give_back()
    return False


def is_text(schema: object) -> bool:
    """Whether an argument of this JSON schema is text."""
    if not isinstance(schema, Mapping):
        return False
    kind, values = schema.get("type"), schema.get("enum")
    if isinstance(values, list) and kind is None:
        return all(isinstance(value, str) for value in values)
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def _is_text(attributes: str, schema: object) -> bool:
    """Whether an argument is text: by DeepSeek's attribute `string`, else by its schema."""
    if 'string="' in attributes:
        return IS_TEXT.strip() in attributes
    return is_text(schema)


def as_json(text: str) -> str:
    """JSON as it is, constants in JSON's names, anything else as a string."""
    text = text.strip()
    return text if is_json(text) else CONSTANTS.get(text) or json.dumps(text, ensure_ascii=False)


def is_json(text: str) -> bool:
    """Whether a text is a JSON value."""
    try:
        json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def quoted_part(text: str) -> str:
    """A piece of a JSON string."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
