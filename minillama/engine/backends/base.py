"""Who computes a model's steps: this process's devices, layer by layer or all of them on one, or those of `spread`.

Caches, chains, states and logits that an executor gives out are its own: others hand them back, and look at tokens,
log-probabilities and logits as numbers only.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from minillama.engine.backends import programs
from minillama.engine.backends.packed_params import Packed, pack
from minillama.engine.backends.programs import Choice, Run
from minillama.engine.loading.layer_placement import Placement
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Cache, Config, Params, take
from minillama.sampling import Sampling, build_chain

Kept = Any  # a cache, chain, state, or array that lives where the executor computes


class Executor(ABC):
    """The steps of one open model."""

    config: Config

    @property
    @abstractmethod
    def devices(self) -> tuple[jax.Device, ...]:
        """The devices that compute, the one that samples last."""

    @abstractmethod
    def chain(self, sampling: Sampling) -> Kept:
        """The samplers that some options ask for, where they will run."""

    @abstractmethod
    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1) -> Kept:
        """An empty cache."""

    @abstractmethod
    def enlarge(self, cache: Kept, capacity: int) -> Kept:
        """The same cache with more room."""

    @abstractmethod
    def set_length(self, cache: Kept, length: Int[np.ndarray, "B"]) -> Kept:
        """The same cache, of which so many positions of each text count."""

    @abstractmethod
    def take(self, cache: Kept, rows: Int[np.ndarray, "n"]) -> Kept:
        """The texts of a cache by number, some of them perhaps several times."""

    @abstractmethod
    def read(self, ids: Int[np.ndarray, "1 T"], valid: int, cache: Kept) -> tuple[Kept, Kept]:
        """Run a chunk of T tokens, of which the first `valid` count; logits of the last of these."""

    @abstractmethod
    def read_all(self, ids: Int[np.ndarray, "1 T"], cache: Kept) -> tuple[Kept, Kept]:
        """Run a chunk and give the logits of every position."""

    @abstractmethod
    def run(self, ids: Int[np.ndarray, "B T"], cache: Kept) -> tuple[Kept, Kept]:
        """Run a chunk of T tokens of each of B texts; hidden states, normed and ready for the head."""

    @abstractmethod
    def score(self, hidden: Kept, targets: Int[np.ndarray, "B T"], first: int = 0) -> Kept:
        """The negative log-likelihood of each target behind its hidden state, the first of which is number `first`."""

    @abstractmethod
    def decode(self, ids: Int[np.ndarray, "1 1"], cache: Kept) -> tuple[Kept, Kept]:
        """Run one token without sampling; the logits after it."""

    @abstractmethod
    def begin(
        self, chain: Kept, seed: int, recent: Int[np.ndarray, "W"], count: int, logits: Kept
    ) -> tuple[Choice, Kept]:
        """Sample the first token, with a new sampler that has seen the first `count` of the prompt's recent tokens."""

    @abstractmethod
    def step(self, chain: Kept, state: Kept, token: Kept | int, cache: Kept) -> tuple[Choice, Kept, Kept]:
        """Run one token and sample the next."""

    @abstractmethod
    def verify(
        self, chain: Kept, state: Kept, ids: Int[np.ndarray, "1 T"], drafted: int, cache: Kept
    ) -> tuple[Run, Kept, Kept]:
        """Run a token, a draft of what follows it and padding; see `programs.verify`."""

    def agree(self, number: int) -> int:
        """The same number in all processes that run this program: one of theirs."""
        return number

    def temporaries(self, size: int, cache: Kept) -> int | None:
        """Bytes that XLA needs for a time to read a chunk of that size; None where that is not known."""
        return None

    def close(self) -> None:
        """Let go of whoever else computes; here nobody does."""
        return


@dataclass(frozen=True, eq=False)
class OnDevices(Executor):
    """This process's devices: one for all layers, or each for some of them."""

    params: Params
    config: Config
    placement: Placement

    @property
    def devices(self) -> tuple[jax.Device, ...]:
        return self.placement.devices

    @cached_property
    def _weights(self) -> Packed:
        return pack(self.params, join=self.placement.single is not None)

    def chain(self, sampling: Sampling) -> Kept:
        return jax.device_put(build_chain(sampling, self.config.vocab_size), self.placement.devices[-1])

    def new_cache(self, capacity: int, types: CacheTypes, batch: int = 1) -> Kept:
        return programs.new_cache(self.config, self.placement, capacity, types, batch)

    def enlarge(self, cache: Kept, capacity: int) -> Kept:
        if self.placement.single is not None:
            return programs.enlarge(cache, capacity)
        alone = [
            programs.enlarge(Cache((k,), (v,), jax.device_put(cache.length, device)), capacity)
            for k, v, device in zip(cache.keys, cache.values, self.placement.devices[:-1], strict=True)
        ]
        return Cache(tuple(c.keys[0] for c in alone), tuple(c.values[0] for c in alone), cache.length)

    def set_length(self, cache: Kept, length: Int[np.ndarray, "B"]) -> Kept:
        return replace(cache, length=jax.device_put(length, self.placement.devices[0]))  # no program to compile

    def take(self, cache: Kept, rows: Int[np.ndarray, "n"]) -> Kept:
        return take(cache, rows)

    def read(self, ids: Int[np.ndarray, "1 T"], valid: int, cache: Kept) -> tuple[Kept, Kept]:
        return programs.read(self._weights, self.config, self.placement, ids, valid, cache)

    def read_all(self, ids: Int[np.ndarray, "1 T"], cache: Kept) -> tuple[Kept, Kept]:
        return programs.read_all(self._weights, self.config, self.placement, ids, cache)

    def run(self, ids: Int[np.ndarray, "B T"], cache: Kept) -> tuple[Kept, Kept]:
        return programs.run(self._weights, self.config, self.placement, ids, cache)

    def score(self, hidden: Kept, targets: Int[np.ndarray, "B T"], first: int = 0) -> Kept:
        return programs.score(programs.head_of(self.params), self.config, hidden, targets, first)

    def decode(self, ids: Int[np.ndarray, "1 1"], cache: Kept) -> tuple[Kept, Kept]:
        return programs.decode(self._weights, self.config, self.placement, ids, cache)

    def begin(
        self, chain: Kept, seed: int, recent: Int[np.ndarray, "W"], count: int, logits: Kept
    ) -> tuple[Choice, Kept]:
        return programs.begin(chain, np.asarray(seed, np.uint32), recent, np.asarray(count, np.int32), logits)

    def step(self, chain: Kept, state: Kept, token: Kept | int, cache: Kept) -> tuple[Choice, Kept, Kept]:
        if isinstance(token, int):  # put on a device by name: left open, it would be another program to JAX
            token = jax.device_put(np.int32(token), self.placement.devices[-1])
        return programs.step(self._weights, self.config, self.placement, chain, state, token, cache)

    def verify(
        self, chain: Kept, state: Kept, ids: Int[np.ndarray, "1 T"], drafted: int, cache: Kept
    ) -> tuple[Run, Kept, Kept]:
        count = np.array(drafted, np.int32)
        return programs.verify(self._weights, self.config, self.placement, chain, state, ids, count, cache)

    def temporaries(self, size: int, cache: Kept) -> int | None:
        return programs.read_temporaries(self._weights, self.config, self.placement, size, cache)
