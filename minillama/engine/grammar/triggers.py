"""Grammars that begin late: free text up to a trigger.

A trigger is, for example, the beginning of a tool call.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import regex

from minillama.array_types import UInt32
from minillama.engine.grammar.grammar import Grammar, GrammarState
from minillama.errors import OptionError, quoted

SEARCH_SECONDS = 1.0  # of one pattern in a text


@dataclass(frozen=True)
class Triggers:
    """Tokens, words and patterns that begin the grammar.

    A pattern is a regular expression, found in the text.
    The text under the grammar begins with the word or the match; with the first group of a pattern that has one.
    looks_back: bytes that a match of a pattern may have, None for any number. before: the end of the prompt, where a
    match may begin. must_fit: whether a token that runs on after a trigger and does not fit is an error; otherwise that
    trigger is skipped. in_thoughts: whether triggers also count in the thoughts of a chat.
    Raises OptionError if there is none, or for a malformed pattern.
    """

    words: Sequence[str] = ()
    patterns: Sequence[str] = ()
    tokens: Sequence[int] = ()
    looks_back: int | None = None
    before: str = ""
    must_fit: bool = True
    in_thoughts: bool = False

    def __post_init__(self) -> None:
        if not self.words and not self.patterns and not self.tokens:
            raise OptionError("a lazy grammar has no triggers; give words, patterns or tokens")
        self._compiled()

    @property
    def memory(self) -> int | None:
        """Bytes before the next token that a trigger may begin in; None for all."""
        return self.looks_back if self.patterns else max((len(word.encode()) for word in self.words), default=0)

    def _compiled(self) -> list["regex.Pattern[bytes]"]:
        try:
            return [regex.compile(text.encode()) for text in (*map(re.escape, self.words), *self.patterns)]
        except regex.error as error:
            raise OptionError(f"a trigger pattern of the grammar is malformed: {error}") from None

    def find(self, text: bytes) -> int | None:
        """The place in a text where the grammar begins; None without a trigger."""
        for pattern in self._compiled():  # the module keeps what it compiled
            try:
                match = pattern.search(text, timeout=SEARCH_SECONDS)
            except TimeoutError:
                raise OptionError(
                    f"the trigger pattern {quoted(pattern.pattern)} takes too long; simplify it"
                ) from None
            if match is not None:
                groups = (number for number in range(1, pattern.groups + 1) if match.start(number) < match.end(number))
                return match.start(next(groups, 0))
        return None


@dataclass(frozen=True, eq=False)
class LazyGrammar:
    """A grammar with triggers; used as a `Grammar`."""

    grammar: Grammar
    triggers: Triggers

    def start(self) -> "LazyState":
        """The state before the first token."""
        return LazyState(self, self.triggers.before.encode())


@dataclass(frozen=True)
class LazyState:
    """The state before the trigger: every token is allowed.

    `accept` returns a `GrammarState` where a trigger is complete."""

    lazy: LazyGrammar
    text: bytes = b""
    tokens: tuple[tuple[int, int], ...] = ()  # tokens, and where in the text they begin

    @property
    def is_complete(self) -> bool:
        """Whether the text may end here: always, the grammar has not begun."""
        return True

    def allowed(self) -> UInt32[np.ndarray, "W"]:
        """All tokens, as bits; see `GrammarState.allowed`."""
        return self.lazy.grammar.vocabulary.all_bits

    def allows(self, token: int) -> bool:
        """Always true."""
        return True

    def accept(self, token: int) -> "LazyState | GrammarState":
        """The state after a token.

        Raises OptionError if the text after the trigger does not fit the grammar."""
        grammar, triggers = self.lazy.grammar, self.lazy.triggers
        if token in triggers.tokens:
            return grammar.start().accept(token)
        piece = grammar.vocabulary.pieces[token]
        waiting = replace(self, text=self.text + piece, tokens=(*self.tokens, (token, len(self.text))))
        start = triggers.find(waiting.text)
        if start is None:
            return waiting.shortened()
        state = waiting.replay(start)
        if state is None and triggers.must_fit:
            raise OptionError(f"the text {quoted(waiting.text[start:])} after a trigger does not fit the grammar")
        return LazyState(self.lazy) if state is None else state

    def shortened(self) -> "LazyState":
        """The same state without the text that no trigger can begin in."""
        size = self.lazy.triggers.memory
        if size is None or len(self.text) <= 2 * size:
            return self
        cut = max((begin for _, begin in self.tokens if begin <= len(self.text) - size), default=0)
        kept = tuple((token, begin - cut) for token, begin in self.tokens if begin >= cut)
        return replace(self, text=self.text[cut:], tokens=kept)

    def replay(self, start: int) -> GrammarState | None:
        """The state of the grammar after the text from a place on, token after token.

        None if it does not fit.
        """
        state: GrammarState | None = self.lazy.grammar.start()
        ends = [*(begin for _, begin in self.tokens[1:]), len(self.text)]
        for (token, begin), end in zip(self.tokens, ends, strict=True):
            if end > start and state is not None:
                state = state.accept_part(token, self.text[max(begin, start) : end])
        return state
