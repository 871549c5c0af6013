"""What is being written: a function of a module, and the LLVM builder that every operation adds to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from llvmlite import binding, ir

X86 = binding.get_process_triple().split("-")[0] in ("x86_64", "amd64", "i686")


class Isa(Enum):
    """Instruction sets that a kernel can be written for; the vectors are the same, the machine code is not."""

    AMX = "amx"  # AVX512 with tiles besides: 8192 products of bfloat16 in one instruction
    AVX512 = "avx512"  # with VNNI: 64 products of bytes in one instruction
    AVX2 = "avx2"
    GENERIC = "generic"  # whatever LLVM makes of plain vector code, on any processor

    @property
    def has_avx512(self) -> bool:
        """Whether there are 32 registers of 64 bytes, and their instructions."""
        return self in (Isa.AMX, Isa.AVX512)


@dataclass(frozen=True)
class Element:
    """The type of one number."""

    ir: ir.Type
    bits: int
    signed: bool = True
    is_float: bool = False


BIT = Element(ir.IntType(1), 1, signed=False)
U8, I8 = Element(ir.IntType(8), 8, signed=False), Element(ir.IntType(8), 8)
U16, I16 = Element(ir.IntType(16), 16, signed=False), Element(ir.IntType(16), 16)
U32, I32 = Element(ir.IntType(32), 32, signed=False), Element(ir.IntType(32), 32)
U64, I64 = Element(ir.IntType(64), 64, signed=False), Element(ir.IntType(64), 64)
F16, F32 = Element(ir.HalfType(), 16, is_float=True), Element(ir.FloatType(), 32, is_float=True)


class _BFloat(ir.Type):
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BF16 = Element(_BFloat(), 16, is_float=True)


@dataclass(frozen=True)
class FunctionInProgress:
    """The function under way."""

    isa: Isa
    module: ir.Module
    builder: ir.IRBuilder


_stack: list[FunctionInProgress] = []


@contextmanager
def building(isa: Isa, function: ir.Function) -> Iterator[None]:
    """Operations inside the block are added to this function."""
    _stack.append(FunctionInProgress(isa, function.module, ir.IRBuilder(function.append_basic_block("entry"))))
    try:
        yield
    finally:
        _stack.pop()


def isa() -> Isa:
    """The instruction set that is being written for."""
    return _stack[-1].isa


def builder() -> ir.IRBuilder:
    """Where the next instruction goes."""
    return _stack[-1].builder


def vector_type(element: Element, lanes: int) -> ir.Type:
    """LLVM's type of one number or of a vector."""
    return element.ir if lanes == 1 else ir.VectorType(element.ir, lanes)


def declare(name: str, kind: ir.FunctionType) -> ir.Function:
    """One of LLVM's own functions."""
    module = _stack[-1].module
    return module.globals[name] if name in module.globals else ir.Function(module, kind, name)
