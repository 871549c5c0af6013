"""A draft model that is open, next to the model that it guesses for."""

from collections.abc import Callable
from dataclasses import dataclass

from minillama.engine.backends.base import Backend
from minillama.engine.drafting.draft_executor import FIRST_CAPACITY, DraftExecutor
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import cache_bytes

DEFAULT_GUESS = 3  # tokens, as llama.cpp's --spec-draft-n-max


@dataclass(frozen=True, eq=False)
class DraftModel:
    """A model that guesses the tokens of another one, which verifies them.

    ctx_size: longer texts get no guesses. chunk: most tokens of a pass. vocab_size: of the other model. check_file:
    raises ResourceError if the file of weights used in place has changed.
    """

    backend: Backend
    name: str
    ctx_size: int
    cache_types: CacheTypes
    chunk: int
    vocab_size: int
    check_file: Callable[[], None]

    def for_one_text(self) -> DraftExecutor:
        """One slot, which grows with its text."""
        return self._executor(1, FIRST_CAPACITY, self.ctx_size)

    def for_slots(self, slots: int, capacity: int) -> DraftExecutor:
        """As many slots as a batch engine has, of its capacity."""
        limit = min(capacity, self.ctx_size)
        return self._executor(slots, limit, limit)

    def cache_bytes(self, slots: int, capacity: int) -> int:
        """Bytes of the cache of `for_slots`."""
        return cache_bytes(self.backend.config, min(capacity, self.ctx_size), self.cache_types, batch=slots)

    def _executor(self, slots: int, capacity: int, limit: int) -> DraftExecutor:
        return DraftExecutor(self.backend, slots, capacity, limit, self.cache_types, self.chunk, self.vocab_size)
