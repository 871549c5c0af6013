"""The key/value cache: what attention remembers of earlier positions, a value that goes into a step and comes out."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from minillama.model.config import Config


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """Keys and values per layer, and how many positions of each sequence hold something.

    Positions from `length` on are unspecified: attention masks them, the next step overwrites them.
    """

    keys: tuple[Float[Array, "B K S H"], ...]
    values: tuple[Float[Array, "B K S H"], ...]
    length: Int[Array, "B"]

    @property
    def capacity(self) -> int:
        """S: positions that fit."""
        return self.keys[0].shape[2]


def cache_bytes(config: Config, capacity: int, batch: int = 1) -> int:
    """Bytes of a float32 cache: 4 L B S K (H_k + H_v)."""
    return 4 * config.block_count * batch * capacity * config.head_count_kv * (config.key_length + config.value_length)


def empty_cache(config: Config, capacity: int, batch: int = 1, layers: int | None = None) -> Cache:
    """A cache with room for `capacity` positions in each of `batch` sequences, for all layers or the first few."""
    count = config.block_count if layers is None else layers
    shape = (batch, config.head_count_kv, capacity)
    return Cache(
        tuple(jnp.zeros((*shape, config.key_length), jnp.float32) for _ in range(count)),
        tuple(jnp.zeros((*shape, config.value_length), jnp.float32) for _ in range(count)),
        jnp.zeros(batch, jnp.int32),
    )


def grow(cache: Cache, capacity: int) -> Cache:
    """The same cache with more room."""
    extra = ((0, 0), (0, 0), (0, capacity - cache.capacity), (0, 0))
    return replace(
        cache, keys=tuple(jnp.pad(k, extra) for k in cache.keys), values=tuple(jnp.pad(v, extra) for v in cache.values)
    )


def write(
    store: Float[Array, "B K S H"], new: Float[Array, "B T K H"], start: Int[Array, "B"]
) -> Float[Array, "B K S H"]:
    """Put T new positions behind the first `start` of each sequence; start + T must not exceed S."""
    new = new.swapaxes(1, 2)
    zero = jnp.int32(0)
    if store.shape[0] == 1:  # the batched form becomes a scatter, which is slower
        return lax.dynamic_update_slice(store, new, (zero, zero, start[0], zero))
    return jax.vmap(lambda s, n, at: lax.dynamic_update_slice(s, n, (zero, at, zero)))(store, new, start)
