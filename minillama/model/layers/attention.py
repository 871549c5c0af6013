"""Grouped-query attention over the cache (Ainslie et al. 2023), in float32.

`attention` visits the keys in tiles, as FlashAttention does (Dao et al. 2022; the running softmax is by Milakov and
Gimelshein, 2018): it never holds all weights at once, and skips tiles that no query sees. Accelerators visit them at
once for a few tokens, or where one tile holds them.
`attention_weights` and `attend` are the formula itself; tracing uses them.

A sink is a logit of a head that takes part in the softmax and has no value (Xiao et al. 2023; gpt-oss): the weights of
the keys then add up to less than 1. In a running softmax it is the first score, of a value that is zero.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int
from minillama.kernels import cpu_kernels_error, target_platform
from minillama.model.states.stores import FirstChannels, Store

TILE = 128  # keys a step on a CPU: the scores of a head stay in the first cache
LARGEST_HEAD = 576  # of the CPU kernel, whose tiles lie on the stack: that of a latent of DeepSeek
LARGE_TILE = 1024  # elsewhere: every tile launches kernels
FEW_TOKENS = 8  # of a text, up to which an accelerator visits a cache in one pass
LARGEST_PASS = 16_384  # positions of that cache


def tile_size(platform: str) -> int:
    """Keys of one tile of `attention` on a JAX platform."""
    return TILE if platform == "cpu" else LARGE_TILE


@partial(jax.jit, static_argnames=("scale", "softcap", "window"))  # equal layers share one trace
def attention(
    q: Float[Array, "B T N H"],
    keys: Store,
    values: Store | FirstChannels,
    positions: Int[Array, "B T"],
    scale: float,
    softcap: float,
    window: int,
    sinks: Float[Array, "N"] | None = None,
    slots: Int[Array, "B"] | None = None,
) -> Float[Array, "B T NH"]:
    """softmax(q·k scale) v over the visible positions; heads concatenated.

    positions: of the queries, whose own keys and values the cache holds already.
    softcap: bound of the scores, by softcap · tanh(score / softcap); window: positions that a query sees; 0 for none.
    sinks: a logit of each head that joins the softmax; None for none.
    slots: the row of the cache of each text; None where text b has row b.
    """
    constants = {"scale": scale, "softcap": softcap, "window": window}
    on_cpu = partial(attention_in_tiles, **constants, tile=TILE)
    if cpu_kernels_error() is None and _fits_kernel(keys, values):
        on_cpu = partial(_kernel_attention, (scale, softcap, window))
    if target_platform() == "cpu":
        return on_cpu(q, keys, values, positions, sinks, slots)
    default = partial(attention_in_tiles, **constants, tile=LARGE_TILE)
    if keys.shape[2] <= (LARGEST_PASS if q.shape[1] <= FEW_TOKENS else LARGE_TILE):
        default = partial(attention_at_once, **constants)
    return lax.platform_dependent(q, keys, values, positions, sinks, slots, cpu=on_cpu, default=default)


def _fits_kernel(keys: Store, values: Store | FirstChannels) -> bool:
    """Whether the CPU kernel can keep these heads on its stack."""
    return max(keys.shape[-1], values.shape[-1]) <= LARGEST_HEAD


def _kernel_attention(
    constants: tuple[float, float, int],
    q: Float[Array, "B T N H"],
    keys: Store,
    values: Store | FirstChannels,
    positions: Int[Array, "B T"],
    sinks: Float[Array, "N"] | None,
    slots: Int[Array, "B"] | None,
) -> Float[Array, "B T NH"]:
    """The CPU kernel, compiled for these sizes."""
    from minillama.kernels.cpu.attention.attention_args import AttentionSpec
    from minillama.kernels.cpu.attention.attention_op import attend as run_kernel

    groups = q.shape[2] // keys.shape[1]
    sizes = keys.shape[-1], values.shape[-1], groups
    shared = isinstance(values, FirstChannels)
    spec = AttentionSpec(
        *sizes, keys.kind, values.kind, softcap=bool(constants[1]), sinks=sinks is not None, shared=shared
    )
    (key_array,) = jax.tree.leaves(keys)
    value_array = None if shared else jax.tree.leaves(values)[0]
    return run_kernel(spec, q, positions, key_array, value_array, *constants, sinks, slots)


def attention_in_tiles(
    q: Float[Array, "B T N H"],
    keys: Store,
    values: Store | FirstChannels,
    positions: Int[Array, "B T"],
    sinks: Float[Array, "N"] | None = None,
    slots: Int[Array, "B"] | None = None,
    *,
    scale: float,
    softcap: float,
    window: int,
    tile: int,
) -> Float[Array, "B T NH"]:
    """`attention` with a running softmax over tiles of keys."""
    _, kv_heads, capacity, _ = keys.shape
    batch, time, tile = *q.shape[:2], min(tile, capacity)
    per_query = (batch, kv_heads, q.shape[2] // kv_heads, time)  # [B, K, G, T]
    rows = _query_rows(q, kv_heads) * scale
    first = jnp.maximum(jnp.min(positions) - (window - 1), 0) // tile if window else jnp.int32(0)
    last = jnp.clip(jnp.max(positions), -1, capacity - 1) // tile

    def visit(number: Int[Array, ""], state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Update the running maximum, sum of exponentials and weighted values with one tile."""
        row_max, row_sum, acc = state
        start = jnp.minimum(number * tile, capacity - tile)  # the last tile may overlap the one before it
        span = start + jnp.arange(tile, dtype=jnp.int32)
        seen = _visible(positions, span, window) & (span >= number * tile)[None, None, None, None]
        scores = jnp.einsum("BKRH,BKSH->BKRS", rows, keys.read(start, tile, slots)).reshape(*per_query, tile)
        scores = jnp.where(seen, _softcapped(scores, softcap), -jnp.inf)
        new_max = jnp.maximum(row_max, jnp.max(scores, axis=-1))
        rescale, weights = jnp.exp(row_max - new_max), jnp.exp(scores - new_max[..., None])
        added = jnp.einsum("BKRS,BKSH->BKRH", weights.reshape(*rows.shape[:3], tile), values.read(start, tile, slots))
        acc = acc * rescale[..., None] + added.reshape(*per_query, -1)
        return new_max, row_sum * rescale + jnp.sum(weights, axis=-1), acc

    if sinks is None:
        lowest = jnp.finfo(jnp.float32).min  # finite: a tile unseen by a query gives exp(-inf), not nan
        start = jnp.full(per_query, lowest), jnp.zeros(per_query)
    else:
        start = jnp.broadcast_to(_of_heads(sinks, kv_heads)[..., 0], per_query), jnp.ones(per_query)
    nothing = jnp.zeros((*per_query, values.shape[-1]))
    _, row_sum, acc = lax.fori_loop(first, last + 1, visit, (*start, nothing))
    return _concat_heads((acc / row_sum[..., None]).transpose(0, 3, 1, 2, 4))


def attention_at_once(
    q: Float[Array, "B T N H"],
    keys: Store,
    values: Store | FirstChannels,
    positions: Int[Array, "B T"],
    sinks: Float[Array, "N"] | None = None,
    slots: Int[Array, "B"] | None = None,
    *,
    scale: float,
    softcap: float,
    window: int,
) -> Float[Array, "B T NH"]:
    """`attention` in one pass over the whole capacity.

    A loop over tiles ends where only the device knows, so that a GPU's host would wait for it in each layer. This reads
    positions that no query sees, and gives them the weight zero.
    """
    _, kv_heads, capacity, _ = keys.shape
    batch, time = q.shape[:2]
    scores = jnp.einsum("BKRH,BKSH->BKRS", _query_rows(q, kv_heads) * scale, keys.read(jnp.int32(0), capacity, slots))
    scores = scores.reshape(batch, kv_heads, -1, time, capacity)
    weights = _softmax(scores, positions, softcap, window, sinks).reshape(batch, kv_heads, -1, capacity)
    read = values.read(jnp.int32(0), capacity, slots)
    if weights.shape[2] == 1:  # as a product with one row, XLA would transpose the cache
        mixed = jnp.sum(weights[:, :, 0, :, None] * read, axis=2, keepdims=True)
    else:
        mixed = jnp.einsum("BKRS,BKSH->BKRH", weights, read)
    return _concat_heads(mixed.reshape(batch, kv_heads, -1, time, mixed.shape[-1]).transpose(0, 3, 1, 2, 4))


def attention_weights(
    q: Float[Array, "B T N H"],
    keys: Store,
    positions: Int[Array, "B T"],
    scale: float,
    softcap: float,
    window: int,
    sinks: Float[Array, "N"] | None = None,
) -> Float[Array, "B K G T S"]:
    """softmax(q·k scale) over the visible positions; query head j reads key/value head j // G."""
    scores = jnp.einsum("BTKGH,BKSH->BKGTS", _grouped(q, keys.shape[1]), keys.decode()) * scale
    return _softmax(scores, positions, softcap, window, sinks)


def attend(weights: Float[Array, "B K G T S"], values: Store | FirstChannels) -> Float[Array, "B T NH"]:
    """The weighted mean of the values; heads concatenated."""
    return _concat_heads(jnp.einsum("BKGTS,BKSH->BTKGH", weights, values.decode()))


def _softmax(
    scores: Float[Array, "B K G T S"],
    positions: Int[Array, "B T"],
    softcap: float,
    window: int,
    sinks: Float[Array, "N"] | None,
) -> Float[Array, "B K G T S"]:
    """Weights of the visible positions from their scores."""
    seen = _visible(positions, jnp.arange(scores.shape[-1], dtype=jnp.int32), window)
    scores = jnp.where(seen, _softcapped(scores, softcap), -jnp.inf)
    if sinks is None:
        return jax.nn.softmax(scores, axis=-1)
    column = jnp.broadcast_to(_of_heads(sinks, scores.shape[1]), (*scores.shape[:-1], 1))
    return jax.nn.softmax(jnp.concatenate([scores, column], axis=-1), axis=-1)[..., :-1]


def _visible(positions: Int[Array, "B T"], span: Int[Array, "S"], window: int) -> Bool[Array, "B 1 1 T S"]:
    """Causal mask of a span, limited to the last `window` positions if not 0."""
    distance = positions[:, :, None] - span[None, None, :]
    seen = distance >= 0
    if window:
        seen = seen & (distance < window)
    return seen[:, None, None]


def _grouped(q: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B T K G H"]:
    batch, time, heads, size = q.shape
    return q.reshape(batch, time, kv_heads, heads // kv_heads, size)


def _query_rows(q: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K GT H"]:
    """The queries that share a key/value head, as rows of one matrix."""
    return _grouped(q, kv_heads).transpose(0, 2, 3, 1, 4).reshape(q.shape[0], kv_heads, -1, q.shape[-1])


def _of_heads(sinks: Float[Array, "N"], kv_heads: int) -> Float[Array, "1 K G 1 1"]:
    """Sinks next to scores [B, K, G, T, S]."""
    return sinks.astype(jnp.float32).reshape(1, kv_heads, -1, 1, 1)


def _concat_heads(mixed: Float[Array, "B T K G H"]) -> Float[Array, "B T NH"]:
    return mixed.reshape(*mixed.shape[:2], -1)


def _softcapped(scores: Float[Array, "*axes"], softcap: float) -> Float[Array, "*axes"]:
    return softcap * jnp.tanh(scores / softcap) if softcap else scores
