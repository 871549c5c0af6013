"""Cut an answer that comes in pieces into text and tool calls.

Text that looks like a call but names no tool of the request stays text.
"""

from collections.abc import Generator, Mapping, Sequence
from typing import Any

from minillama.tokenizer.chat.tool_calls.answer_feed import AnswerFeed
from minillama.tokenizer.chat.tool_calls.call_format import CallFormat
from minillama.tokenizer.chat.tool_calls.call_parts import CallParts
from minillama.tokenizer.chat.tool_calls.json_calls import JsonCalls
from minillama.tokenizer.chat.tool_calls.tagged_calls import Schemas

_BARE = JsonCalls(())


def parameter_schemas(tools: Sequence[object]) -> Schemas:
    """The JSON schemas of all parameters, by tool; `tools` as in OpenAI's API."""
    found: dict[str, Mapping[str, Any]] = {}
    for tool in tools:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
            found[function["name"]] = properties if isinstance(properties, Mapping) else {}
    return found


class CallSplitter:
    """Cuts the text of an answer into text and tool calls.

    most: calls that are read; later ones are dropped, and `is_full` is then true.
    """

    def __init__(self, form: CallFormat, tools: Schemas, most: int | None = None) -> None:
        self.is_full = False  # whether as many calls as wanted are complete
        self._form, self._tools, self._most = form, tools, most
        self._feed = AnswerFeed()
        self._reading = self._read()
        next(self._reading)  # to its first wait

    def push(self, text: str) -> CallParts:
        """Add text; the parts that are certain now."""
        self._feed.held += text
        next(self._reading, None)
        return self._feed.drain()

    def flush(self) -> CallParts:
        """The rest, when the answer has ended."""
        self._feed.ended = True
        next(self._reading, None)
        self._feed.end()
        return self._feed.drain()

    def _read(self) -> Generator[None, None, None]:
        feed, form = self._feed, self._form
        yield
        may_be_bare = form.bare
        while self._most is None or feed.calls < self._most:
            if may_be_bare and (yield from self._read_bare()):
                continue
            may_be_bare = False
            start = yield from feed.until(form.starts, feed.show)
            if not start:
                return
            if (yield from self._read_call(start)):
                may_be_bare = form.bare
            else:
                feed.show(feed.take(1))  # it cannot begin here
        self.is_full = True
        while (yield from feed.more()):
            feed.held = ""

    def _read_call(self, start: str) -> Generator[None, None, bool]:
        """Read a call that begins with `start`; False, and nothing read, without one."""
        feed = self._feed
        for reader in self._form.readers:
            if start in reader.starts:
                feed.record()
                feed.take(len(start))
                if (yield from reader.read(feed, start, self._tools)):
                    yield from self._drop_ends()
                    return True
                feed.give_back()
        return False

    def _read_bare(self) -> Generator[None, None, bool]:
        """Read a call that is a JSON object without a start."""
        feed = self._feed
        feed.record()
        yield from feed.blanks()
        yield from feed.accept(";")  # between calls
        yield from feed.blanks()
        if (yield from feed.peek()) == "{" and (yield from _BARE.read(feed, "", self._tools)):
            yield from self._drop_ends()
            return True
        feed.give_back()
        return False

    def _drop_ends(self) -> Generator[None, None, None]:
        feed = self._feed
        while True:
            yield from feed.blanks()
            if not (yield from feed.accept(*self._form.ends)):
                return
