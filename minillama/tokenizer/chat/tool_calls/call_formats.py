"""The form of a model's tool calls, found by texts in its chat template.

A splitter cuts an answer that comes in pieces into text and calls. Text that looks like a call but names no tool of the
request stays text.
"""

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from minillama.tokenizer.chat.tool_calls.answer_feed import AnswerFeed
from minillama.tokenizer.chat.tool_calls.call_parts import CallParts
from minillama.tokenizer.chat.tool_calls.header_calls import HeaderCalls
from minillama.tokenizer.chat.tool_calls.json_calls import JsonCalls
from minillama.tokenizer.chat.tool_calls.tagged_calls import Schemas, TaggedCalls


class CallReader(Protocol):
    """One way to write a call."""

    @property
    def starts(self) -> tuple[str, ...]:
        """Texts that may begin a call."""
        ...

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts after a call that are not shown."""
        ...

    def read(self, feed: AnswerFeed, start: str, tools: Schemas) -> Generator[None, None, bool]:
        """Read a call after its start; False if there is none."""
        ...


@dataclass(frozen=True)
class CallFormat:
    """The ways in which a family of models writes calls.

    bare: a call may also be a JSON object without a start. ends_thoughts: texts of a call that also end the thoughts
    before it.
    """

    readers: tuple[CallReader, ...]
    bare: bool = False
    ends_thoughts: tuple[str, ...] = ()

    @property
    def starts(self) -> tuple[str, ...]:
        """Texts that may begin a call."""
        return tuple(dict.fromkeys(start for reader in self.readers for start in reader.starts))

    @property
    def ends(self) -> tuple[str, ...]:
        """Texts after a call that are not shown."""
        return tuple(dict.fromkeys(end for reader in self.readers for end in reader.ends))

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts of the format; control tokens with such a text are read, not hidden."""
        return (*self.starts, *self.ends)


_NAME = r"(?P<name>[^\s\[\]<>{}\"']+?)"
_BARE = JsonCalls(("<|python_tag|>",))
_HERMES = JsonCalls(("<tool_call>",), ("</tool_call>",))
_QWEN_XML = TaggedCalls(
    ("<tool_call>", "<function="), ("<function=", (">",)), ("<parameter=", ">", ""), "</parameter>", "</function>",
    lines=True, ends=("</tool_call>",),
)  # fmt: skip
_SEED = TaggedCalls(
    ("<seed:tool_call>",), ("<function=", (">",)), ("<parameter=", ">", ""), "</parameter>", "</function>",
    lines=True, ends=("</seed:tool_call>",),
)  # fmt: skip
_GLM = TaggedCalls(
    ("<tool_call>",), ("<tool_call>", ("\n", "<arg_key>", "</tool_call>")), ("<arg_key>", "</arg_key>", "<arg_value>"),
    "</arg_value>", "</tool_call>",
)  # fmt: skip
_MINIMAX = TaggedCalls(
    ("<minimax:tool_call>", "<invoke name="), ('<invoke name="', ('">',)), ('<parameter name="', '"', ">"),
    "</parameter>", "</invoke>", ends=("</minimax:tool_call>",),
)  # fmt: skip
_DSML = TaggedCalls(
    ("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>", '<｜DSML｜invoke name="'), ('<｜DSML｜invoke name="', ('">',)),
    ('<｜DSML｜parameter name="', '"', ">"), "</｜DSML｜parameter>", "</｜DSML｜invoke>",
    ends=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
)  # fmt: skip
_DEEPSEEK = HeaderCalls(
    ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
    re.compile(rf"<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?{_NAME}(?:<｜tool▁sep｜>|\s|$)"),
    ("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>"),
)
_KIMI = HeaderCalls(
    ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
    re.compile(rf"<\|tool_call_begin\|>\s*(?P<id>(?:functions\.)?{_NAME}(?::\d+)?)\s*<\|tool_call_argument_begin\|>"),
    ("<|tool_call_end|>", "<|tool_calls_section_end|>"),
)
_MISTRAL = HeaderCalls(
    ("[TOOL_CALLS]",), re.compile(rf"\[TOOL_CALLS\]\s*{_NAME}\s*(?:\[CALL_ID\](?P<id>[^\[\s]*))?\s*(?:\[ARGS\]|$)")
)
_HARMONY = HeaderCalls(
    ("<|channel|>", " to=functions.", "to=functions."),
    re.compile(r"to=functions\.(?P<name>[^\s<>{}]+)"),
    separator="<|message|>",
)
GENERIC = CallFormat((_HERMES, _BARE), bare=True)

# Texts that are all in the template, and the format; the first row that fits.
FORMATS: tuple[tuple[tuple[str, ...], CallFormat], ...] = (
    (("<|channel|>",), CallFormat((_HARMONY,))),
    (("｜DSML｜",), CallFormat((_DSML,), ends_thoughts=_DSML.starts[:2])),
    (("<｜tool▁call▁begin｜>",), CallFormat((_DEEPSEEK,))),
    (("<|tool_call_begin|>",), CallFormat((_KIMI,))),
    (("<seed:tool_call>",), CallFormat((_SEED,))),
    (("<minimax:tool_call>",), CallFormat((_MINIMAX,))),
    (("<arg_key>",), CallFormat((_GLM,))),
    (("<function=", "<parameter="), CallFormat((_QWEN_XML,), ends_thoughts=_QWEN_XML.starts[:1])),
    (("[TOOL_CALLS]",), CallFormat((_MISTRAL, JsonCalls(("[TOOL_CALLS]",))))),
    (("<|START_ACTION|>",), CallFormat((JsonCalls(("<|START_ACTION|>",), ("<|END_ACTION|>",)),))),
    (("<TOOLCALL>",), CallFormat((JsonCalls(("<TOOLCALL>",), ("</TOOLCALL>",)),))),
    (("<|tool_call|>",), CallFormat((JsonCalls(("<|tool_call|>", "<tool_call>"), ("</tool_call>",)),))),
    (("<tool_call>",), CallFormat((_HERMES,))),
)


def call_format(source: str) -> CallFormat:
    """The format of a chat template.

    Without a known text it is `GENERIC`: Llama 3's bare JSON, and the tags of Hermes."""
    return next((form for texts, form in FORMATS if all(text in source for text in texts)), GENERIC)


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
