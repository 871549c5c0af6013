"""The harmony format of gpt-oss: an answer is messages, each with a channel.

    <|channel|>analysis<|message|>thoughts<|end|><|start|>assistant<|channel|>final<|message|>answer<|return|>

The channel `analysis` has thoughts, `final` the answer and `commentary` text before tool calls. A message to a tool
(`to=functions.NAME` in its header) stays in the text as the model writes it.
"""

import re

from minillama.tokenizer.chat.answer_parts import Blanks, Parts, overlap

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
HEADER_BEGINS = (START, CHANNEL, "to=")
TOOL = re.compile(r"\bto=(?!assistant\b)")
MAX_HEADER = 500  # characters


class HarmonySplitter:
    """The splitter of such an answer; the prompt ends with `<|start|>assistant`."""

    markers = (START, CHANNEL, MESSAGE, END)

    def __init__(self) -> None:
        self._blanks, self._held = Blanks(), ""
        self._in_header, self._in_thoughts = True, False

    def push(self, text: str) -> Parts:
        """Add text; the parts that are certain now."""
        self._held += text
        found = Parts()
        while True:
            if self._in_header:
                if MESSAGE not in self._held and self._may_be_header():
                    return found
                found += self._read_header()
            at = min((self._held.find(mark) for mark in (END, START) if mark in self._held), default=-1)
            if at < 0:
                held_back = max(overlap(self._held, END), overlap(self._held, START))
                return found + self._release(len(self._held) - held_back)
            found += self._release(at)
            self._held = self._held.removeprefix(END)
            self._in_header = True

    def flush(self) -> Parts:
        """The rest, when the answer has ended; a header without a message is no text."""
        if self._in_header and self._held.lstrip().startswith((*HEADER_BEGINS, "<|")):
            self._held = ""
        if self._in_header:
            self._in_thoughts = False
        return self._release(len(self._held))

    def _may_be_header(self) -> bool:
        first = self._held.lstrip()
        begins = (first.startswith(begin) or begin.startswith(first) for begin in HEADER_BEGINS)
        return len(self._held) < MAX_HEADER + len(MESSAGE) and any(begins)

    def _read_header(self) -> Parts:
        """Read the header of a message; text that is no header belongs to the answer."""
        header, mark, body = self._held.partition(MESSAGE)
        self._in_header = False
        if not mark or len(header) > MAX_HEADER or not header.lstrip().startswith(HEADER_BEGINS):
            self._in_thoughts = False
            return self._release(len(START)) if self._held.startswith(START) else Parts()
        is_call = TOOL.search(header) is not None
        self._in_thoughts = f"{CHANNEL}analysis" in header and not is_call
        self._held = body
        if self._in_thoughts:
            self._blanks.begin_thoughts()
            return Parts()
        call = header.removeprefix(f"{START}assistant") + MESSAGE if is_call else ""
        return self._blanks.answer("\n" + call if self._blanks.answered else call)

    def _release(self, count: int) -> Parts:
        text, self._held = self._held[:count], self._held[count:]
        return self._blanks.thoughts(text) if self._in_thoughts else self._blanks.answer(text)
