"""The cache of one text: more room, sliding windows, the way back to earlier positions."""

import jax

from minillama.engine.backends.base import Backend, Handle
from minillama.engine.backends.programs import text_programs
from minillama.engine.backends.programs.program import one_text
from minillama.engine.generation.checkpoints import Checkpoint, Checkpoints, needs_checkpoints
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model.state_sizes import checkpoint_bytes, window_capacity
from minillama.model.states.window import can_go_back, first_held

FIRST_CAPACITY = 512  # positions a cache starts with; it doubles when they are used up


class TextCache:
    """A backend's cache of one text.

    `handle` is what programs take; a program that takes it over gives the next one. chunk: most tokens of a pass.
    """

    def __init__(self, backend: Backend, ctx_size: int, chunk: int, types: CacheTypes) -> None:
        self.handle: Handle = None
        self._backend, self._ctx_size, self._chunk, self._types = backend, ctx_size, chunk, types
        self._first = 0  # position where the sliding windows begin
        self._checkpoints: Checkpoints | None = None
        if needs_checkpoints(backend.config, ctx_size, chunk):
            self._checkpoints = Checkpoints(checkpoint_bytes(backend.config, types, chunk))
        self.clear()

    @property
    def capacity(self) -> int:
        """Positions that it has room for now."""
        return self.handle.capacity

    @property
    def nbytes(self) -> int:
        """Bytes, without checkpoints."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self.handle))

    @property
    def is_lost(self) -> bool:
        """Whether an interrupt came between taking over the memory and the program's return."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self.handle))

    def clear(self, capacity: int | None = None) -> None:
        """Begin a text, with room for that many positions."""
        self._first = 0
        capacity = min(FIRST_CAPACITY if capacity is None else capacity, self._ctx_size)
        self.handle = self._backend.new_cache(capacity, self._types, chunk=self._chunk)
        if self._checkpoints is not None:
            self._checkpoints.forget_after(0)

    def capacity_for(self, positions: int) -> int:
        """Its capacity with that many positions."""
        capacity = self.capacity
        while capacity < positions:
            capacity = min(2 * capacity, self._ctx_size)
        return capacity

    def grow(self, positions: int) -> None:
        """Make room for that many positions, at most the context."""
        capacity = self.capacity_for(positions)
        if capacity > self.capacity:
            self.handle = self._backend.call(text_programs.resize, self.handle, capacity)

    def prepare(self, length: int, count: int, *, ends_prompt: bool) -> None:
        """Get ready for `count` tokens after the first `length`.

        ends_prompt: whether a prompt ends here, so that a checkpoint is wanted.
        """
        if self._checkpoints is not None and self._checkpoints.wants(length, ends_prompt=ends_prompt):
            self._checkpoints.add(Checkpoint(length, self._backend.checkpoint(self.handle), self._first))
        window = self._backend.config.sliding_window
        if window and length + count > self._first + window_capacity(window, self._chunk):
            self._first = first_held(window, length)
            self.handle = self._backend.call(text_programs.slide, self.handle, one_text(self._first))

    def go_back(self, length: int) -> int:
        """Drop all but the first `length` tokens; the number left.

        Where a state cannot go back there, it is that of the newest checkpoint before it.
        """
        config = self._backend.config
        if not config.is_recurrent and can_go_back(config.sliding_window, self._first, length):
            return self.stay(length)
        found = self._checkpoints.newest(length) if self._checkpoints is not None else None
        if found is None:
            self.clear(self.capacity)
            return 0
        self.handle = self._backend.restore(self.handle, found.states, one_text(found.tokens))
        self._first = found.first
        self._forget_checkpoints(found.tokens)
        return found.tokens

    def stay(self, length: int) -> int:
        """Cut to the first `length` tokens, where nothing has changed the states since; that number."""
        self.handle = self._backend.truncate(self.handle, one_text(length))
        self._forget_checkpoints(length)
        return length

    def _forget_checkpoints(self, length: int) -> None:
        if self._checkpoints is not None:
            self._checkpoints.forget_after(length)
