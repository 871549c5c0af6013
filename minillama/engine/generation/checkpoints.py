"""Checkpoints of one text: copies of states that cannot go back, as of recurrent layers.

llama.cpp's context checkpoints. A text that shares a beginning with the last one goes on from the newest checkpoint
within it, and runs the tokens after that again.
"""

from dataclasses import dataclass
from typing import Any

MOST = 32  # as llama.cpp's --ctx-checkpoints
MOST_BYTES = 256 << 20
STEP = 1024  # tokens of a prompt between two checkpoints; one more stands at its end


def most_checkpoints(state_bytes: int) -> int:
    """Number of checkpoints of that many bytes that are kept; always one at least."""
    return max(1, min(MOST, MOST_BYTES // max(state_bytes, 1)))


def checkpoint_bytes(state_bytes: int) -> int:
    """Bytes of all checkpoints of one text."""
    return most_checkpoints(state_bytes) * state_bytes


@dataclass(frozen=True)
class Checkpoint:
    """The states after the first `tokens` tokens."""

    tokens: int
    states: Any


class Checkpoints:
    """The checkpoints of one text, the oldest first."""

    def __init__(self, state_bytes: int) -> None:
        self._most = most_checkpoints(state_bytes)
        self._kept: list[Checkpoint] = []

    @property
    def last(self) -> int:
        """Tokens of the newest one; 0 for none."""
        return self._kept[-1].tokens if self._kept else 0

    def add(self, tokens: int, states: Any) -> None:
        """Keep a copy; the oldest goes where there are too many."""
        self.forget_after(tokens - 1)
        self._kept = [*self._kept, Checkpoint(tokens, states)][-self._most :]

    def newest(self, tokens: int) -> Checkpoint | None:
        """The newest one after at most that many tokens."""
        return next((one for one in reversed(self._kept) if one.tokens <= tokens), None)

    def forget_after(self, tokens: int) -> None:
        """Drop those with more tokens."""
        self._kept = [one for one in self._kept if one.tokens <= tokens]
