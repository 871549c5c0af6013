"""The form of a model's tool calls: the ways to read and to write them."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from minillama.tokenizer.chat.tool_calls.answer_feed import AnswerFeed
from minillama.tokenizer.chat.tool_calls.tagged_calls import Schemas


@runtime_checkable
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
class Spelling:
    """Texts of a model around calls: around all of them, around each, between two."""

    begin: str = ""
    before: str = ""
    after: str = ""
    between: str = ""
    end: str = ""


@dataclass(frozen=True)
class CallFormat:
    """The ways in which a family of models writes calls.

    readers: a grammar writes calls in the form of the first one, with `spelling` around them.
    bare: a call may also be a JSON object without a start. ends_thoughts: texts of a call that also end the thoughts
    before it. inside: other texts of the format that may be control tokens. is_single: an answer has one call.
    trigger: a regular expression of the beginning of a call, whose first group is the text `before`; without it a call
    begins with a start. prompt_end: the end of the prompt, where such a beginning may begin.
    """

    readers: tuple[CallReader, ...]
    spelling: Spelling = Spelling()
    bare: bool = False
    ends_thoughts: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    is_single: bool = False
    trigger: str = ""
    prompt_end: str = ""

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
        return (*self.starts, *self.ends, *self.inside)
