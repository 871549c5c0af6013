"""Attention over the cache as it lies in memory, with a running softmax: no more than a tile of scores at a time.

    m' = max(m, max s);  l' = l e^(m-m') + sum e^(s-m');  o' = o e^(m-m') + sum e^(s-m') v      (Dao et al. 2022)

and o / l in the end, for scores s = q·k scale and values v of a tile. A kernel is written for one model's sizes.
"""

from minillama.kernels.cpu.attention.attention_args import LANES, AttentionSpec
from minillama.kernels.cpu.attention.decode_attention import define_decode
from minillama.kernels.cpu.attention.prefill_attention import define_prefill
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.thread_pool import call_parallel, import_pool
from minillama.kernels.cpu.simd import I32, I64, Module, alloca, const, load, select, store

MAX_DECODE_TOKENS = 8  # up to here each position's queries are computed by themselves


def panel_lanes(time: int, groups: int) -> int:
    """Query rows that are computed side by side, 0 for each position's by themselves.

    A few tokens at once, a draft's for one, are to come out as one by one, to the bit.
    """
    if time <= MAX_DECODE_TOKENS:
        return 0
    return LANES if time * groups <= LANES else 2 * LANES


def define_attention(module: Module, heads: AttentionSpec, api: Api) -> None:
    """`attention(frame)`. Operands: i32 [batch, time, kv_heads, capacity, window, panel_lanes], f32 [scale, softcap],
    q f32 [B, T, N, H], positions i32 [B, T], leaves of keys [B, K, S, ...] and of values; result f32 [B, T, N H_v]."""
    import_pool(module)
    define_decode(module, "decode", heads)
    for lanes in (LANES, 2 * LANES):
        define_prefill(module, f"prefill{lanes}", heads, lanes)
    define_handler(module, "attention", api, lambda frame: _attention(module, frame, heads))


def _attention(module: Module, frame: Frame, heads: AttentionSpec) -> None:
    """Write down what the tasks need to know, and have them done."""
    sizes, reals = frame.argument(0), frame.argument(1)
    batch, time, kv_heads, capacity, window, lanes = (load(I32, 1, sizes + 4 * i).to(I64) for i in range(6))
    scale, softcap = (load(I32, 1, reals + 4 * i).to(I64) for i in range(2))
    leaves = (frame.argument(4 + i) for i in range(heads.keys.leaves + heads.values.leaves))
    q, positions, out = frame.argument(2), frame.argument(3), frame.result(0)
    words = (time, kv_heads, capacity, window, scale, softcap, q, positions, out, *leaves)  # in the order of Call
    call = alloca(8 * len(words))
    for at, word in enumerate(words):
        store(word, call + 8 * at)
    decode, narrow = lanes.equals(0), lanes.equals(LANES)
    blocks = (time * heads.groups + lanes - 1) // select(decode, const(1), lanes)
    many = select(narrow, module.function_address(f"prefill{LANES}"), module.function_address(f"prefill{2 * LANES}"))
    function = select(decode, module.function_address("decode"), many)
    call_parallel(module, frame, function, call, batch * kv_heads * select(decode, time, blocks), decode)
