"""Roles of a type's kernels, and their numbers in the handlers' table."""

from enum import IntEnum

from gguf import GGMLQuantizationType as Type

from minillama.kernels.cpu.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.simd import Isa

TYPES = (*FORMATS, *FLOAT_FORMATS)


class Role(IntEnum):
    """The kernels of a type."""

    PREPARE_GEMV, GEMV, GEMV_2, PREPARE_SKINNY_GEMM, SKINNY_GEMM, PREPARE_GEMM, GEMM, EMBED = range(8)


def kernel_number(kind: Type, role: Role) -> int:
    """Index of a kernel in the table of the handlers.

    It is the same in every process, as compiled programs contain it.
    """
    return 16 * TYPES.index(kind) + role


def activation_terms(kind: Type, isa: Isa) -> int | None:
    """Number of bfloat16 terms of an activation in an AMX GEMM; None without AMX."""
    if isa is not Isa.AMX or (kind in FLOAT_FORMATS and FLOAT_FORMATS[kind].bf16_terms > 2):
        return None
    return 1 if kind in FORMATS else 2
