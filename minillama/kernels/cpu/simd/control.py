"""Loops, conditions and calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir

from minillama.kernels.cpu.simd.builder import I64, builder
from minillama.kernels.cpu.simd.memory import pointer_to
from minillama.kernels.cpu.simd.value import Value, ValueLike, Var, as_value


def loop(start: ValueLike, stop: ValueLike, step: ValueLike = 1) -> Iterator[Value]:
    """Counted loop, `for i in loop(start, stop, step)`: the body is traced once."""
    b = builder()
    index = Var(as_value(start))
    head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch((index.value < stop).ir, body, after)
    b.position_at_end(body)
    yield index.value
    index.value = index.value + step
    b.branch(head)
    b.position_at_end(after)


@contextmanager
def while_(condition: Callable[[], Value]) -> Iterator[None]:
    """Loop while the condition holds; it is evaluated before each iteration."""
    b = builder()
    head, body, after = (b.append_basic_block(name) for name in ("head", "body", "after"))
    b.branch(head)
    b.position_at_end(head)
    b.cbranch(condition().ir, body, after)
    b.position_at_end(body)
    yield
    b.branch(head)
    b.position_at_end(after)


@contextmanager
def if_(condition: Value) -> Iterator[None]:
    """Run the body if the condition holds."""
    with builder().if_then(condition.ir):
        yield


def call_address(address: Value, *arguments: Value) -> Value:
    """Call a function by address; arguments and result are I64."""
    i64 = ir.IntType(64)
    kind = ir.FunctionType(i64, [i64] * len(arguments))
    return Value(builder().call(pointer_to(address, kind), [a.ir for a in arguments]), I64)
