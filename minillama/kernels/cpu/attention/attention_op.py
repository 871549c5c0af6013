"""Attention over the KV cache as one XLA FFI call, with an online softmax.

    m' = max(m, max s);  l' = l e^(m-m') + sum e^(s-m');  o' = o e^(m-m') + sum e^(s-m') v      (Dao et al. 2022)

for scores s = q·k scale and values v of a tile; the result is o / l. At first m is a very low number and l is 0; with
sinks, m is the sink of the head and l is 1. A kernel is compiled for the sizes of one model.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int

from minillama.kernels.cpu.attention.attention_args import LANES, AttentionArgs, AttentionSpec
from minillama.kernels.cpu.attention.decode_attention import define_decode
from minillama.kernels.cpu.attention.prefill_attention import define_prefill
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.registry import load_handler, remember, run_once
from minillama.kernels.cpu.runtime.thread_pool import call_parallel, import_pool
from minillama.kernels.cpu.simd import I32, I64, Module, alloca, const, load, select

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
    load_handler(spec.name, lambda module, api: define_attention(module, spec, api), "attention")
    remember(load_attention, spec)


def panel_lanes(time: int, groups: int) -> int:
    """Query rows of a panel in `prefill_attention`; 0 for `decode_attention`.

    A few tokens at once, such as a draft, must give the same bits as one by one.
    """
    if time <= MAX_DECODE_TOKENS:
        return 0
    return LANES if time * groups <= LANES else 2 * LANES


def define_attention(module: Module, spec: AttentionSpec, api: Api) -> None:
    """`attention(frame)`, the FFI handler.

    Operands: i32 [batch, time, rows, kv_heads, capacity, window, panel_lanes], f32 [scale, softcap], q f32
    [B, T, N, H], positions i32 [B, T], slots i32 [B], keys [R, K, S, _], values unless shared, sinks f32 [N] if any.
    Result: f32 [B, T, N H_v].
    """
    import_pool(module)
    define_decode(module, "decode", spec)
    for lanes in (LANES, 2 * LANES):
        define_prefill(module, f"prefill{lanes}", spec, lanes)
    define_handler(module, "attention", api, lambda frame: _attention(module, frame, spec))


def _attention(module: Module, frame: Frame, spec: AttentionSpec) -> None:
    """Store the arguments and run the tasks."""
    sizes, floats = frame.argument(0), frame.argument(1)
    batch, time, rows, kv_heads, capacity, window, lanes = (load(I32, 1, sizes + 4 * i).to(I64) for i in range(7))
    scale, softcap = (load(I32, 1, floats + 4 * i).to(I64) for i in range(2))
    q, positions, slots, keys = (frame.argument(2 + i) for i in range(4))
    values = keys if spec.shared else frame.argument(6)
    call = alloca(AttentionArgs.size())
    AttentionArgs(call, spec).store(
        time=time,
        rows=rows,
        kv_heads=kv_heads,
        capacity=capacity,
        window=window,
        scale=scale,
        softcap=softcap,
        q=q,
        positions=positions,
        slots=slots,
        out=frame.result(0),
        key_cache=keys,
        value_cache=values,
        sinks=frame.argument(6 if spec.shared else 7) if spec.sinks else const(0),
    )
    is_decode, is_narrow = lanes.equals(0), lanes.equals(LANES)
    panels = (time * spec.groups + lanes - 1) // select(is_decode, const(1), lanes)
    narrow, full = (module.function_address(f"prefill{width}") for width in (LANES, 2 * LANES))
    function = select(is_decode, module.function_address("decode"), select(is_narrow, narrow, full))
    tasks = batch * kv_heads * select(is_decode, time * spec.splits, panels)
    call_parallel(module, frame, function, call, tasks, is_decode)
