"""Instruction sets, element types, and the LLVM builder of the function under construction."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from llvmlite import binding, ir

_HOST = binding.get_process_triple()


class Isa(Enum):
    """Instruction set that a kernel is compiled for, best first."""

    AMX = "amx"  # AVX512 and tiles: 8192 products of bfloat16 in one instruction
    AVX512 = "avx512"  # with VNNI: 64 products of bytes in one instruction
    AVX_VNNI = "avx-vnni"  # AVX2 with VNNI: 32 products of bytes in one instruction
    AVX2 = "avx2"
    NEON_I8MM = "neon-i8mm"  # ARM: NEON_DOTPROD, and 32 products of bytes in one instruction, for 2 x 2 sums
    NEON_DOTPROD = "neon-dotprod"  # ARM: 16 products of bytes in one instruction
    GENERIC = "generic"  # plain vector code, lowered by LLVM for any processor

    @property
    def has_avx512(self) -> bool:
        """Whether there are 32 vector registers of 64 bytes."""
        return self in (Isa.AMX, Isa.AVX512)

    @property
    def has_avx2(self) -> bool:
        """Whether there are 16 vector registers of 32 bytes, not more."""
        return self in (Isa.AVX_VNNI, Isa.AVX2)

    @property
    def is_neon(self) -> bool:
        """Whether there are the 32 vector registers of 16 bytes of ARM."""
        return self in (Isa.NEON_I8MM, Isa.NEON_DOTPROD)


@dataclass(frozen=True)
class Element:
    """Type of one lane."""

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
F64 = Element(ir.DoubleType(), 64, is_float=True)


class _BFloat(ir.Type):
    """LLVM's `bfloat`, which llvmlite does not define."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat)

    def __hash__(self) -> int:
        return hash(_BFloat)


BF16 = Element(_BFloat(), 16, is_float=True)


@dataclass(frozen=True)
class FunctionInProgress:
    """A function under construction."""

    isa: Isa
    module: ir.Module
    builder: ir.IRBuilder


_stack: list[FunctionInProgress] = []


@contextmanager
def building(isa: Isa, function: ir.Function) -> Iterator[None]:
    """Append the operations inside the `with` block to this function."""
    _stack.append(FunctionInProgress(isa, function.module, ir.IRBuilder(function.append_basic_block("entry"))))
    try:
        yield
    finally:
        _stack.pop()


def current_isa() -> Isa:
    """Instruction set of the function under construction."""
    return _stack[-1].isa


def targets_x86() -> bool:
    """Whether the function under construction is for x86."""
    return _architecture() in ("x86_64", "amd64", "i686")


def targets_arm64() -> bool:
    """Whether the function under construction is for ARM with 64 bits."""
    return _architecture() in ("aarch64", "arm64")


def _architecture() -> str:
    """First part of LLVM's name of the system: this process's, unless the module names another."""
    triple = _stack[-1].module.triple
    return (_HOST if triple.startswith("unknown") else triple).split("-")[0]


def builder() -> ir.IRBuilder:
    """LLVM builder of the function under construction."""
    return _stack[-1].builder


def vector_type(element: Element, lanes: int) -> ir.Type:
    """LLVM type of a scalar (lanes is 1) or of a vector."""
    return element.ir if lanes == 1 else ir.VectorType(element.ir, lanes)


def declare(name: str, kind: ir.FunctionType) -> ir.Function:
    """Declare an LLVM intrinsic in the module, once."""
    module = _stack[-1].module
    return module.globals[name] if name in module.globals else ir.Function(module, kind, name)
