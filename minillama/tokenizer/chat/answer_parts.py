"""The parts of an answer: its text, and the model's thoughts before it."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Parts:
    """A piece of an answer, cut into answer and thoughts (`reasoning_content` in OpenAI's API)."""

    text: str = ""
    reasoning_content: str = ""

    def __add__(self, other: "Parts") -> "Parts":
        return Parts(self.text + other.text, self.reasoning_content + other.reasoning_content)


@runtime_checkable
class Splitter(Protocol):
    """Cuts an answer that comes in pieces.

    The parts never hold a marker, or half of one. Any cut into pieces gives the same parts in the end.
    """

    @property
    def markers(self) -> tuple[str, ...]:
        """Texts that separate the parts; control tokens with such a text are read, not hidden."""
        ...

    def push(self, text: str) -> Parts:
        """Add text; the parts that are certain now."""
        ...

    def flush(self) -> Parts:
        """The rest, when the answer has ended."""
        ...


@dataclass(frozen=True)
class Uncut:
    """The splitter that leaves an answer as the model writes it."""

    markers: tuple[str, ...] = ()

    def push(self, text: str) -> Parts:
        """The text."""
        return Parts(text)

    def flush(self) -> Parts:
        """Nothing."""
        return Parts()


@dataclass(frozen=True)
class Copied:
    """The splitter of `deepseek-legacy`: the text stays whole, and the thoughts are there once more."""

    splitter: Splitter

    @property
    def markers(self) -> tuple[str, ...]:
        """Those of the format."""
        return self.splitter.markers

    def push(self, text: str) -> Parts:
        """The text, and the thoughts in it."""
        return Parts(text, self.splitter.push(text).reasoning_content)

    def flush(self) -> Parts:
        """The rest of the thoughts."""
        return Parts("", self.splitter.flush().reasoning_content)


@dataclass(frozen=True)
class Marked:
    """A splitter with more markers, which its text then has."""

    splitter: Splitter
    markers: tuple[str, ...]

    def push(self, text: str) -> Parts:
        """Add text; the parts that are certain now."""
        return self.splitter.push(text)

    def flush(self) -> Parts:
        """The rest, when the answer has ended."""
        return self.splitter.flush()


class Blanks:
    """Removes blanks around thoughts, and before an answer that follows thoughts.

    A later block of thoughts begins on a new line.
    """

    def __init__(self) -> None:
        self.answered = False  # whether there is text of the answer
        self._gap = ""  # blanks between the thoughts shown and those that may come
        self._has_block = self._in_block = self._has_thoughts = False

    def begin_thoughts(self) -> None:
        """Begin a block of thoughts."""
        self._has_block, self._in_block = True, False
        self._gap = "\n" if self._has_thoughts else ""

    def thoughts(self, text: str) -> Parts:
        """The next text of a block of thoughts."""
        if not self._in_block:
            text = text.lstrip()
        if not text:
            return Parts()
        self._in_block = self._has_thoughts = True
        whole = self._gap + text
        shown = whole.rstrip()
        self._gap = whole[len(shown) :]
        return Parts("", shown)

    def answer(self, text: str) -> Parts:
        """The next text of the answer."""
        if self._has_block and not self.answered:
            text = text.lstrip()
        self.answered = self.answered or bool(text)
        return Parts(text)


def overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that is a proper prefix of `word`."""
    return max((size for size in range(1, min(len(text), len(word) - 1) + 1) if text.endswith(word[:size])), default=0)
