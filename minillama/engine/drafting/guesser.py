"""The interface of a draft model to those who want guesses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class DraftText:
    """A text that wants a guess.

    tokens: all of it, with the latest token, which no cache holds. most, p_min: a guess ends after that many tokens,
    and before the first one that is less likely.
    """

    slot: int
    tokens: Sequence[int]
    most: int
    p_min: float = 0.0


@runtime_checkable
class Guesser(Protocol):
    """A draft model with a cache of its own for the texts in slots.

    A text is found again by its tokens, whatever has happened to it meanwhile.
    """

    def lacks(self, text: DraftText) -> int:
        """Tokens of a text that its slot has to read before the next guess."""

    def read(self, text: DraftText) -> None:
        """Read a chunk of what the slot lacks."""

    def guess(self, texts: Sequence[DraftText]) -> list[list[int]]:
        """The likeliest tokens to follow each text, one after the other, where slots lack nothing."""

    def warm_ups(self) -> Iterator[str]:
        """Compile one program after another; yields their names. No slot changes."""
