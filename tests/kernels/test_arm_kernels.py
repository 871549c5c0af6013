"""Kernels for ARM, under QEMU: the references and bounds of the tests of this processor's own kernels.

LLVM compiles for several processors. In CI one kernel of every type and instruction set runs, and each operation;
nightly all kernels of all types and processors.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
import test_cpu_attention
import test_cpu_delta_rule
from emulated_arm import PROCESSORS, EmulatedArm, Processor, needs_emulator
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from reference_blocks import hadamard_matrix
from test_cpu_matmul import DECODE_TOKENS, check, product
from test_weight import random_bytes

from minillama.kernels.cpu import simd
from minillama.kernels.cpu.attention.attention_args import AttentionSpec
from minillama.kernels.cpu.attention.rotate_heads import RotationArgs, define_rotation
from minillama.kernels.cpu.delta_rule.delta_rule_kernel import DeltaRuleSpec, define_delta_rule
from minillama.kernels.cpu.formats import FLOAT_FORMATS, FORMATS
from minillama.kernels.cpu.matmul import activations, gemm_neon, gemv
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.runtime.kernel_definitions import define_kernels
from minillama.kernels.cpu.runtime.kernel_roles import TYPES, Role
from minillama.kernels.cpu.simd import F32, I8, I32, U8, U16, Isa, Module, Value, load, store

pytestmark = [pytest.mark.arm, needs_emulator]
CI = ("armv8.2", "armv8.6")  # one processor of each instruction set
NEON = [name for name, processor in PROCESSORS.items() if processor.isa.is_neon]


def each_processor(names: list[str]) -> pytest.MarkDecorator:
    """Parametrise by processor: two in CI, the others nightly."""
    marks = {name: pytest.mark.slow if name in CI else pytest.mark.nightly for name in names}
    return pytest.mark.parametrize(
        "processor", [pytest.param(PROCESSORS[name], id=name, marks=marks[name]) for name in names]
    )


by_type = pytest.mark.parametrize("kind", TYPES, ids=lambda kind: kind.name)


@contextmanager
def gemv_on(processor: Processor, kind: Type) -> Iterator[EmulatedArm]:
    """The GEMV of a type and the preparation of its activations."""

    def write(module: Module) -> None:
        if kind in FORMATS:
            activations.define_quantised_rows(module, Role.PREPARE_GEMV.name, FORMATS[kind])
            gemv.define_quantised(module, Role.GEMV.name, FORMATS[kind], 1)
        else:
            activations.define_no_op(module, Role.PREPARE_GEMV.name)
            gemv.define_float(module, Role.GEMV.name, FLOAT_FORMATS[kind], 1)

    with EmulatedArm(processor, f"{kind.name}-gemv", write) as arm:
        yield arm


@contextmanager
def kernels_on(processor: Processor, kind: Type) -> Iterator[EmulatedArm]:
    """All kernels of a type."""
    with EmulatedArm(processor, kind.name, lambda module: define_kernels(module, kind)) as arm:
        yield arm


def inputs(kind: Type, rows: int, width: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(tokens).standard_normal((tokens, width)).astype(np.float32)
    return random_bytes(kind, rows, width), x


@by_type
@each_processor(list(CI))
def test_one_token(kind: Type, processor: Processor) -> None:
    """The GEMV, with rows that end in single blocks if the type has them."""
    for width in (768, 768 + 3 * 32) if kind in FORMATS and FORMATS[kind].weights == 32 else (768,):
        raw, x = inputs(kind, 71, width, 1)
        with gemv_on(processor, kind) as arm:
            check(kind, raw, x, product(kind, processor.isa, raw, x, on=arm), processor.isa)


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q8_0, Type.Q4_K, Type.Q6_K], ids=lambda kind: kind.name)
@each_processor(list(CI))
def test_a_long_prompt(kind: Type, processor: Processor) -> None:
    """The GEMM of one type of each kind: of products of four codes, and of eight."""

    def write(module: Module) -> None:
        gemm_neon.define_panels(module, Role.PREPARE_GEMM.name, FORMATS[kind])
        gemm_neon.define_quantised(module, Role.GEMM.name, FORMATS[kind])

    for rows, width, tokens in ((71, 768, 39), (5, 4096 + 256, 9), (1, 256, 16)):  # and more than a chunk of weights
        raw, x = inputs(kind, rows, width, tokens)
        with EmulatedArm(processor, f"{kind.name}-gemm", write) as arm:
            check(kind, raw, x, product(kind, processor.isa, raw, x, Role.GEMM, arm), processor.isa)


@pytest.mark.nightly
@by_type
@pytest.mark.parametrize("name", PROCESSORS)
class TestEveryKernel:
    """The same cases as on this processor."""

    @pytest.mark.parametrize("tokens", [1, 2, 4, 16, 24, 39])
    def test_errors_are_those_of_the_activations(self, kind: Type, name: str, tokens: int) -> None:
        processor, (raw, x) = PROCESSORS[name], inputs(kind, 71, 768, tokens)
        with kernels_on(processor, kind) as arm:
            check(kind, raw, x, product(kind, processor.isa, raw, x, on=arm), processor.isa)

    def test_rows_by_number(self, kind: Type, name: str) -> None:
        with kernels_on(PROCESSORS[name], kind) as arm:
            ids, out = arm.guarded(np.array([7, 0, 7], np.int32)), arm.guarded(np.zeros((3, 512), np.float32))
            raw = arm.guarded(random_bytes(kind, 8, 512))
            args = MatmulArgs.pack(
                weights=raw.ctypes.data, row_bytes=raw.shape[1], width=512, rows=8, tokens=3,
                source=ids.ctypes.data, y=out.ctypes.data,
            )  # fmt: skip
            arm.call(Role.EMBED.name, args, 0, 3)
            np.testing.assert_allclose(out, dequantize(raw, kind).reshape(8, -1)[ids], rtol=3e-7, atol=3e-8)

    def test_rows_of_a_batch(self, kind: Type, name: str) -> None:
        """The bits of a token's results do not depend on the tokens that are multiplied with it."""
        processor, (raw, x) = PROCESSORS[name], inputs(kind, 21, 768, DECODE_TOKENS)

        def found(part: np.ndarray, role: Role) -> np.ndarray:
            with kernels_on(processor, kind) as arm:
                return product(kind, processor.isa, raw, part, role, arm).copy().view(np.uint32)

        alone = np.concatenate([found(token[None], Role.GEMV) for token in x[:9]])
        np.testing.assert_array_equal(found(x[:2], Role.GEMV_2), alone[:2])
        for tokens in (3, 8, 9):
            np.testing.assert_array_equal(found(x[:tokens], Role.SKINNY_GEMM), alone[:tokens])


def check_attention(processor: Processor, heads: AttentionSpec) -> None:
    for case in (test_cpu_attention.CASES[i] for i in (2, 4, 8)):
        given = test_cpu_attention.inputs(heads, case)
        with EmulatedArm(processor, heads.name, partial(test_cpu_attention.write, heads=heads)) as arm:
            got = test_cpu_attention.attention(heads, processor.isa, case, given, arm)
            rounding = 1e-5 * max(1, heads.key_size / 128)  # of a longer sum
            np.testing.assert_allclose(got, test_cpu_attention.expected(heads, case), atol=rounding)


@pytest.mark.nightly
@test_cpu_attention.by_heads
@pytest.mark.parametrize("name", PROCESSORS)
def test_attention_of_all_kinds(heads: AttentionSpec, name: str) -> None:
    check_attention(PROCESSORS[name], heads)


@each_processor(list(CI))
class TestOtherKernels:
    """Single functions; the thread pool and the handlers need XLA's run time."""

    def test_attention(self, processor: Processor) -> None:
        """Of one token and of prompts, with keys in halves and quantised values."""
        check_attention(processor, test_cpu_attention.HEADS[4])

    def test_delta_rule(self, processor: Processor) -> None:
        parts, spec = test_cpu_delta_rule.inputs(64, 9), DeltaRuleSpec(64)
        with EmulatedArm(processor, spec.name, partial(define_delta_rule, name="panel", spec=spec)) as arm:
            got = test_cpu_delta_rule.run(processor.isa, parts, True, arm)
            for found, right in zip(got, test_cpu_delta_rule.expected(parts, True), strict=True):
                np.testing.assert_allclose(found, right, atol=1e-5)

    def test_rotation(self, processor: Processor) -> None:
        with EmulatedArm(processor, "rotation", partial(define_rotation, name="rotate", size=64)) as arm:
            x = arm.guarded(np.random.default_rng(0).standard_normal((9, 64), np.float32))
            out = arm.guarded(np.full(x.shape, np.nan, np.float32))
            arm.call("rotate", RotationArgs.pack(x=x.ctypes.data, out=out.ctypes.data, rows=9), 0)
            np.testing.assert_allclose(out, x @ hadamard_matrix(64), atol=3e-6)


@each_processor(NEON)
class TestOperations:
    """The instructions of `simd`, against numpy."""

    def mapped(
        self, processor: Processor, operation: Callable[..., Value], out: np.ndarray, *inputs: np.ndarray
    ) -> np.ndarray:
        elements = {"float32": F32, "int32": I32, "int8": I8, "uint8": U8, "uint16": U16}

        def body(*addresses: Value) -> None:
            values = [load(elements[a.dtype.name], a.size, at) for a, at in zip(inputs, addresses[1:], strict=True)]
            store(operation(*values), addresses[0])

        def write(module: Module) -> None:
            module.define("function", 1 + len(inputs), body)

        with EmulatedArm(processor, f"operation-{id(operation)}", write, cached=False) as arm:
            arrays = [arm.guarded(array) for array in (out, *inputs)]
            arm.call_numbers("function", *(array.ctypes.data for array in arrays))
            return arrays[0].copy()

    @pytest.mark.parametrize("above_127", [False, True])
    def test_dot(self, processor: Processor, above_127: bool) -> None:
        rng = np.random.default_rng(0)
        codes = rng.integers(0, 256 if above_127 else 128, 32).astype(np.uint8)
        x = rng.integers(-127, 128, 32).astype(np.int8)
        codes[:8], x[:8] = 255 if above_127 else 127, (127, 127, 127, 127, -127, -127, -127, -127)
        start = rng.integers(-(2**20), 2**20, 8).astype(np.int32)
        dot = partial(simd.dot, codes_above_127=above_127)
        got = self.mapped(processor, dot, np.zeros_like(start), start, codes, x)
        np.testing.assert_array_equal(got, start + (codes.astype(int) * x).reshape(-1, 4).sum(1))

    def test_products_of_two_by_two(self, processor: Processor) -> None:
        if processor.isa is not Isa.NEON_I8MM:
            pytest.skip("an operation of i8mm")
        rows, columns = np.random.default_rng(1).integers(-128, 128, (2, 2, 8)).astype(np.int8)
        start = np.arange(4, dtype=np.int32)
        got = self.mapped(processor, simd.matrix_product, np.zeros(4, np.int32), start, rows.ravel(), columns.ravel())
        np.testing.assert_array_equal(got, start + (rows.astype(int) @ columns.T.astype(int)).ravel())

    @pytest.mark.parametrize("largest", [127, 255])
    def test_tables(self, processor: Processor, largest: int) -> None:
        rng = np.random.default_rng(2)
        entries, codes = [int(e) for e in rng.integers(0, largest + 1, 16)], rng.integers(0, 16, 32).astype(np.uint8)
        got = self.mapped(processor, lambda c: simd.lookup(entries, c), np.zeros(32, np.uint8), codes)
        np.testing.assert_array_equal(got, np.array(entries)[codes])

    def test_halves(self, processor: Processor) -> None:
        """Of all sizes, infinities and subnormal ones, there and back."""
        ends = [0, 1, 0x3FF, 0x400, 0x3C00, 0x7BFF, 0x7C00, 0xFC00, 0x8001, 0xC123]
        bits = np.array([*ends, *range(0x5678, 0x567E)], np.uint16)
        floats = self.mapped(processor, simd.f16_to_f32, np.zeros(16, np.float32), bits)
        np.testing.assert_array_equal(floats, bits.view(np.float16).astype(np.float32))
        np.testing.assert_array_equal(self.mapped(processor, simd.f32_to_f16, np.zeros(16, np.uint16), floats), bits)

    def test_sums(self, processor: Processor) -> None:
        x = np.random.default_rng(3).integers(-99, 99, 16).astype(np.int32)
        assert self.mapped(processor, simd.reduce_sum, np.zeros(1, np.int32), x) == [x.sum()]
        floats = x.astype(np.float32)
        assert self.mapped(processor, simd.reduce_sum, np.zeros(1, np.float32), floats) == [x.sum()]

    def test_exp(self, processor: Processor) -> None:
        x = -np.concatenate([[0, 1e-8, 0.5, 86.9, 87.5, 1e30, np.inf], np.linspace(0, 80, 9)]).astype(np.float32)
        got = self.mapped(processor, simd.exp, np.zeros(16, np.float32), x)
        np.testing.assert_allclose(got, np.where(x < -87, 0, np.exp(x.astype(np.float64))), rtol=4e-7, atol=0)


@pytest.mark.slow
class TestEmulator:
    """A wrong kernel does not pass."""

    def call(self, qemu: str, body: Callable[..., Value | None], isa: Isa = Isa.NEON_DOTPROD) -> int:
        chosen = PROCESSORS["armv8.6" if isa is Isa.NEON_I8MM else "armv8.2"]
        processor = Processor(isa, chosen.target, qemu)

        def write(module: Module) -> None:
            module.define("function", 1, body)

        with EmulatedArm(processor, "mistake", write, cached=False) as arm:
            return arm.call("function", np.arange(4))

    def test_arguments_and_results(self) -> None:
        assert self.call("neoverse-n1", lambda at: load(simd.I64, 1, at + 24) * 2) == 6

    def test_an_access_outside(self) -> None:
        with pytest.raises(AssertionError, match="function ended the process: "):
            self.call("neoverse-n1", lambda at: load(simd.I64, 1, at + 32))

    def test_a_missing_instruction(self) -> None:
        def body(at: Value) -> Value:
            x = load(I8, 16, at)
            return simd.matrix_product(load(I32, 4, at), x, x)[0].to(simd.I64)

        with pytest.raises(AssertionError, match="function ended the process: "):
            self.call("neoverse-n1", body, Isa.NEON_I8MM)
