"""An LLVM module: the functions and global variables of a kernel."""

from collections.abc import Callable

from llvmlite import ir

from minillama.kernels.cpu.simd.builder import I64, Isa, builder, building
from minillama.kernels.cpu.simd.value import Value


class Module:
    """Functions that are compiled together; arguments and results are I64."""

    def __init__(self, isa: Isa, triple: str | None = None) -> None:
        """triple: LLVM's name of the system that the module is for; None for this process's."""
        self.isa = isa
        self.ir = ir.Module("kernel")
        if triple is not None:
            self.ir.triple = triple

    def define(self, name: str, arguments: int, body: Callable[..., Value | None]) -> None:
        """Define a function: `body` is traced once with symbolic arguments."""
        i64 = ir.IntType(64)
        function = ir.Function(self.ir, ir.FunctionType(i64, [i64] * arguments), name)
        with building(self.isa, function):
            result = body(*(Value(a, I64) for a in function.args))
            builder().ret(i64(0) if result is None else result.ir)

    def define_global(self, name: str, words: int) -> None:
        """Define a global array of I64, zero at first; Python finds it by its name."""
        kind = ir.ArrayType(ir.IntType(64), words)
        memory = ir.GlobalVariable(self.ir, kind, name)
        memory.initializer, memory.align = ir.Constant(kind, None), 64

    def global_address(self, name: str) -> Value:
        """Address of a global array."""
        return Value(builder().ptrtoint(self.ir.get_global(name), ir.IntType(64)), I64)

    def call(self, name: str, *arguments: Value) -> Value:
        """Call a function of this module."""
        return Value(builder().call(self.ir.get_global(name), [a.ir for a in arguments]), I64)

    def function_address(self, name: str) -> Value:
        """Address of a function of this module."""
        return Value(builder().ptrtoint(self.ir.get_global(name), ir.IntType(64)), I64)
