"""Text of an answer that arrives in pieces, read as if it were whole.

A reader is a generator. It calls the methods here with `yield from`; they wait (`yield`) until enough text is there to
decide. So a reader is written once, without states, and any cut of the text gives the same result.
"""

import re
from collections.abc import Callable, Generator

from minillama.tokenizer.chat.answer_parts import overlap
from minillama.tokenizer.chat.tool_calls.call_parts import CallDelta, CallParts

Wait = Generator[None, None, None]
MAX_HEADER = 2000  # characters that may be held back until a call is certain
UNIT = re.compile(r'[^"\\{}\[\]]+|\\.|["{}\[\]]', re.DOTALL)  # of JSON; a backslash at the end waits for more
AFTER_SCALAR = (",", "}", "]", "\n", " ", "\t", "\r", "<", "[")


class AnswerFeed:
    """The text that is not read yet, and the parts found so far."""

    def __init__(self) -> None:
        self.held = ""
        self.ended = False
        self.calls = 0  # number of calls announced
        self._found = CallParts()
        self._blanks: str | None = ""  # held back at the beginning: not shown if only a call follows
        self._record: list[str] | None = None

    def drain(self) -> CallParts:
        """The parts found since the last time."""
        found, self._found = self._found, CallParts()
        return found

    # Results.

    def show(self, text: str) -> None:
        """Add text to the answer."""
        if self._blanks is not None:
            text = self._blanks + text
            self._blanks = None if text.strip() else text
        if self._blanks is None:
            self._found += CallParts(text)

    def end(self) -> None:
        """The answer has ended: an answer of blanks alone is shown, except next to calls."""
        if self._blanks and not self.calls:
            self._found += CallParts(self._blanks)
        self._blanks = None

    def announce(self, name: str, call_id: str = "") -> None:
        """Begin a call."""
        self.calls += 1
        self._record = None  # certain now
        self._found += CallParts("", (CallDelta(self.calls - 1, name=name, id=call_id),))

    def add_arguments(self, text: str) -> None:
        """Add a piece of JSON to the arguments of the last call."""
        if text:
            self._found += CallParts("", (CallDelta(self.calls - 1, arguments=text),))

    def add_id(self, call_id: str) -> None:
        """Name the last call, in formats that have its id after the arguments."""
        self._found += CallParts("", (CallDelta(self.calls - 1, id=call_id),))

    # Reading with a way back.

    def record(self) -> None:
        """Remember what is read from now on, until `announce`, `keep` or `give_back`."""
        self._record = []

    def keep(self) -> None:
        """Forget the record: its text stays read."""
        self._record = None

    def give_back(self) -> None:
        """Undo what was read since `record`."""
        if self._record is not None:
            self.held = "".join(self._record) + self.held
            self._record = None

    def take(self, count: int) -> str:
        """Read characters that are there."""
        text, self.held = self.held[:count], self.held[count:]
        if self._record is not None:
            self._record.append(text)
        return text

    # Reading that may wait.

    def more(self) -> Generator[None, None, bool]:
        """Wait for more text; False if the answer has ended."""
        if not self.ended:
            yield
        return not self.ended

    def peek(self) -> Generator[None, None, str]:
        """The next character, "" at the end."""
        while not self.held and (yield from self.more()):
            pass
        return self.held[:1]

    def blanks(self) -> Wait:
        """Read white space."""
        while (yield from self.peek()).isspace():
            self.take(len(self.held) - len(self.held.lstrip()))

    def accept(self, *words: str) -> Generator[None, None, str]:
        """Read one of the words, the longest that is there; "" if none is."""
        while any(word.startswith(self.held) and word != self.held for word in words):
            if not (yield from self.more()):
                break
        found = max((word for word in words if self.held.startswith(word)), key=len, default="")
        self.take(len(found))
        return found

    def find(self, *words: str) -> Generator[None, None, int]:
        """The place of the first of the words, or -1; reads nothing.

        A word must come within MAX_HEADER characters."""
        while True:
            places = [self.held.find(word) for word in words if word in self.held]
            if places and min(places) <= MAX_HEADER:
                return min(places)
            if places or len(self.held) > MAX_HEADER or not (yield from self.more()):
                return -1

    def until(self, words: tuple[str, ...], sink: Callable[[str], None]) -> Generator[None, None, str]:
        """Pass text on up to the first of the words, and return that word.

        The word is not read; it is "" at the end of the answer."""
        while True:
            at, word = min(((self.held.find(word), word) for word in words if word in self.held), default=(-1, ""))
            if at >= 0:
                sink(self.take(at))
                return word
            held_back = max((overlap(self.held, word) for word in words), default=0)
            sink(self.take(len(self.held) - held_back))
            if not (yield from self.more()):
                sink(self.take(len(self.held)))
                return ""

    def json_value(self, sink: Callable[[str], None]) -> Wait:
        """Pass a JSON value on as it is written."""
        yield from self.blanks()
        if self.held[:1] not in ('"', "{", "["):
            yield from self.until(AFTER_SCALAR, sink)
            return
        depth, in_string = 0, False
        while True:
            read = 0
            while (unit := UNIT.match(self.held, read)) is not None:
                read = unit.end()
                if unit[0] == '"':
                    in_string = not in_string
                elif not in_string and unit[0] in "{[}]":
                    depth += 1 if unit[0] in "{[" else -1
                if depth == 0 and not in_string:
                    sink(self.take(read))
                    return
            sink(self.take(read))
            if not (yield from self.more()):
                sink(self.take(len(self.held)))
                return
