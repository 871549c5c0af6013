"""AMX tiles: eight registers of 16 x 64 bytes, and their matrix product.

A tile of bfloat16 is [16, 32] as a left operand. As a right operand it is [32, 16] in pairs: two consecutive elements
of a column are adjacent, 16 rows of 16 pairs. A tile of float32 is [16, 16].
Source: Intel Architecture Instruction Set Extensions Programming Reference, AMX.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

from llvmlite import ir

from minillama.kernels.cpu.simd.builder import U8, builder, declare
from minillama.kernels.cpu.simd.memory import alloca, pointer_to, store
from minillama.kernels.cpu.simd.value import Value, const
from minillama.kernels.cpu.simd.vectors import const_vector

TILE_ROWS = 16
TILE_BYTES = 64  # of a row
TILES = 8
_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA = 158, 0x1023, 18  # Linux on x86-64: SYS_arch_prctl, ARCH_REQ_XCOMP_PERM


def request_tile_permission() -> bool:
    """Request permission to use AMX from Linux, as each process must before the first use."""
    if platform.system() != "Linux":
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA) == 0


@contextmanager
def tile_config() -> Iterator[None]:
    """Configure all eight tiles at full size for the body; release them after it."""
    shape = [0] * 64
    shape[0] = 1  # the palette: eight tiles
    shape[16 : 16 + 2 * TILES : 2] = [TILE_BYTES] * TILES
    shape[48 : 48 + TILES] = [TILE_ROWS] * TILES
    place = alloca(64)
    store(const_vector(shape, U8), place)
    _call("ldtilecfg", [], place)
    yield
    _call("tilerelease", [])


def zero_tile(tile: int) -> None:
    """Set a tile to zero."""
    _call("tilezero", [tile])


def load_tile(tile: int, address: Value, stride: int) -> None:
    """Load a tile from rows that are `stride` bytes apart."""
    _call("tileloadd64", [tile], address, const(stride))


def store_tile(tile: int, address: Value, stride: int) -> None:
    """Store the rows of a tile `stride` bytes apart."""
    _call("tilestored64", [tile], address, const(stride))


def tile_dot_bf16(row_sums: int, left: int, right: int) -> None:
    """sums += left · right: 8192 products of bfloat16, accumulated in float32."""
    _call("tdpbf16ps", [row_sums, left, right])


def _call(name: str, tiles: list[int], address: Value | None = None, stride: Value | None = None) -> None:
    byte = ir.IntType(8)
    arguments: list[ir.Value] = [byte(tile) for tile in tiles]
    if address is not None:
        arguments.append(pointer_to(address, byte))
    if stride is not None:
        arguments.append(stride.ir)
    kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    builder().call(declare(f"llvm.x86.{name}", kind), arguments)
