"""Loads, stores and atomic operations; an address is an I64."""

from llvmlite import ir

from minillama.kernels.cpu.simd.builder import I64, X86, Element, builder, declare, vector_type
from minillama.kernels.cpu.simd.value import Value, ValueLike, as_value, splat


def load(element: Element, lanes: int, address: Value, align: int = 1) -> Value:
    """Numbers that lie side by side."""
    kind = vector_type(element, lanes)
    return Value(builder().load(pointer_to(address, kind), align=align), element, lanes)


def load_splat(element: Element, lanes: int, address: Value) -> Value:
    """One number from memory in every lane."""
    return splat(load(element, 1, address), lanes)


def store(value: Value, address: Value, align: int = 1) -> None:
    """Put numbers side by side."""
    builder().store(value.ir, pointer_to(address, value.ir.type), align=align)


def alloca(size: int) -> Value:
    """The address of `size` bytes on the function's own stack, a multiple of 64."""
    b = builder()
    with b.goto_entry_block():
        slot = b.alloca(ir.ArrayType(ir.IntType(8), size))
        slot.align = 64
        return Value(b.ptrtoint(slot, ir.IntType(64)), I64)


def prefetch(address: Value) -> None:
    """Ask for a cache line that will be read once."""
    name, i32 = "llvm.prefetch.p0", ir.IntType(32)
    pointer = ir.IntType(8).as_pointer()
    function = declare(name, ir.FunctionType(ir.VoidType(), [pointer, i32, i32, i32]))
    builder().call(function, [pointer_to(address, ir.IntType(8)), i32(0), i32(3), i32(1)])


def atomic_add(address: Value, amount: ValueLike) -> Value:
    """Add to an I64 that other threads change too; its value before."""
    return _atomic("add", address, amount)


def atomic_swap(address: Value, new: ValueLike) -> Value:
    """Replace an I64 that other threads change too; its value before."""
    return _atomic("xchg", address, new)


def atomic_load(address: Value) -> Value:
    """Read an I64 that other threads change."""
    pointer = pointer_to(address, ir.IntType(64))
    return Value(builder().load_atomic(pointer, "seq_cst", 8), I64)


def pause() -> None:
    """Tell the processor that this is a waiting loop."""
    if X86:
        builder().call(declare("llvm.x86.sse2.pause", ir.FunctionType(ir.VoidType(), [])), [])


def pointer_to(address: Value, kind: ir.Type) -> ir.Value:
    return builder().inttoptr(address.ir, kind.as_pointer())


def _atomic(operation: str, address: Value, value: ValueLike) -> Value:
    pointer = pointer_to(address, ir.IntType(64))
    return Value(builder().atomic_rmw(operation, pointer, as_value(value).ir, "seq_cst"), I64)
