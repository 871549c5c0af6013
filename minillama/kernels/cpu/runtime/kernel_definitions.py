"""Definitions of the kernels of a type, for the instruction set of a module."""

from gguf import GGMLQuantizationType as Type

from minillama.kernels.cpu.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.matmul import (
    activations,
    activations_amx,
    embedding_lookup,
    gemm,
    gemm_amx,
    gemm_neon,
    gemv,
)
from minillama.kernels.cpu.runtime.kernel_roles import Role, activation_terms
from minillama.kernels.cpu.simd import Module
from minillama.kernels.cpu.skinny_gemm import float_rows, quantised_rows, token_groups, token_tiles


def define_kernels(module: Module, kind: Type) -> None:
    """Define the kernels of a type, named as their roles."""
    define = _define_block_kernels if kind in FORMATS else _define_float_kernels
    define(module, kind)


def _define_block_kernels(module: Module, kind: Type) -> None:
    """Define the kernels of a quantised type."""
    form, terms = FORMATS[kind], activation_terms(kind, module.isa)
    if terms is not None:
        activations_amx.define_activations(module, Role.PREPARE_GEMM.name, terms)
    activations.define_quantised_rows(module, Role.PREPARE_GEMV.name, form)
    gemv.define_quantised(module, Role.GEMV.name, form, 1)
    gemv.define_quantised(module, Role.GEMV_2.name, form, 2)
    token_groups.define_quantised_groups(module, Role.PREPARE_SKINNY_GEMM.name, form)
    quantised_rows.define_quantised(module, Role.SKINNY_GEMM.name, kind)
    if module.isa.is_neon:
        gemm_neon.define_panels(module, Role.PREPARE_GEMM.name, form)
        gemm_neon.define_quantised(module, Role.GEMM.name, form)
    elif terms is None:
        activations.define_quantised_panels(module, Role.PREPARE_GEMM.name, form)
        gemm.define_quantised(module, Role.GEMM.name, form)
    else:
        gemm_amx.define_quantised(module, Role.GEMM.name, form)
    embedding_lookup.define_quantised(module, Role.EMBED.name, form)


def _define_float_kernels(module: Module, kind: Type) -> None:
    """Define the kernels of a float type."""
    form, terms = FLOAT_FORMATS[kind], activation_terms(kind, module.isa)
    if terms is not None:
        activations_amx.define_activations(module, Role.PREPARE_GEMM.name, terms)
    activations.define_no_op(module, Role.PREPARE_GEMV.name)
    gemv.define_float(module, Role.GEMV.name, form, 1)
    gemv.define_float(module, Role.GEMV_2.name, form, 2)
    token_tiles.define_float_tiles(module, Role.PREPARE_SKINNY_GEMM.name)
    float_rows.define_float(module, Role.SKINNY_GEMM.name, form)
    if terms is None:
        activations.define_float_panels(module, Role.PREPARE_GEMM.name)
        gemm.define_float(module, Role.GEMM.name, form)
    else:
        gemm_amx.define_float(module, Role.GEMM.name, form)
    embedding_lookup.define_float(module, Role.EMBED.name, form)
