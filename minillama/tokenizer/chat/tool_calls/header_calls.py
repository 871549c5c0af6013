"""Calls with the name in a header, and then the arguments as JSON.

[TOOL_CALLS]add[CALL_ID]123456789[ARGS]{"a": 1}                     Mistral
<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>       DeepSeek
<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}    gpt-oss
"""

import re
from collections.abc import Container, Generator
from dataclasses import dataclass

from minillama.tokenizer.chat.tool_calls.answer_feed import AnswerFeed


@dataclass(frozen=True)
class HeaderCalls:
    """Calls whose header begins with one of `starts`.

    It ends with `separator`, or before the first `{`.

    header: an expression with the groups `name` and perhaps `id`. ends: texts after a call that are dropped.
    The other fields are for grammars: texts that may follow the name, and, in formats with ids, the id (an expression
    of GBNF) and the text after it.
    """

    starts: tuple[str, ...]
    header: re.Pattern[str]
    ends: tuple[str, ...] = ()
    separator: str = ""
    after_names: tuple[str, ...] = ()
    id_gbnf: str = ""
    before_arguments: str = ""

    def read(self, feed: AnswerFeed, start: str, tools: Container[str]) -> Generator[None, None, bool]:
        """Read a call; False if there is none."""
        size = yield from feed.find(self.separator or "{")
        if size < 0:
            return False
        found = self.header.search(start + feed.take(size))
        yield from feed.accept(self.separator)
        yield from feed.blanks()
        if found is None or found["name"] not in tools or (yield from feed.peek()) != "{":
            return False
        feed.announce(found["name"], found.groupdict().get("id") or "")
        yield from feed.json_value(feed.add_arguments)
        yield from feed.blanks()
        yield from feed.accept("```")
        return True
