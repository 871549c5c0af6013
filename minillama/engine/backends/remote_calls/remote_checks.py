"""Checks of the numbers in a leader's calls, against model and caches.

Each program has a check of its arguments, which gives the lengths of the cache that it returns. So no call computes
outside of a cache or of the vocabulary. The kernels limit the same numbers again.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from minillama.array_types import Int, Shaped
from minillama.engine.loading.memory_budget import available_bytes
from minillama.errors import ResourceError
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model import Cache, Config, cache_bytes
from minillama.sampling import SamplerState
from minillama.sampling.mersenne_twister import WORDS
from minillama.sampling.packed_chain import PackedChain
from minillama.sampling.sampled_token import mask_words

MOST_POSITIONS = 1 << 30  # of a cache: positions are int32
MOST_TEXTS = 1 << 20
MOST_SHARES = 1024


@dataclass(frozen=True)
class HeldCache:
    """A cache of this worker, with a lower bound of the length of each text.

    The lengths themselves are on the device; after a draft they are not known here yet.
    """

    cache: Cache
    types: CacheTypes
    lengths: Int[np.ndarray, "B"]
    chunk: int | None = None  # most tokens of a pass, where sliding windows keep the last positions only

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def capacity(self) -> int:
        return self.cache.capacity


def in_range(value: object, name: str, low: int, high: int) -> int:
    """A whole number from low to high; raises ValueError for any other value."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{name} is {value!r:.40}, not {low} to {high}")
    return value


def check_shares(shares: object) -> list[float]:
    """Shares of the layers, numbers of 0 or more; raises ValueError for anything else."""
    if not isinstance(shares, list) or len(shares) > MOST_SHARES:
        raise ValueError(f"shares is {shares!r:.40}")
    for share in shares:
        if type(share) not in (int, float) or not 0 <= share < math.inf:
            raise ValueError(f"a share is {share!r:.40}, not a number of 0 or more")
    return [float(share) for share in shares]


def check_new_cache(
    config: Config, capacity: object, types: CacheTypes, batch: object, chunk: object = None
) -> tuple[int, int]:
    """Capacity and batch of a cache that this machine has memory for."""
    positions = in_range(capacity, "capacity", 1, MOST_POSITIONS)
    texts = in_range(batch, "batch", 1, MOST_TEXTS)
    tokens = None if chunk is None else in_range(chunk, "chunk", 1, MOST_POSITIONS)
    needed = cache_bytes(config, positions, types, texts, tokens) // jax.process_count()
    free = available_bytes(jax.local_devices()[0])
    if needed > free:
        raise ResourceError(
            f"a cache of {needed / 2**30:.2f} GiB does not fit in the {free / 2**30:.2f} GiB that are free here; "
            "choose a smaller ctx_size"
        )
    return positions, texts


def check_truncate(cache: HeldCache, length: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The new lengths, within the cache."""
    return check_each(length, "length", cache.batch, 0, cache.capacity)


def check_restore(cache: HeldCache, saved: HeldCache, length: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The lengths after a checkpoint of as many texts is restored."""
    in_range(saved.batch, "texts of the checkpoint", cache.batch, cache.batch)
    return check_truncate(cache, length)


def _prefill(config: Config, cache: HeldCache, ids: Any, n_valid: Int[np.ndarray, "n"]) -> Int[np.ndarray, "B"]:
    _new_tokens(config, cache, ids)
    return cache.lengths + check_each(n_valid, "valid", cache.batch, 1, ids.shape[1])


def _hidden(config: Config, cache: HeldCache, ids: Any, valid: Any) -> Int[np.ndarray, "B"]:
    _new_tokens(config, cache, ids)
    if valid is None:
        return cache.lengths + np.int32(ids.shape[1])
    return cache.lengths + check_each(valid, "valid", cache.batch, 0, ids.shape[1])


def _logits(config: Config, states: jax.Array) -> None:
    _states(config, states)


def _nll(config: Config, states: jax.Array, targets: Any, first: int) -> None:
    _states(config, states)
    check_tokens(config, targets, states.shape[0])
    in_range(first, "first", 0, states.shape[1] - targets.shape[1])


def _generate(
    config: Config,
    cache: HeldCache,
    chain: PackedChain,
    state: SamplerState | None,
    ids: Any,
    n_draft: Any,
    allowed: Any,
) -> Int[np.ndarray, "B"]:
    _new_tokens(config, cache, ids)
    if n_draft is None:
        in_range(ids.shape[1], "tokens without a draft", 1, 1)
    else:
        check_each(n_draft, "draft", cache.batch, 0, ids.shape[1] - 1)
        if allowed is not None:
            raise ValueError("masks with a draft")
    check_masks(config, allowed, cache.batch)
    if state is not None:
        check_shape(state.recent, "the sampler's window", (cache.batch, chain.window))
    return cache.lengths + np.int32(1)


def _start(
    config: Config,
    chain: PackedChain,
    seeds: Shaped[np.ndarray, "n words"],
    recent: Int[np.ndarray, "n W"],
    count: Int[np.ndarray, "n"],
) -> None:
    batch = in_range(len(seeds), "texts", 1, MOST_TEXTS)
    check_shape(seeds, "seeds", (batch, WORDS))
    check_shape(recent, "recent", (batch, chain.window))
    check_within(recent, "a recent token", 0, config.vocab_size - 1)
    check_each(count, "count", batch, 0, chain.window)


def _resize(config: Config, cache: HeldCache, capacity: int) -> Int[np.ndarray, "B"]:
    in_range(capacity, "capacity", cache.capacity, MOST_POSITIONS)
    check_new_cache(config, capacity, cache.types, cache.batch, cache.chunk)
    return cache.lengths


def _gather_rows(config: Config, cache: HeldCache, rows: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    check_each(rows, "row", in_range(len(rows), "rows", 1, MOST_TEXTS), 0, cache.batch - 1)
    check_new_cache(config, cache.capacity, cache.types, len(rows), cache.chunk)
    return cache.lengths[rows]


def _slide(config: Config, cache: HeldCache, first: Int[np.ndarray, "B"]) -> Int[np.ndarray, "B"]:
    check_each(first, "first", cache.batch, 0, cache.capacity)
    return cache.lengths


CHECKS: Mapping[str, Callable[..., Int[np.ndarray, "_"] | None]] = {
    "prefill": _prefill,
    "read": _prefill,
    "hidden": _hidden,
    "logits": _logits,
    "nll": _nll,
    "generate": _generate,
    "start": _start,
    "resize": _resize,
    "gather_rows": _gather_rows,
    "slide": _slide,
}


def _new_tokens(config: Config, cache: HeldCache, ids: Any) -> None:
    """Token ids [B, T] that the cache has room for."""
    check_tokens(config, ids, cache.batch)
    in_range(int(cache.lengths.max()) + ids.shape[1], "length", 1, cache.capacity)


def check_tokens(config: Config, ids: Any, batch: int) -> None:
    """Token ids [batch, T] of the vocabulary; those that were sampled here are."""
    in_range(ids.shape[1], "tokens", 1, MOST_POSITIONS)
    check_shape(ids, "ids", (batch, ids.shape[1]))
    if isinstance(ids, np.ndarray):
        check_within(ids, "a token", 0, config.vocab_size - 1)


def check_masks(config: Config, allowed: Any, batch: int) -> None:
    """Bits of allowed tokens of each text, at least one."""
    if allowed is None:
        return
    check_shape(allowed, "masks", (batch, mask_words(config.vocab_size)))
    if not allowed.any(axis=1).all():
        raise ValueError("a mask of no token")


def _states(config: Config, states: jax.Array) -> None:
    """Hidden states [B, T, D]."""
    if states.ndim != 3 or states.shape[2] != config.embedding_length:
        raise ValueError(f"hidden states of shape {states.shape}")


def check_each(values: Shaped[np.ndarray, "_"], name: str, batch: int, low: int, high: int) -> Shaped[np.ndarray, "_"]:
    """A number in a range for each text."""
    check_shape(values, name, (batch,))
    check_within(values, name, low, high)
    return values


def check_shape(array: Any, name: str, shape: tuple[int, ...]) -> None:
    """Raise ValueError for an array of another shape."""
    if array.shape != shape:
        raise ValueError(f"{name} of shape {array.shape}, not {shape}")


def check_within(values: Shaped[np.ndarray, "*axes"], name: str, low: int, high: int) -> None:
    """Raise ValueError for a number below `low` or above `high`."""
    if values.size and not (low <= int(values.min()) and int(values.max()) <= high):
        wrong = int(values.min()) if values.min() < low else int(values.max())
        raise ValueError(f"{name} is {wrong}, not {low} to {high}")
