"""Grouped-query attention over the cache (Ainslie et al. 2023), in float32.

`attention` goes over the keys in tiles, as FlashAttention does (Dao et al. 2022; the running softmax is Milakov and
Gimelshein's of 2018): it never holds all weights at once, and does not look at what the cache does not hold yet.
`attention_weights` and `attend` are the formula itself, for those who want to see the weights.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float, Int

from minillama.kernels import cpu_kernels_error
from minillama.model.cache import Store

TILE = 128  # keys at a time on a CPU: the scores of a head stay in its cache
LARGEST_HEAD, MOST_GROUPS = 512, 64  # of the processor's own kernel
LARGE_TILE = 1024  # elsewhere, where every tile is launched as kernels of its own


def tile_size(platform: str) -> int:
    """Keys that `attention` takes at a time on one of JAX's platforms."""
    return TILE if platform == "cpu" else LARGE_TILE


@partial(jax.jit, static_argnames=("scale", "softcap", "window"))  # traced once for all layers that are alike
def attention(
    q: Float[Array, "B T N H"],
    keys: Store,
    values: Store,
    positions: Int[Array, "B T"],
    scale: float,
    softcap: float,
    window: int,
) -> Float[Array, "B T NH"]:
    """softmax(q·k scale) v over the positions that a query may see, heads side by side.

    positions: of the queries, whose own keys and values the cache holds already.
    softcap: scores are squeezed into ±softcap; window: only the last so many positions are seen; 0 for neither.
    """
    form = partial(attention_in_tiles, scale=scale, softcap=softcap, window=window)
    on_cpu = partial(form, tile=TILE)
    if cpu_kernels_error() is None and _fits_kernel(q, keys, values):
        on_cpu = partial(_attention_of_kernel, (scale, softcap, window))
    if jax.default_backend() == "cpu":
        return on_cpu(q, keys, values, positions)
    return lax.platform_dependent(q, keys, values, positions, cpu=on_cpu, default=partial(form, tile=LARGE_TILE))


def _fits_kernel(q: Float[Array, "B T N H"], keys: Store, values: Store) -> bool:
    """Whether heads are as small and as few as they are in any known model: a kernel keeps them on its stack."""
    return max(keys.shape[-1], values.shape[-1]) <= LARGEST_HEAD and q.shape[2] // keys.shape[1] <= MOST_GROUPS


def _attention_of_kernel(
    constants: tuple[float, float, int], q: Float[Array, "B T N H"], keys: Store, values: Store, positions: Array
) -> Float[Array, "B T NH"]:
    """The processor's own kernel, written for these sizes."""
    from minillama.kernels.cpu.attention.attend import attend as run_kernel
    from minillama.kernels.cpu.attention.attention_op import AttentionSpec

    groups = q.shape[2] // keys.shape[1]
    heads = AttentionSpec(keys.shape[-1], values.shape[-1], groups, keys.kind, values.kind, bool(constants[1]))
    return run_kernel(heads, q, positions, jax.tree.leaves(keys), jax.tree.leaves(values), *constants)


def attention_in_tiles(
    q: Float[Array, "B T N H"],
    keys: Store,
    values: Store,
    positions: Int[Array, "B T"],
    scale: float,
    softcap: float,
    window: int,
    tile: int,
) -> Float[Array, "B T NH"]:
    batch, kv_heads, capacity, size = keys.shape
    time, tile = q.shape[1], min(tile, capacity)
    per_query = (batch, kv_heads, q.shape[2] // kv_heads, time)  # [B, K, G, T]
    rows = _grouped(q, kv_heads).transpose(0, 2, 3, 1, 4).reshape(batch, kv_heads, -1, size) * scale
    first = jnp.maximum(jnp.min(positions) - (window - 1), 0) // tile if window else jnp.int32(0)
    last = jnp.max(positions) // tile

    def visit(number: Int[Array, ""], state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Take a tile into the largest score, the sum of exponentials and the weighted sum of values so far."""
        largest, total, acc = state
        start = jnp.minimum(number * tile, capacity - tile)  # the last tile may overlap the one before it
        span = start + jnp.arange(tile, dtype=jnp.int32)
        seen = _visible(positions, span, window) & (span >= number * tile)[None, None, None, None]
        scores = jnp.einsum("BKRH,BKSH->BKRS", rows, keys.read(start, tile)).reshape(*per_query, tile)
        scores = jnp.where(seen, _capped(scores, softcap), -jnp.inf)
        larger = jnp.maximum(largest, jnp.max(scores, axis=-1))
        rescale, weights = jnp.exp(largest - larger), jnp.exp(scores - larger[..., None])
        added = jnp.einsum("BKRS,BKSH->BKRH", weights.reshape(*rows.shape[:3], tile), values.read(start, tile))
        acc = acc * rescale[..., None] + added.reshape(*per_query, -1)
        return larger, total * rescale + jnp.sum(weights, axis=-1), acc

    nothing = (
        jnp.full(per_query, jnp.finfo(jnp.float32).min),  # finite: a tile unseen by a query gives exp(-inf), not nan
        jnp.zeros(per_query),
        jnp.zeros((*per_query, values.shape[-1])),
    )
    _, total, acc = lax.fori_loop(first, last + 1, visit, nothing)
    return _side_by_side((acc / total[..., None]).transpose(0, 3, 1, 2, 4))


def attention_weights(
    q: Float[Array, "B T N H"],
    keys: Store,
    positions: Int[Array, "B T"],
    scale: float,
    softcap: float,
    window: int,
) -> Float[Array, "B K G T S"]:
    """softmax(q·k scale) over the visible positions; query head j reads key/value head j // G."""
    scores = jnp.einsum("BTKGH,BKSH->BKGTS", _grouped(q, keys.shape[1]), keys.decode()) * scale
    seen = _visible(positions, jnp.arange(keys.capacity, dtype=jnp.int32), window)
    return jax.nn.softmax(jnp.where(seen, _capped(scores, softcap), -jnp.inf), axis=-1)


def attend(weights: Float[Array, "B K G T S"], values: Store) -> Float[Array, "B T NH"]:
    """The weighted mean of the values, heads side by side."""
    return _side_by_side(jnp.einsum("BKGTS,BKSH->BTKGH", weights, values.decode()))


def _visible(positions: Int[Array, "B T"], span: Int[Array, "S"], window: int) -> Bool[Array, "B 1 1 T S"]:
    """Which positions of a span a query may see: itself and earlier ones, and of these the last `window` if not 0."""
    distance = positions[:, :, None] - span[None, None, :]
    seen = distance >= 0
    if window:
        seen = seen & (distance < window)
    return seen[:, None, None]


def _grouped(q: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B T K G H"]:
    batch, time, heads, size = q.shape
    return q.reshape(batch, time, kv_heads, heads // kv_heads, size)


def _side_by_side(acc: Float[Array, "B T K G H"]) -> Float[Array, "B T NH"]:
    return acc.reshape(*acc.shape[:2], -1)


def _capped(scores: Float[Array, "*axes"], softcap: float) -> Float[Array, "*axes"]:
    return softcap * jnp.tanh(scores / softcap) if softcap else scores
