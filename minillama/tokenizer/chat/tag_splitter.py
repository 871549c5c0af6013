"""Thoughts between two tags: `<think> ... </think> answer`, the form of most thinking models.

Thoughts are the first thing in an answer. A tag later in the text is text, because answers can be about tags; formats
whose tags are control tokens (Gemma 4) may think again.
"""

from dataclasses import dataclass
from enum import Enum

from minillama.tokenizer.chat.answer_parts import Blanks, Parts, overlap


@dataclass(frozen=True)
class Tags:
    """The texts around thoughts. repeats: thoughts may also follow a part of the answer.

    For grammars: texts that are never in thoughts, the text after their end, and the one that begins an answer.
    """

    start: str
    end: str
    repeats: bool = False
    never: tuple[str, ...] = ()
    next: str = ""
    answer: str = ""


class Place(Enum):
    """The place in an answer that the text so far has reached."""

    BEGIN = "before the first character"
    THOUGHTS = "between the tags"
    ANSWER = "after the tags"


class TagSplitter:
    """The splitter of such an answer."""

    def __init__(self, tags: Tags, prompt: str, calls: tuple[str, ...] = ()) -> None:
        """prompt: the rendered one; it begins the thoughts if it ends with the first tag.

        calls: texts that begin a tool call, which ends thoughts too; they belong to the answer.
        """
        self._tags, self._calls, self._blanks, self._held = tags, calls, Blanks(), ""
        self._place = Place.BEGIN
        if prompt.rstrip().endswith(tags.start):
            self._pass(tags.start)

    @property
    def markers(self) -> tuple[str, ...]:
        """The two tags."""
        return self._tags.start, self._tags.end

    def push(self, text: str) -> Parts:
        """Add text; the parts that are certain now."""
        self._held += text
        if self._place is Place.BEGIN and not self._has_begun():
            return Parts()
        found = Parts()
        while True:
            tags = self._tags_ahead()
            at, tag = min(((self._held.find(tag), tag) for tag in tags if tag in self._held), default=(-1, ""))
            if at < 0:
                held_back = max((overlap(self._held, tag) for tag in tags), default=0)
                return found + self._release(len(self._held) - held_back)
            found += self._release(at)
            self._held = self._held[0 if tag in self._calls else len(tag) :]
            self._pass(tag)

    def flush(self) -> Parts:
        """The rest, when the answer has ended."""
        return self._release(len(self._held))

    def _pass(self, tag: str) -> None:
        self._blanks.begin_thoughts()  # an end without a start is an empty block
        self._place = Place.THOUGHTS if tag == self._tags.start else Place.ANSWER

    def _has_begun(self) -> bool:
        """Whether the first text is known to be a tag or not.

        Blanks before a tag are dropped.
        """
        first = self._held.lstrip()
        if any(tag.startswith(first) and tag != first for tag in self.markers):
            return False
        if first.startswith(self.markers):
            self._held = first
        else:
            self._place = Place.ANSWER
        return True

    def _tags_ahead(self) -> tuple[str, ...]:
        """Tags that end the current part."""
        if self._place is Place.THOUGHTS:
            return self._tags.end, *self._calls
        return self.markers if self._place is Place.BEGIN or self._tags.repeats else ()

    def _release(self, count: int) -> Parts:
        text, self._held = self._held[:count], self._held[count:]
        return self._blanks.thoughts(text) if self._place is Place.THOUGHTS else self._blanks.answer(text)
