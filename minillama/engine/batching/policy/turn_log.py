"""The record of the turn under way, and of the last ones."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minillama.engine.batching.counters import TurnRecord

LOGGED_TURNS = 1000


class TurnLog:
    """The last turns, the oldest first, and the turn under way."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.turns: deque[TurnRecord] = deque(maxlen=LOGGED_TURNS)
        self.turn = TurnRecord(0, 0.0)
        self._clock = clock
        self._next_began: float | None = None

    def settle(self) -> None:
        """The next turn begins now: it waits for the work under way."""
        self._next_began = self._clock()

    def begin(self) -> None:
        """A new turn."""
        began = self._clock() if self._next_began is None else self._next_began
        self.turn, self._next_began = TurnRecord(self.turn.number + 1, began), None

    def add(self, **parts: Any) -> None:
        """Record parts of the turn under way."""
        self.turn = replace(self.turn, **parts)

    def note(self, text: str) -> None:
        """Record what else has happened in it."""
        self.add(notes=(*self.turn.notes, text))

    def end(self, waiting: int) -> float:
        """Log the turn; its seconds."""
        seconds = self._clock() - self.turn.began
        self.turns.append(replace(self.turn, seconds=seconds, waiting=waiting))
        return seconds
