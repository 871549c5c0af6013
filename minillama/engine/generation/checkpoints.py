"""Checkpoints of one text: copies of states that cannot go back.

Such are recurrent memories and sliding windows.

llama.cpp's context checkpoints. A text that shares a beginning with the last one goes on from the newest checkpoint
within it, and runs the tokens after that again.
"""

from dataclasses import dataclass
from typing import Any

from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Config
from minillama.model.state_sizes import checkpoint_bytes, window_capacity

MOST = 32  # as llama.cpp's --ctx-checkpoints
MOST_BYTES = 256 << 20
STEP = 1024  # tokens of a prompt between two checkpoints; one more stands at its end


def most_checkpoints(state_bytes: int) -> int:
    """Number of checkpoints of that many bytes that are kept; always one at least."""
    return max(1, min(MOST, MOST_BYTES // max(state_bytes, 1)))


def needs_checkpoints(config: Config, ctx_size: int, chunk: int) -> bool:
    """Whether a text of this model cannot always go back to an earlier position."""
    window = config.sliding_window
    return config.is_recurrent or (window > 0 and ctx_size > window_capacity(window, chunk))


def all_checkpoint_bytes(config: Config, ctx_size: int, types: CacheTypes, chunk: int) -> int:
    """Bytes of all checkpoints of one text."""
    if not needs_checkpoints(config, ctx_size, chunk):
        return 0
    size = checkpoint_bytes(config, types, chunk)
    return most_checkpoints(size) * size


@dataclass(frozen=True)
class Checkpoint:
    """The states after the first `tokens` tokens; windows begin at position `first`."""

    tokens: int
    states: Any
    first: int


class Checkpoints:
    """The checkpoints of one text, the oldest first."""

    def __init__(self, state_bytes: int) -> None:
        self._most = most_checkpoints(state_bytes)
        self._kept: list[Checkpoint] = []

    def wants(self, tokens: int, *, ends_prompt: bool) -> bool:
        """Whether a checkpoint is due after that many tokens.

        It is at the end of a prompt, and far from the last one.
        """
        last = self._kept[-1].tokens if self._kept else 0
        return tokens > last and (ends_prompt or tokens >= last + STEP)

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep one; the oldest goes where there are too many."""
        self.forget_after(checkpoint.tokens - 1)
        self._kept = [*self._kept, checkpoint][-self._most :]

    def newest(self, tokens: int) -> Checkpoint | None:
        """The newest one after at most that many tokens."""
        return next((one for one in reversed(self._kept) if one.tokens <= tokens), None)

    def forget_after(self, tokens: int) -> None:
        """Drop those with more tokens."""
        self._kept = [one for one in self._kept if one.tokens <= tokens]
