"""A session: the key/value cache between calls, and which tokens it holds."""

from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Int

from minillama.engine.backends.base import Executor, Kept
from minillama.engine.backends.programs import Choice
from minillama.engine.batches import Batches
from minillama.gguf.kv_cache_types import CacheTypes

FIRST_CAPACITY = 512  # positions a cache starts with; it doubles when they are used up
CHUNKS = (16, 24, 32, 40, 48, 64, 96, 128, 192, 256, 384, 512)  # what is shorter is padded, for few programs to compile
LEAST_CHUNK = CHUNKS[0]


def pass_size(count: int) -> int:
    """How many tokens a verification of `count` runs: a power of two, so that few programs are compiled."""
    return 1 << (count - 1).bit_length()


class Session:
    """The state of one text: reading more of it, or another beginning with the same tokens, costs only what is new.

    Made by `LLM.session()`. `tokens` are those that the cache holds. A step may run ahead of them: what it runs counts
    once `hold` has named it, and is forgotten by the next call if it never is.
    """

    def __init__(
        self,
        executor: Executor,
        ctx_size: int,
        batches: Batches,
        cache_types: CacheTypes,
    ) -> None:
        self.ctx_size = ctx_size
        self.config = executor.config
        self.tokens: list[int] = []
        self._executor = executor
        self._ahead = 0  # positions behind `tokens` that the cache has been given
        self._batches, self._cache_types = batches, cache_types
        self._cache = self._empty(min(FIRST_CAPACITY, ctx_size))

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self.ctx_size - len(self.tokens)

    @property
    def capacity(self) -> int:
        """Positions that the cache has room for now, before it grows."""
        return self._cache.capacity

    @property
    def nbytes(self) -> int:
        """Bytes that the cache holds."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self._cache))

    def temporaries(self, size: int) -> int | None:
        """Bytes that XLA needs for a time to read a chunk of that many tokens, beside what goes in and comes out."""
        return self._executor.temporaries(size, self._cache)

    def clear(self) -> None:
        """Forget everything."""
        self.keep(0)

    def reserve(self, positions: int) -> None:
        """Grow the cache now to hold that many positions, so that no later call has to."""
        self._ensure(positions)

    def keep(self, count: int) -> None:
        """Forget all but the first `count` tokens."""
        if self._is_lost():  # an interrupt fell between giving the cache to a step and its return
            self._cache, self.tokens = self._empty(min(FIRST_CAPACITY, self.ctx_size)), []
        self.tokens = self.tokens[:count]
        self._ahead = 0
        self._cache = self._executor.set_length(self._cache, np.full(1, len(self.tokens), np.int32))

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep the longest common prefix with `ids`, short of its last token, whose logits are wanted; its length."""
        if self._is_lost():
            self.clear()
        common = 0
        for held, wanted in zip(self.tokens, ids[:-1], strict=False):
            if held != wanted:
                break
            common += 1
        self.keep(common)
        return common

    def read(self, ids: Sequence[int]) -> Iterator[Kept]:
        """Put tokens behind those in the cache, chunk by chunk; yields the logits of each chunk's last token.

        Waits for the device at the end of each batch. The ids must fit in `room`.
        """
        self._settle()
        done, batch_size = 0, self._batches.batch_size
        while done < len(ids):
            self._ensure(len(self.tokens) + 1)
            count, padded = self._next_chunk(min(len(ids) - done, batch_size - done % batch_size))
            chunk = list(ids[done : done + count])
            array = np.array([chunk + [0] * (padded - count)], np.int32)
            logits, self._cache = self._executor.read(array, count, self._cache)
            self.tokens += chunk
            done += count
            if done % batch_size == 0:
                jax.block_until_ready(logits)
            yield logits

    def begin(
        self, chain: Kept, seed: int, recent: Int[np.ndarray, "W"], count: int, logits: Kept
    ) -> tuple[Choice, Kept]:
        """Sample the first token behind what was read; see `Executor.begin`."""
        return self._executor.begin(chain, seed, recent, count, logits)

    def step(self, chain: Kept, state: Kept, token: Kept | int) -> tuple[Choice, Kept]:
        """Run one sampled token and sample the next. There must be room for it.

        A token on the device may still be on its way: `hold` follows when it is known and the text goes on with it.
        """
        self._settle()
        self._ensure(len(self.tokens) + 1)
        self._ahead = 1
        choice, state, self._cache = self._executor.step(chain, state, token, self._cache)
        return choice, state

    def verify(self, chain: Kept, state: Kept, token: int, draft: Sequence[int]) -> tuple[list[int], list[float], Kept]:
        """Run a sampled token and a draft of what follows it, and sample behind each for as long as the draft is right.

        The sampled tokens and their log-probabilities: those of the draft that were right, and one more. `hold` is to
        follow for the token and for all of them but the last. There must be room for as many as `pass_size` says.
        """
        self._settle()
        size = pass_size(1 + len(draft))
        self._ensure(len(self.tokens) + size)
        self._ahead = size
        ids = np.zeros((1, size), np.int32)
        ids[0, : 1 + len(draft)] = token, *draft
        run, state, self._cache = self._executor.verify(chain, state, ids, len(draft), self._cache)
        self._ahead = count = int(run.count)
        return np.asarray(run.tokens)[:count].tolist(), np.asarray(run.logprobs)[:count].tolist(), state

    def hold(self, token: int) -> None:
        """Name the next token that the cache has been given, and so keep it."""
        if not self._ahead:
            raise ValueError(f"token {token} has not been run")
        self.tokens.append(token)
        self._ahead -= 1

    def decode(self, token: int) -> Kept:
        """Put one token behind the others, without sampling; the logits after it. There must be room for it."""
        self._settle()
        self._ensure(len(self.tokens) + 1)
        ids = np.array([[token]], np.int32)
        logits, self._cache = self._executor.decode(ids, self._cache)
        self.tokens.append(token)
        return logits

    def program(self, size: int) -> tuple[int, int]:
        """What, beside model and chain, decides which program runs that many tokens next."""
        return self._capacity_for(len(self.tokens) + size), size

    def _settle(self) -> None:
        """Forget what was run and never held."""
        if self._ahead:
            self.keep(len(self.tokens))

    def _is_lost(self) -> bool:
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self._cache))

    def _next_chunk(self, left: int) -> tuple[int, int]:
        """Tokens of the next chunk, and their padded number: one of `CHUNKS` or ubatch_size, within the cache."""
        largest = self._batches.ubatch_size
        padded = next((size for size in CHUNKS if min(left, largest) <= size < largest), largest)
        self._ensure(min(self.ctx_size, len(self.tokens) + min(left, padded)))
        beyond = self._cache.capacity - len(self.tokens)
        if padded > beyond:
            padded = max((size for size in CHUNKS if size <= beyond), default=1 << (beyond.bit_length() - 1))
        return min(left, padded), padded

    def _capacity_for(self, positions: int) -> int:
        capacity = self._cache.capacity
        while capacity < positions:
            capacity = min(2 * capacity, self.ctx_size)
        return capacity

    def _ensure(self, positions: int) -> None:
        """Grow the cache to hold that many positions."""
        if positions > self.ctx_size:
            raise ValueError(f"{positions} tokens do not fit in a context of {self.ctx_size}")
        capacity = self._capacity_for(positions)
        if capacity > self._cache.capacity:
            self._cache = self._executor.enlarge(self._cache, capacity)

    def _empty(self, capacity: int) -> Kept:
        return self._executor.new_cache(capacity, self._cache_types)
