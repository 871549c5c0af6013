"""Attention as JAX calls it: the kernel of a model's sizes on the leaves of its cache."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from minillama.kernels.cpu.attention.attention_args import AttentionSpec
from minillama.kernels.cpu.attention.attention_op import panel_lanes
from minillama.kernels.cpu.runtime.registry import load_attention


def attend(
    heads: AttentionSpec,
    q: Float[Array, "B T N H"],
    positions: Int[Array, "B T"],
    keys: Sequence[Array],
    values: Sequence[Array],
    scale: float,
    softcap: float,
    window: int,
) -> Float[Array, "B T NH"]:
    """softmax(q·k scale) v over positions up to each query's own, of these the last `window` if not 0.

    keys, values: the leaves of the cache, [B, K, S, ...] each.
    """
    load_attention(heads)
    batch, time, query_heads, _ = q.shape
    kv_heads, capacity = keys[0].shape[1:3]
    lanes = panel_lanes(time, heads.groups)
    sizes = jnp.asarray(np.array([batch, time, kv_heads, capacity, window, lanes], np.int32))
    reals = jnp.asarray(np.array([scale, softcap], np.float32))
    out = jax.ShapeDtypeStruct((batch, time, query_heads * heads.value_size), jnp.float32)
    return jax.ffi.ffi_call(heads.name, out)(sizes, reals, q, positions.astype(jnp.int32), *keys, *values)
