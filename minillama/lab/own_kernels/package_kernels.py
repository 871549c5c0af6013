"""The package's own GEMV kernels: their counts, and Q4_0 as a function to time."""

from collections.abc import Callable
from functools import cache

import numpy as np
from gguf import GGMLQuantizationType as Type

from minillama.errors import OptionError
from minillama.kernels.cpu.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.matmul import activations, gemv
from minillama.kernels.cpu.matmul.activations import STEP
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.runtime import registry
from minillama.kernels.cpu.runtime.machine_code import (
    callable_at,
    compile_kernels,
    compile_listing,
    load_machine_code,
)
from minillama.kernels.cpu.simd import Isa, Module
from minillama.lab.own_kernels.block_kernels import BLOCK_BYTES, BLOCK_WEIGHTS
from minillama.lab.own_kernels.traced_kernels import CountedKernel

TYPES = ("Q4_0", "Q8_0", "Q4_K", "F16")
FLOAT_STEP = 32  # weights of a row in a step of a float kernel


def available_isas() -> tuple[Isa, ...]:
    """Instruction sets of this processor, best first; AMX has the GEMV of AVX-512."""
    return tuple(isa for isa in registry.available_isas() if isa is not Isa.AMX)


@cache
def package_kernel(kind: str, isa: Isa) -> CountedKernel:
    """The compiled GEMV of a type for one token.

    It takes a second or more, once. Raises OptionError for an instruction set that this processor lacks.
    """
    if isa not in registry.available_isas():
        names = ", ".join(each.value for each in available_isas())
        raise OptionError(f"{isa.value} is not an instruction set of this processor; choose from {names}")
    return CountedKernel(f"package, {kind}", compile_listing(isa, lambda module: define_gemv(module, Type[kind])), isa,
                         loop_weights(Type[kind], isa))  # fmt: skip


def define_gemv(module: Module, kind: Type) -> None:
    """Define `gemv`, the GEMV of a type for one token."""
    if kind in FLOAT_FORMATS:
        gemv.define_float(module, "gemv", FLOAT_FORMATS[kind], 1)
    else:
        gemv.define_quantised(module, "gemv", FORMATS[kind], 1)


def loop_weights(kind: Type, isa: Isa) -> int:
    """Weights of one run of the longest loop: a step of some rows."""
    if kind in FLOAT_FORMATS:
        return FLOAT_STEP * gemv.float_products(isa)
    return STEP * gemv.rows_at_a_time(FORMATS[kind], 1, isa)


def package_product(isa: Isa) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """The package's product of Q4_0 rows and a vector, on the calling thread."""
    multiply = callable_at(load_machine_code(package_kernel("Q4_0", isa).listing.machine_code, isa)("gemv"), 3)
    form = FORMATS[Type.Q4_0]
    find = compile_kernels(
        "prepare", isa, lambda module: activations.define_quantised_rows(module, "prepare", form), None
    )
    prepare = callable_at(find("prepare"), 3)

    def product(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
        rows, row_bytes = weights.shape
        width = row_bytes // BLOCK_BYTES * BLOCK_WEIGHTS
        source, scratch = np.ascontiguousarray(x, np.float32), np.empty(2 * width, np.uint8)
        y = np.empty(rows, np.float32)
        args = MatmulArgs.pack(
            weights=weights.ctypes.data, row_bytes=row_bytes, width=width, rows=rows, tokens=1,
            source=source.ctypes.data, x=scratch.ctypes.data, y=y.ctypes.data,
        )  # fmt: skip
        prepare(args.ctypes.data, 0, 1)
        multiply(args.ctypes.data, 0, rows)
        return y

    return product
