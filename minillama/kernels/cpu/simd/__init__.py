"""A small SIMD language: a Python function, run once with symbolic values, writes the machine code of a kernel.

As JAX traces a function into HLO, these functions trace into LLVM. A value is one number or a short vector of them;
Python's own loops and lists unroll, `loop` and `when` become jumps of the machine, a `Register` is a variable.

    for i in loop(0, blocks):
        codes = load(U8, 32, address + i * 32)
        total.value = dot(total.value, codes & 15, load(I8, 32, x + i * 32))
"""

from minillama.kernels.cpu.simd.control import call_address, loop, repeat_while, when
from minillama.kernels.cpu.simd.memory import (
    atomic_add,
    atomic_load,
    atomic_swap,
    load,
    load_splat,
    pause,
    prefetch,
    stack,
    store,
)
from minillama.kernels.cpu.simd.module import Module
from minillama.kernels.cpu.simd.value import Like, Register, Value, number, shuffle, splat
from minillama.kernels.cpu.simd.vectors import (
    concat,
    dot,
    exp,
    fma,
    fold,
    from_bfloat,
    from_half,
    largest,
    lookup,
    magnitude,
    nearest,
    padded,
    select,
    smallest,
    sums,
    table,
    to_half,
    total,
    vector,
)
from minillama.kernels.cpu.simd.writing import BIT, F16, F32, I8, I16, I32, I64, U8, U16, U32, U64, Element, Isa, isa

__all__ = [
    "BIT",
    "F16",
    "F32",
    "I8",
    "I16",
    "I32",
    "I64",
    "U8",
    "U16",
    "U32",
    "U64",
    "Element",
    "Isa",
    "Like",
    "Module",
    "Register",
    "Value",
    "atomic_add",
    "atomic_load",
    "atomic_swap",
    "call_address",
    "concat",
    "dot",
    "exp",
    "fma",
    "fold",
    "from_bfloat",
    "from_half",
    "isa",
    "largest",
    "load",
    "load_splat",
    "lookup",
    "loop",
    "magnitude",
    "nearest",
    "number",
    "padded",
    "pause",
    "prefetch",
    "repeat_while",
    "select",
    "shuffle",
    "smallest",
    "splat",
    "stack",
    "store",
    "sums",
    "table",
    "to_half",
    "total",
    "vector",
    "when",
]
