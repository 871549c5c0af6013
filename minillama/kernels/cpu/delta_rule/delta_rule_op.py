"""The gated delta rule as one XLA FFI call, which changes the memory in place."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float
from minillama.kernels.cpu.delta_rule.delta_rule_kernel import ROWS, DeltaRuleArgs, DeltaRuleSpec, define_delta_rule
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.registry import load_handler, remember, run_once
from minillama.kernels.cpu.runtime.thread_pool import call_parallel, import_pool
from minillama.kernels.cpu.simd import I32, I64, Module, alloca, load

FEW = 8  # tokens, up to here with the number of threads for decoding


def delta_rule(
    qkv: Float[Array, "B T C"],
    decay: Float[Array, "B T heads"],
    beta: Float[Array, "B T heads"],
    memory: Float[Array, "B heads size size"],
    *,
    key_heads: int,
    epsilon: float,
    grouped: bool,
) -> tuple[Float[Array, "B T heads size"], Float[Array, "B heads size size"]]:
    """Results of the queries of T tokens, and the memory after them.

    qkv: queries, keys and values side by side. q and k are divided by sqrt(sum of squares + epsilon), and the results
    by sqrt(size).
    grouped: which value heads share a key. The size is a multiple of ROWS. The same bits for any T.
    """
    (batch, heads, size, _), time = memory.shape, qkv.shape[1]
    spec = DeltaRuleSpec(size)
    load_delta_rule(spec)
    sizes = jnp.asarray(np.array([batch, time, key_heads, heads, int(grouped), int(time <= FEW)], np.int32))
    floats = jnp.asarray(np.array([epsilon, size**-0.5], np.float32))
    results = (
        jax.ShapeDtypeStruct((batch, time, heads, size), qkv.dtype),
        jax.ShapeDtypeStruct(memory.shape, memory.dtype),
    )
    call = jax.ffi.ffi_call(spec.name, results, input_output_aliases={5: 1})
    found, after = call(sizes, floats, qkv, decay, beta, memory)
    return found, after


def fits(size: int) -> bool:
    """Whether there is a kernel for heads of this size."""
    return size % ROWS == 0


@run_once
def load_delta_rule(spec: DeltaRuleSpec) -> None:
    """Compile the kernel of a specification and register it with XLA."""
    load_handler(spec.name, lambda module, api: define_handlers(module, spec, api), "delta_rule")
    remember(load_delta_rule, spec)


def define_handlers(module: Module, spec: DeltaRuleSpec, api: Api) -> None:
    """`delta_rule(frame)`, the FFI handler.

    Operands: i32 [batch, time, key heads, value heads, grouped, is_decode], f32 [epsilon, scale], qkv, decay, beta,
    memory. Results: what the queries find, and the memory, which is the operand's.
    """
    import_pool(module)
    define_delta_rule(module, "panel", spec)
    define_handler(module, "delta_rule", api, lambda frame: _delta_rule(module, frame, spec))


def _delta_rule(module: Module, frame: Frame, spec: DeltaRuleSpec) -> None:
    """Store the arguments and run the tasks."""
    sizes, floats = frame.argument(0), frame.argument(1)
    batch, time, key_heads, heads, grouped, is_decode = (load(I32, 1, sizes + 4 * i).to(I64) for i in range(6))
    qkv, decay, beta = (frame.argument(i) for i in range(2, 5))
    keys = key_heads * spec.size
    out, memory = frame.result(0), frame.result(1)
    epsilon, scale = (load(I32, 1, floats + 4 * i).to(I64) for i in range(2))
    call = alloca(DeltaRuleArgs.size())
    DeltaRuleArgs(call).store(
        time=time,
        key_heads=key_heads,
        value_heads=heads,
        epsilon=epsilon,
        scale=scale,
        grouped=grouped,
        channels=keys * 2 + heads * spec.size,
        q=qkv,
        k=qkv + keys * 4,
        v=qkv + keys * 8,
        decay=decay,
        beta=beta,
        memory=memory,
        out=out,
    )
    tasks = batch * heads * (spec.size // ROWS)
    call_parallel(module, frame, module.function_address("panel"), call, tasks, is_decode.equals(1))
