"""A session: the key/value cache between calls, and which tokens it holds."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from minillama.engine import steps
from minillama.engine.memory import chunk_size
from minillama.engine.placement import Placement
from minillama.model import Cache, Config, Params, empty_cache
from minillama.sampling import Chain, SamplerState

FIRST_CAPACITY = 512  # positions a cache starts with; it doubles when they are used up
LEAST_CHUNK = 16  # shorter chunks are padded to this, so that few programs are compiled


class Session:
    """The state of one text: reading more of it, or another beginning with the same tokens, costs only what is new.

    Made by `LLM.session()`. `tokens` are those that the cache holds.
    """

    def __init__(self, params: Params, config: Config, placement: Placement, ctx_size: int, ubatch_size: int) -> None:
        self.ctx_size = ctx_size
        self.tokens: list[int] = []
        self._params, self._config, self._placement = params, config, placement
        self._largest_chunk = chunk_size(config, ctx_size, ubatch_size)
        self._cache = self._empty(min(FIRST_CAPACITY, ctx_size))

    @property
    def room(self) -> int:
        """Tokens that still fit."""
        return self.ctx_size - len(self.tokens)

    def clear(self) -> None:
        """Forget everything."""
        self.keep(0)

    def keep(self, count: int) -> None:
        """Forget all but the first `count` tokens."""
        self.tokens = self.tokens[:count]
        self._cache = replace(self._cache, length=jnp.full_like(self._cache.length, len(self.tokens)))

    def reuse(self, ids: Sequence[int]) -> int:
        """Keep the longest common prefix with `ids`, short of its last token, whose logits are wanted; its length."""
        if self._cache.length.is_deleted():  # an interrupt fell between giving the cache to a step and its return
            self._cache, self.tokens = self._empty(min(FIRST_CAPACITY, self.ctx_size)), []
        common = 0
        for held, wanted in zip(self.tokens, ids[:-1], strict=False):
            if held != wanted:
                break
            common += 1
        self.keep(common)
        return common

    def read(self, ids: Sequence[int]) -> Iterator[Float[Array, "V"]]:
        """Put tokens behind those in the cache, chunk by chunk; yields the logits of each chunk's last token.

        The ids must fit in `room`.
        """
        done = 0
        while done < len(ids):
            self._ensure(len(self.tokens) + 1)
            count, padded = self._next_chunk(len(ids) - done)
            chunk = list(ids[done : done + count])
            array = jnp.asarray(np.array([chunk + [0] * (padded - count)], np.int32))
            logits, self._cache = steps.read(self._params, self._config, self._placement, array, count, self._cache)
            self.tokens += chunk
            done += count
            yield logits

    def step(self, chain: Chain, state: SamplerState, token: Array) -> tuple[steps.Choice, SamplerState]:
        """Put one sampled token behind the others and sample the next. There must be room for it."""
        self._ensure(len(self.tokens) + 1)
        held = int(token)
        choice, state, self._cache = steps.step(
            self._params, self._config, self._placement, chain, state, token, self._cache
        )
        self.tokens.append(held)
        return choice, state

    def program(self) -> tuple[Config, int]:
        """What, beside the chain's structure, decides which compiled step runs next: the model and the cache's size."""
        return self._config, self._capacity_for(len(self.tokens) + 1)

    def _next_chunk(self, left: int) -> tuple[int, int]:
        """Tokens of the next chunk, and their padded number: a power of two that does not reach beyond the cache."""
        padded = LEAST_CHUNK
        while padded < min(left, self._largest_chunk):
            padded *= 2
        needed = len(self.tokens) + min(left, padded)
        self._ensure(min(self.ctx_size, needed))
        beyond = self._cache.capacity - len(self.tokens)
        while padded > beyond:
            padded //= 2
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
            self._cache = steps.enlarge(self._cache, capacity) if self._placement.single else self._grow_apart(capacity)

    def _grow_apart(self, capacity: int) -> Cache:
        """Grow a cache whose layers lie on several devices."""
        alone = [
            steps.enlarge(Cache((k,), (v,), jax.device_put(self._cache.length, k.device)), capacity)
            for k, v in zip(self._cache.keys, self._cache.values, strict=True)
        ]
        return Cache(tuple(c.keys[0] for c in alone), tuple(c.values[0] for c in alone), self._cache.length)

    def _empty(self, capacity: int) -> Cache:
        cache = empty_cache(self._config, capacity)
        layers = self._placement.devices[:-1]
        return Cache(
            tuple(jax.device_put(k, device) for k, device in zip(cache.keys, layers, strict=True)),
            tuple(jax.device_put(v, device) for v, device in zip(cache.values, layers, strict=True)),
            jax.device_put(cache.length, layers[0]),
        )
