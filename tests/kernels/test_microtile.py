"""Microtiles of the GEMM: their shapes, and the machine code of the innermost loops."""

import platform
import re

import pytest
from gguf import GGMLQuantizationType as Type

from minillama.kernels.cpu.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.matmul import gemm
from minillama.kernels.cpu.matmul.microtile import MAX_UNPACKED_ROWS, Shape
from minillama.kernels.cpu.runtime.machine_code import compile_listing
from minillama.kernels.cpu.simd import I8, I32, U8, Isa, Module, Value, dot, load, store

by_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="machine code of x86")


def longest_loop(kind: Type, isa: Isa) -> list[str]:
    """The instructions of the longest loop body of a GEMM that has no jump inside."""

    def write(module: Module) -> None:
        if kind in FORMATS:
            gemm.define_quantised(module, "gemm", FORMATS[kind])
        else:
            gemm.define_float(module, "gemm", FLOAT_FORMATS[kind])

    blocks: list[list[str]] = [[]]
    for line in compile_listing(isa, write).assembly.splitlines():
        if line.startswith(".LBB"):
            blocks.append([])
        elif re.match(r"\t[a-z{]", line):
            blocks[-1].append(line.strip())
            if line.startswith("\tj"):
                blocks.append([])
    return max((b for b in blocks if any("fmadd" in i for i in b)), key=len)


def spilled(loop: list[str]) -> int:
    """Vector registers that the loop stores on the stack."""
    return sum(re.search(r"mov\w+\s+%ymm\d+, -?\d*\(%r[sb]p", i) is not None for i in loop)


@pytest.mark.parametrize("isa", Isa, ids=lambda isa: isa.value)
@pytest.mark.parametrize("is_float", [False, True])
def test_tasks_are_whole_microtiles(isa: Isa, is_float: bool) -> None:
    shape = Shape.of(isa, is_float)
    assert shape.panel == 2 * shape.lanes
    assert shape.row_step % shape.rows == 0
    for rows in (1, 8, 512, 2048, 128256):
        assert shape.task_rows(rows) % shape.row_step == 0
        assert 8 <= shape.task_rows(rows) <= MAX_UNPACKED_ROWS


@by_x86
def test_the_float_product_has_more_fmas_than_loads_and_keeps_its_sums_in_registers() -> None:
    loop = longest_loop(Type.F16, Isa.AVX2)
    fmas = sum("vfmadd" in i for i in loop)
    loads = sum("(%r" in i for i in loop)
    assert fmas == 4 * 12  # columns times sums
    assert loads == 4 * 8
    assert len(loop) <= 1.9 * fmas
    assert spilled(loop) == 0


@by_x86
@pytest.mark.parametrize(("kind", "products"), [(Type.Q4_0, "vpmaddubsw"), (Type.Q8_0, "vpmaddwd")])
def test_products_of_codes_are_added_as_they_come(kind: Type, products: str) -> None:
    """Of 4 rows and 16 tokens only the float sums may be on the stack."""
    loop = longest_loop(kind, Isa.AVX2)
    assert sum(i.startswith(products) for i in loop) == 8 * {"vpmaddubsw": 8, "vpmaddwd": 16}[products]
    assert spilled(loop) <= 8


@by_x86
def test_vnni_in_256_bits() -> None:
    """In the form that processors without AVX-512 have, and none of its registers."""

    def body(codes: Value, x: Value, to: Value) -> None:
        store(dot(load(I32, 16, to), load(U8, 64, codes), load(I8, 64, x), codes_above_127=True), to)

    assembly = compile_listing(Isa.AVX_VNNI, lambda module: module.define("function", 3, body)).assembly
    assert len(re.findall(r"\{vex\}\s+vpdpbusd", assembly)) == 2
    assert not re.search(r"zmm|ymm(1[6-9]|2\d|3\d)|vpmadd", assembly)
