"""Grouped-query attention over the cache (Ainslie et al. 2023), in float32."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int


def visible(positions: Int[Array, "B T"], span: int, window: int) -> Bool[Array, "B 1 1 T S"]:
    """Which cached positions a query may see: itself and earlier ones, and of these the last `window` if not 0."""
    distance = positions[:, :, None] - jnp.arange(span, dtype=jnp.int32)[None, None, :]
    seen = distance >= 0
    if window:
        seen = seen & (distance < window)
    return seen[:, None, None]


def attention_weights(
    q: Float[Array, "B T N H"],
    keys: Float[Array, "B K S H"],
    seen: Bool[Array, "B 1 1 T S"],
    scale: float,
    softcap: float,
) -> Float[Array, "B K G T S"]:
    """softmax(q·k scale) over the visible positions; query head j reads key/value head j // G."""
    batch, time, heads, size = q.shape
    groups = q.reshape(batch, time, keys.shape[1], heads // keys.shape[1], size)
    scores = jnp.einsum("BTKGH,BKSH->BKGTS", groups, keys) * scale
    if softcap:
        scores = softcap * jnp.tanh(scores / softcap)
    return jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)


def attend(weights: Float[Array, "B K G T S"], values: Float[Array, "B K S H"]) -> Float[Array, "B T NH"]:
    """The weighted mean of the values, heads side by side."""
    mixed = jnp.einsum("BKGTS,BKSH->BTKGH", weights, values)
    return mixed.reshape(*mixed.shape[:2], -1)
