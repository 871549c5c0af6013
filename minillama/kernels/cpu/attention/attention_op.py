"""Attention over the KV cache as one XLA FFI call, with an online softmax.

    m' = max(m, max s);  l' = l e^(m-m') + sum e^(s-m');  o' = o e^(m-m') + sum e^(s-m') v      (Dao et al. 2022)

for scores s = q·k scale and values v of a tile; the result is o / l. At first m is a very low number and l is 0; with
sinks, m is the sink of the head and l is 1. A kernel is compiled for the sizes of one model.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int
from minillama.kernels.cpu.attention.attention_args import LANES, AttentionSpec
from minillama.kernels.cpu.runtime.ffi_frame import Api
from minillama.kernels.cpu.runtime.registry import load_handler, remember, run_once
from minillama.kernels.cpu.simd import Module

MAX_DECODE_TOKENS = 8  # up to here `decode_attention` computes each position by itself


def attend(
    spec: AttentionSpec,
    q: Float[Array, "B T N H"],
    positions: Int[Array, "B T"],
    keys: Array,
    values: Array | None,
    scale: float,
    softcap: float,
    window: int,
    sinks: Float[Array, "N"] | None = None,
    slots: Int[Array, "B"] | None = None,
) -> Float[Array, "B T NH"]:
    """Causal attention, softmax(q·k scale) v, with a sliding window if `window` is not 0.

    keys, values: the arrays of the cache, [R, K, S, _] each; None for values if the specification shares them.
    sinks: a logit of each head; they are there if the specification has them.
    slots: the row of the cache of each text; None where text b has row b.
    """
    load_attention(spec)
    batch, time, query_heads, _ = q.shape
    rows, kv_heads, capacity = keys.shape[:3]
    lanes = panel_lanes(time, spec.groups)
    sizes = jnp.asarray(np.array([batch, time, rows, kv_heads, capacity, window, lanes], np.int32))
    floats = jnp.asarray(np.array([scale, softcap], np.float32))
    out = jax.ShapeDtypeStruct((batch, time, query_heads * spec.value_size), jnp.float32)
    slots = jnp.arange(batch, dtype=jnp.int32) if slots is None else slots.astype(jnp.int32)
    more = [] if values is None else [values]
    more += [] if sinks is None else [sinks.astype(jnp.float32)]
    return jax.ffi.ffi_call(spec.name, out)(sizes, floats, q, positions.astype(jnp.int32), slots, keys, *more)


@run_once
def load_attention(spec: AttentionSpec) -> None:
    """Compile the kernels of a specification and register them with XLA."""

    def define(module: Module, api: Api) -> None:  # imported for a compilation
        from minillama.kernels.cpu.attention.attention_handler import define_attention

        define_attention(module, spec, api)

    load_handler(spec.name, define, "attention")
    remember(load_attention, spec)


def panel_lanes(time: int, groups: int) -> int:
    """Query rows of a panel in `prefill_attention`; 0 for `decode_attention`.

    A few tokens at once, such as a draft, must give the same bits as one by one.
    """
    if time <= MAX_DECODE_TOKENS:
        return 0
    return LANES if time * groups <= LANES else 2 * LANES
