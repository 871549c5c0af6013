"""The Walsh-Hadamard rotation of heads on the CPU, in registers.

At each scale [a, b] becomes [a + b, a - b]: n log2(n) sums for n numbers, and no products.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float
from minillama.kernels.cpu.attention.attention_op import MAX_DECODE_TOKENS
from minillama.kernels.cpu.runtime.ffi_frame import Api, Frame, define_handler
from minillama.kernels.cpu.runtime.registry import load_handler, remember, run_once
from minillama.kernels.cpu.runtime.thread_pool import call_parallel, import_pool
from minillama.kernels.cpu.simd import (
    F32,
    I32,
    I64,
    Module,
    Struct,
    Value,
    Word,
    alloca,
    const_vector,
    fma,
    load,
    loop,
    min_,
    store,
)

LANES = 16  # floats of a vector; a rotation has at least as many
_TASK_NUMBERS = 8192


class RotationArgs(Struct):
    """Arguments of a call."""

    x = Word()  # address of the numbers, float32 [rows, size]
    out = Word()  # address of the result
    rows = Word()


def rotate_heads(x: Float[Array, "B T *axes"], size: int) -> Float[Array, "B T *axes"]:
    """Rotate every `size` numbers, a power of two from 16 on.

    A token gives the same bits in any batch.
    """
    load_rotation(size)
    sizes = jnp.asarray(np.array([x.size // size, int(x.shape[1] <= MAX_DECODE_TOKENS)], np.int32))
    return jax.ffi.ffi_call(target(size), jax.ShapeDtypeStruct(x.shape, x.dtype))(sizes, x)


def target(size: int) -> str:
    """Name of the XLA FFI target."""
    return f"minillama_rotation_{size}"


@run_once
def load_rotation(size: int) -> None:
    """Compile the kernel of a size and register it with XLA."""
    load_handler(target(size), lambda module, api: define_handlers(module, size, api), "rotation")
    remember(load_rotation, size)


def define_handlers(module: Module, size: int, api: Api) -> None:
    """`rotation(frame)`, the FFI handler.

    Operands: i32 [rows, is_decode], x. The result has the shape of x.
    """
    import_pool(module)
    define_rotation(module, "rotate", size)
    define_handler(module, "rotation", api, lambda frame: _rotation(module, frame, size))


def _rotation(module: Module, frame: Frame, size: int) -> None:
    """Store the arguments and run the tasks."""
    rows, is_decode = (load(I32, 1, frame.argument(0) + 4 * i).to(I64) for i in range(2))
    call = alloca(RotationArgs.size())
    RotationArgs(call).store(x=frame.argument(1), out=frame.result(0), rows=rows)
    tasks = (rows + (task_rows(size) - 1)) // task_rows(size)
    call_parallel(module, frame, module.function_address("rotate"), call, tasks, is_decode.equals(1))


def task_rows(size: int) -> int:
    """Rows of a task."""
    return max(1, _TASK_NUMBERS // size)


def define_rotation(module: Module, name: str, size: int) -> None:
    """`name(args, task)`: rotate the rows of a task."""

    def body(address: Value, index: Value) -> None:
        args = RotationArgs(address)
        first = index * task_rows(size)
        for row in loop(first, min_(first + task_rows(size), args.rows)):
            at = row * (size * 4)
            vectors = [load(F32, LANES, args.x + at + i * 4) for i in range(0, size, LANES)]
            for i, vector in enumerate(_rotated(vectors)):
                store(vector * (1 / math.sqrt(size)), args.out + at + i * (LANES * 4))

    module.define(name, 2, body)


def _rotated(vectors: list[Value]) -> list[Value]:
    """Sums and differences at all scales, the smallest first."""
    for step in (1, 2, 4, 8):
        signs = const_vector([-1.0 if lane & step else 1.0 for lane in range(LANES)], F32)
        swapped = [vector.permute([lane ^ step for lane in range(LANES)]) for vector in vectors]
        vectors = [fma(vector, signs, other) for vector, other in zip(vectors, swapped, strict=True)]
    step = 1
    while step < len(vectors):
        pairs = [(vectors[i & ~step], vectors[i | step]) for i in range(len(vectors))]
        vectors = [a - b if i & step else a + b for i, (a, b) in enumerate(pairs)]
        step *= 2
    return vectors
