"""A limit of the tokens of thoughts; at its end, their last tag is forced.

As in llama.cpp (common/reasoning-budget.cpp), tokens after the first tag are counted, a character is not cut, a message
may come before the last tag, and later thoughts have a budget of their own.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from minillama.errors import OptionError, quoted
from minillama.option_values import as_int
from minillama.tokenizer import Tokenizer
from minillama.tokenizer.chat.prompt_thoughts import PromptThoughts


@dataclass(frozen=True)
class ThinkingBudget:
    """The tags of thoughts, and the tokens that may be between them.

    tokens: -1 for no limit. is_open: the prompt ends with `start`, and the text `begun` after it. message: written
    before `end` where the budget ends. ends: more texts that end thoughts.
    Raises OptionError for impossible values.
    """

    start: str
    end: str
    tokens: int = -1
    is_open: bool = False
    begun: str = ""
    message: str = ""
    ends: Sequence[str] = ()

    def __post_init__(self) -> None:
        if (tokens := as_int(self.tokens)) is None or tokens < -1:
            raise OptionError(f"reasoning_budget is {quoted(self.tokens)}; expected a number of tokens, or -1")
        if not isinstance(self.message, str):
            raise OptionError(f"reasoning_budget_message is of type {type(self.message).__name__}; expected a text")
        if not self.start or not self.end:
            raise OptionError("a thinking budget has an empty tag; give the texts around thoughts")


def thinking_budget(
    thoughts: PromptThoughts, tokens: int = -1, message: str = "", ends: Sequence[str] = ()
) -> ThinkingBudget:
    """The budget of the answer to a prompt."""
    tags = thoughts.tags
    return ThinkingBudget(tags.start, tags.end, tokens, thoughts.is_open, thoughts.begun, message, ends)


class Place(Enum):
    """The place of a text with regard to thoughts."""

    OUTSIDE = "no tag, or after the last one"
    THOUGHTS = "between the tags"
    END = "the last tag is forced"


class ThinkingWatch:
    """Follows the tokens of one text."""

    def __init__(self, budget: ThinkingBudget, tokenizer: Tokenizer) -> None:
        self._budget, self._tokenizer = budget, tokenizer
        self._starts, self._ends = (budget.start.encode(),), tuple(text.encode() for text in (budget.end, *budget.ends))
        self._forced = tokenizer.encode(budget.message + budget.end, add_special=False)
        self._place, self._left, self._next = Place.OUTSIDE, 0, 0
        self._text = b""  # the end of the text, where a tag may have begun
        if budget.is_open:
            begun = len(tokenizer.encode(budget.begun, add_special=False)) if budget.begun else 0
            self._begin(max(budget.tokens - begun, 0) if budget.tokens >= 0 else -1)

    @property
    def is_thinking(self) -> bool:
        """Whether the next token belongs to thoughts, or to the tag that ends them."""
        return self._place is not Place.OUTSIDE

    @property
    def forced(self) -> int | None:
        """The token that must come next; None for any."""
        return self._forced[self._next] if self._place is Place.END else None

    def accept(self, token: int) -> None:
        """Go on with a token."""
        piece = self._tokenizer.piece(token, special=True)
        if self._place is Place.END:
            self._next += 1
            if self._next == len(self._forced):
                self._place, self._text = Place.OUTSIDE, b""
            return
        if self._place is Place.THOUGHTS and not self._found(piece, self._ends):
            self._count(piece)
        elif self._place is Place.THOUGHTS:
            self._place = Place.OUTSIDE
        elif self._found(piece, self._starts):
            self._begin(self._budget.tokens)

    def _begin(self, left: int) -> None:
        """Thoughts begin; -1 for any number of tokens."""
        self._place, self._left, self._next = Place.THOUGHTS, left, 0
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        if left == 0:
            self._place = Place.END

    def _count(self, piece: bytes) -> None:
        """Count a token of thoughts; the budget ends after a whole character."""
        self._characters.decode(piece)
        self._left -= self._left > 0
        if self._left == 0 and not self._characters.getstate()[0]:
            self._place, self._text = Place.END, b""

    def _found(self, piece: bytes, tags: tuple[bytes, ...]) -> bool:
        """Whether a piece completes a tag; the text after it counts for the next one."""
        self._text += piece
        for tag in tags:
            _, found, after = self._text.partition(tag)
            if found:
                self._text = after
                return True
        self._text = self._text[-max(map(len, tags)) :]
        return False
