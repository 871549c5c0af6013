"""The handler of attention: its operands, its kernels, and its tasks."""

from minillama.kernels.cpu.attention.attention_args import LANES, AttentionArgs, AttentionSpec
from minillama.kernels.cpu.attention.decode_attention import define_decode
from minillama.kernels.cpu.attention.prefill_attention import define_prefill
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.thread_pool import call_parallel, import_pool
from minillama.kernels.cpu.simd import I32, I64, Module, alloca, const, load, select


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
