"""The key/value cache: what attention remembers of earlier positions, a value that goes into a step and comes out."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Float16, Float32, Int, Int8

from minillama.gguf.kv_cache_types import CacheType, CacheTypes
from minillama.model.config import Config

BLOCK = 32  # values that share a scale in q8_0
_DTYPES = {CacheType.F32: jnp.float32, CacheType.F16: jnp.float16, CacheType.BF16: jnp.bfloat16}


class Store(ABC):
    """Keys or values of one layer, [B, K, S, H]: S positions, written as float32 and read as float32.

    Every leaf has the axes B, K, S in front, so that the S positions of a leaf are cut, put and padded alike.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(B, K, S, H)."""

    @property
    @abstractmethod
    def kind(self) -> CacheType:
        """How the numbers are stored."""

    @property
    def capacity(self) -> int:
        """S: positions that fit."""
        return self.shape[2]

    @abstractmethod
    def encode(self, numbers: Float32[Array, "B K T H"]) -> "Store":
        """Other positions, stored in the same way."""

    @abstractmethod
    def decode(self) -> Float32[Array, "B K S H"]:
        """All positions."""

    def read(self, start: Int[Array, ""], count: int) -> Float32[Array, "B K count H"]:
        """`count` positions from `start` on, of every sequence."""
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, count, axis=2), self).decode()

    def write(self, new: Float32[Array, "B T K H"], start: Int[Array, "B"]) -> "Store":
        """Put T new positions behind the first `start` of each sequence; start + T must not exceed S."""
        return jax.tree.map(partial(_put, start=start), self, self.encode(new.swapaxes(1, 2)))

    def grow(self, capacity: int) -> "Store":
        """The same positions with more room."""
        extra = ((0, 0), (0, 0), (0, capacity - self.capacity), (0, 0))
        return jax.tree.map(lambda leaf: jnp.pad(leaf, extra), self)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Plain(Store):
    """One float per number; the dtype says which."""

    values: Float[Array, "B K S H"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def kind(self) -> CacheType:
        return next(kind for kind, dtype in _DTYPES.items() if self.values.dtype == dtype)

    def encode(self, numbers: Float32[Array, "B K T H"]) -> "Plain":
        return Plain(numbers.astype(self.values.dtype))

    def decode(self) -> Float32[Array, "B K S H"]:
        return self.values.astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Q8(Store):
    """ggml's q8_0: of every 32 numbers the largest becomes ±127, and all are rounded to whole steps of that scale.

    llama.cpp also rotates heads (Hadamard) before it quantises them where H is a multiple of 64; this does not.
    """

    codes: Int8[Array, "B K S H"]
    scales: Float16[Array, "B K S H/32"]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.codes.shape

    @property
    def kind(self) -> CacheType:
        return CacheType.Q8_0

    def encode(self, numbers: Float32[Array, "B K T H"]) -> "Q8":
        blocks = numbers.reshape(*numbers.shape[:-1], -1, BLOCK)
        scales = jnp.max(jnp.abs(blocks), axis=-1) / 127
        inverse = jnp.where(scales > 0, 1 / scales, 0)
        codes = jnp.round(blocks * inverse[..., None]).astype(jnp.int8)
        return Q8(codes.reshape(numbers.shape), scales.astype(jnp.float16))

    def decode(self) -> Float32[Array, "B K S H"]:
        blocks = self.codes.reshape(*self.scales.shape, BLOCK).astype(jnp.float32)
        return (blocks * self.scales.astype(jnp.float32)[..., None]).reshape(self.codes.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values per layer, and how many positions of each sequence hold something.

    Positions from `length` on are unspecified: attention masks them, the next step overwrites them.
    """

    keys: tuple[Store, ...]
    values: tuple[Store, ...]
    length: Int[Array, "B"]

    @property
    def capacity(self) -> int:
        """S: positions that fit."""
        return self.keys[0].capacity


def cache_bytes(config: Config, capacity: int, types: CacheTypes, batch: int = 1) -> int:
    """Bytes of a cache: L B S K times those of a head."""
    heads = config.block_count * batch * capacity * config.head_count_kv
    return heads * types.head_bytes(config.key_length, config.value_length)


def empty_cache(config: Config, capacity: int, types: CacheTypes, batch: int = 1, layers: int | None = None) -> Cache:
    """A cache with room for `capacity` positions in each of `batch` sequences, for all layers or the first few.

    Raises OptionError where a head does not divide into blocks of its type.
    """
    types.head_bytes(config.key_length, config.value_length)
    count = config.block_count if layers is None else layers
    shape = (batch, config.head_count_kv, capacity)
    return Cache(
        tuple(empty_store(types.keys, *shape, config.key_length) for _ in range(count)),
        tuple(empty_store(types.values, *shape, config.value_length) for _ in range(count)),
        _zeros((batch,), jnp.int32),
    )


def grow(cache: Cache, capacity: int) -> Cache:
    """The same cache with more room."""
    return replace(
        cache,
        keys=tuple(store.grow(capacity) for store in cache.keys),
        values=tuple(store.grow(capacity) for store in cache.values),
    )


def take(cache: Cache, rows: Int[Array, "n"] | Int[np.ndarray, "n"]) -> Cache:
    """The sequences of a cache by number, some of them perhaps several times."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), cache)


def empty_store(kind: CacheType, batch: int, heads: int, capacity: int, size: int) -> Store:
    """Room for the keys or values of one layer."""
    shape = (batch, heads, capacity)
    if kind is CacheType.Q8_0:
        return Q8(_zeros((*shape, size), jnp.int8), _zeros((*shape, size // BLOCK), jnp.float16))
    return Plain(_zeros((*shape, size), _DTYPES[kind]))


def _zeros(shape: tuple[int, ...], dtype: type) -> Array:
    """Zeros without a program that makes them, which a new process would have to load; not numpy's own memory either,
    for steps give a cache's memory away."""
    return jax.device_put(np.zeros(shape, dtype), may_alias=False)


def _put(leaf: Array, new: Array, start: Int[Array, "B"]) -> Array:
    """T new positions of a leaf behind the first `start` of each sequence."""
    zero = jnp.int32(0)
    if leaf.shape[0] == 1:  # the batched form becomes a scatter, which is slower
        return lax.dynamic_update_slice(leaf, new, (zero, zero, start[0], zero))
    return jax.vmap(lambda one, n, at: lax.dynamic_update_slice(one, n, (zero, at, zero)))(leaf, new, start)
