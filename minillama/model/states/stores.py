"""Storage of a layer's keys or values, by cache type."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from minillama.array_types import Float, Float32, Int, UInt8
from minillama.gguf.kv_cache_types import CacheType
from minillama.gguf.types import BLOCKS, row_bytes
from minillama.kernels.decode_blocks import decode, dequantize
from minillama.kernels.encode_blocks import encode

_DTYPES = {CacheType.F32: jnp.float32, CacheType.F16: jnp.float16, CacheType.BF16: jnp.bfloat16}


class Store(ABC):
    """Keys or values of one layer, [B, K, S, H], written and read as float32.

    The first axes of every leaf are B, K, S, so that reading, writing and padding treat all leaves alike.
    """

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(B, K, S, H)."""

    @property
    @abstractmethod
    def kind(self) -> CacheType:
        """The storage type."""

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

    def of_rows(self, slots: Int[Array, "B"] | None) -> "Store":
        """A copy of some rows; the store itself where `slots` is None."""
        return self if slots is None else jax.tree.map(lambda leaf: jnp.take(leaf, slots, axis=0, mode="clip"), self)

    def read(
        self, start: Int[Array, ""], count: int, slots: Int[Array, "B"] | None = None
    ) -> Float32[Array, "B K count H"]:
        """`count` positions from `start` on, of every text or of some rows."""
        some = jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, count, axis=2), self)
        return some.of_rows(slots).decode()

    def write(
        self, new: Float32[Array, "B T K H"], start: Int[Array, "B"], slots: Int[Array, "B"] | None = None
    ) -> "Store":
        """Put T new positions after the first `start` of each text.

        Start + T must not exceed S. slots: the row of each text; one outside of the store writes nothing.
        """
        return jax.tree.map(partial(_put, start=start, slots=slots), self, self.encode(new.swapaxes(1, 2)))

    def resize(self, capacity: int) -> "Store":
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
class Quantised(Store):
    """Blocks of 32 numbers that share a scale, with ggml's bytes."""

    blocks: UInt8[Array, "B K S bytes"]
    type: CacheType = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        weights, size = BLOCKS[self.type.tensor_type]
        return (*self.blocks.shape[:3], self.blocks.shape[3] // size * weights)

    @property
    def kind(self) -> CacheType:
        return self.type

    def encode(self, numbers: Float32[Array, "B K T H"]) -> "Quantised":
        return Quantised(encode(numbers, self.type.tensor_type), self.type)

    def decode(self) -> Float32[Array, "B K S H"]:
        return dequantize(decode(self.blocks, self.type.tensor_type))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FirstChannels:
    """The first channels of every head in a store, without a copy."""

    store: Store
    size: int = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, K, S, size)."""
        return (*self.store.shape[:3], self.size)

    @property
    def kind(self) -> CacheType:
        """The storage type."""
        return self.store.kind

    def decode(self) -> Float32[Array, "B K S size"]:
        """All positions."""
        return self.store.decode()[..., : self.size]

    def of_rows(self, slots: Int[Array, "B"] | None) -> "FirstChannels":
        """A copy of some rows; the store itself where `slots` is None."""
        return FirstChannels(self.store.of_rows(slots), self.size)

    def read(
        self, start: Int[Array, ""], count: int, slots: Int[Array, "B"] | None = None
    ) -> Float32[Array, "B K count size"]:
        """`count` positions from `start` on, of every text or of some rows."""
        return self.store.read(start, count, slots)[..., : self.size]


def empty_store(kind: CacheType, batch: int, heads: int, capacity: int, size: int) -> Store:
    """Room for the keys or values of one layer."""
    shape = (batch, heads, capacity)
    if kind.is_quantised:
        return Quantised(zeros((*shape, row_bytes(size, kind.tensor_type)), jnp.uint8), kind)
    return Plain(zeros((*shape, size), _DTYPES[kind]))


def zeros(shape: tuple[int, ...], dtype: type) -> Array:
    """Zeros by a copy, without a compiled program to load.

    Not in numpy's own memory, since steps donate a cache.
    """
    return jax.device_put(np.zeros(shape, dtype), may_alias=False)


def _put(leaf: Array, new: Array, start: Int[Array, "B"], slots: Int[Array, "B"] | None) -> Array:
    """Write T new positions of a leaf after the first `start` of each text."""
    zero = jnp.int32(0)
    if new.shape[0] == 1:  # the batched forms lower to a scatter, which is slower
        place = (zero if slots is None else slots[0], zero, start[0], zero)
        if slots is not None:
            new = jnp.where(slots[0] < leaf.shape[0], new, lax.dynamic_slice(leaf, place, new.shape))
        return lax.dynamic_update_slice(leaf, new, place)
    if slots is not None:
        places = start[:, None] + jnp.arange(new.shape[2], dtype=jnp.int32)[None]
        return leaf.at[slots[:, None], :, places].set(new.swapaxes(1, 2), mode="drop")
    return jax.vmap(lambda one, n, at: lax.dynamic_update_slice(one, n, (zero, at, zero)))(leaf, new, start)
