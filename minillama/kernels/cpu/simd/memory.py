"""Loads, stores, stack memory, constant tables, prefetch and atomic operations; an address is an I64."""

import hashlib
from collections.abc import Sequence

from llvmlite import ir

from minillama.kernels.cpu.simd.builder import I64, Element, builder, declare, targets_arm64, targets_x86, vector_type
from minillama.kernels.cpu.simd.value import Value, ValueLike, as_value, splat


def load(element: Element, lanes: int, address: Value, align: int = 1) -> Value:
    """Load `lanes` consecutive elements."""
    kind = vector_type(element, lanes)
    return Value(builder().load(pointer_to(address, kind), align=align), element, lanes)


def load_splat(element: Element, lanes: int, address: Value) -> Value:
    """Load one element into every lane."""
    return splat(load(element, 1, address), lanes)


def store(value: Value, address: Value, align: int = 1) -> None:
    """Store the lanes as consecutive elements."""
    builder().store(value.ir, pointer_to(address, value.ir.type), align=align)


def alloca(size: int) -> Value:
    """Allocate `size` bytes on the stack of the function, aligned to 64 bytes."""
    b = builder()
    with b.goto_entry_block():
        slot = b.alloca(ir.ArrayType(ir.IntType(8), size))
        slot.align = 64
        return Value(b.ptrtoint(slot, ir.IntType(64)), I64)


def constant_table(element: Element, values: Sequence[int]) -> Value:
    """Address of a table of constants, aligned to 64 bytes; equal tables are one."""
    digest = hashlib.sha256(repr((element.bits, tuple(values))).encode()).hexdigest()
    module, name = builder().module, f"table-{digest[:16]}"
    if name not in module.globals:
        kind = ir.ArrayType(element.ir, len(values))
        table = ir.GlobalVariable(module, kind, name)
        table.linkage, table.global_constant, table.align = "internal", True, 64
        table.initializer = ir.Constant(kind, list(values))
    return Value(builder().ptrtoint(module.globals[name], ir.IntType(64)), I64)


def prefetch(address: Value) -> None:
    """Prefetch the cache line of an address for reading."""
    name, i32 = "llvm.prefetch.p0", ir.IntType(32)
    pointer = ir.IntType(8).as_pointer()
    function = declare(name, ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32]))
    builder().call(function, [pointer_to(address, ir.IntType(8)), i32(0), i32(3), i32(1)])


def atomic_add(address: Value, amount: ValueLike) -> Value:
    """Atomically add to an I64; returns the previous value."""
    return _atomic("add", address, amount)


def atomic_swap(address: Value, new: ValueLike) -> Value:
    """Atomically replace an I64; returns the previous value."""
    return _atomic("xchg", address, new)


def atomic_load(address: Value) -> Value:
    """Atomically read an I64."""
    pointer = pointer_to(address, ir.IntType(64))
    return Value(builder().load_atomic(pointer, "seq_cst", 8), I64)


def pause() -> None:
    """Wait for a moment in a loop that spins: `pause` of x86, `isb` of ARM.

    `yield` of ARM takes no time on most processors.
    """
    if targets_x86():
        builder().call(declare("llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])), [])
    elif targets_arm64():
        i32 = ir.IntType(32)
        builder().call(declare("llvm.aarch64.isb", ir.FunctionType(ir.VoidType(), [i32])), [i32(15)])


def pointer_to(address: Value, kind: ir.Type) -> ir.Value:
    """LLVM pointer of an address."""
    return builder().inttoptr(address.ir, kind.as_pointer())


def _atomic(operation: str, address: Value, value: ValueLike) -> Value:
    pointer = pointer_to(address, ir.IntType(64))
    return Value(builder().atomic_rmw(operation, pointer, as_value(value).ir, "seq_cst"), I64)
