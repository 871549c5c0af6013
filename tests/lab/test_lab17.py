"""Lab 17: counts of planted loops, kernels in a child process, timing, figures, and checks that name mistakes."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab_checks import solutions as plain_solutions

from minillama.errors import OptionError, ResourceError
from minillama.kernels.cpu import simd
from minillama.kernels.cpu.runtime.machine_code import Listing, compile_listing
from minillama.kernels.cpu.runtime.registry import detect_isa
from minillama.kernels.cpu.simd import F32, I32, U8, Isa, Module, Value, const, fma, load, loop, store, while_
from minillama.lab.checks import lab17
from minillama.lab.checks.kernel_items.lab17_kernels import _dequantise, _integer
from minillama.lab.grading.check import Item
from minillama.lab.own_kernels.block_kernels import (
    CODED,
    FLOAT,
    STEP,
    Body,
    Shape,
    coded_input,
    corrections,
    quantise_input,
)
from minillama.lab.own_kernels.core_limits import CoreLimits, limit_sentence, measured_frequency, measured_reads
from minillama.lab.own_kernels.guarded_run import guarded_product
from minillama.lab.own_kernels.instruction_counts import count_instructions, innermost_loops, kind_of, reads_memory
from minillama.lab.own_kernels.kernel_figures import KernelDot, core_roofline, instruction_bars
from minillama.lab.own_kernels.package_kernels import available_isas, package_kernel, package_product
from minillama.lab.own_kernels.pallas_products import pallas_product
from minillama.lab.own_kernels.timed_products import TimedProducts, large_matrix, time_products
from minillama.lab.own_kernels.traced_kernels import (
    CountedKernel,
    attempt_kernel,
    compiled,
    dequantised,
    loaded_product,
    random_blocks,
    run_guarded,
)

ISAS = available_isas()
X86 = detect_isa() is not Isa.GENERIC and not detect_isa().is_neon
BODIES = ((_dequantise, FLOAT), (_integer, CODED))
each_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def vector(width: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(width).astype(np.float32)


# ---- counts ----


def planted(isa: Isa, body: Callable[[Value, Value], None]) -> Listing:
    """A loop over 64 bytes of x at a time, with a planted body."""

    def function(x: Value, y: Value, count: Value) -> None:
        for i in loop(0, count):
            body(x + i * 64, y + i * 64)

    def write(module: Module) -> None:
        module.define("planted", 3, function)

    return compile_listing(isa, write)


@pytest.mark.skipif(Isa.AVX512 not in ISAS, reason="counts of AVX-512")
def test_planted_instructions_are_counted() -> None:
    """A copy, then a product of floats, then a conversion: one instruction each, and the rest is the loop's."""
    copy = count_instructions(planted(Isa.AVX512, lambda x, y: store(load(F32, 16, x), y)))
    squared = count_instructions(planted(Isa.AVX512, lambda x, y: store(load(F32, 16, x) * load(F32, 16, x), y)))
    converted = count_instructions(planted(Isa.AVX512, lambda x, y: store(load(I32, 16, x).to(F32), y)))
    turned = count_instructions(planted(Isa.AVX512, lambda x, y: store(load(F32, 16, x).permute(range(15, -1, -1)), y)))
    assert [each.loaded_bytes for each in (copy, squared, converted, turned)] == [64] * 4
    assert [each.memory_reads for each in (copy, squared, converted, turned)] == [1] * 4
    assert (copy.kinds["loads"], copy.kinds["multiplies"], copy.kinds["conversions"]) == (1, 0, 0)
    assert (squared.kinds["loads"], squared.kinds["multiplies"]) == (1, 1)
    assert (converted.kinds["loads"], converted.kinds["conversions"]) == (0, 1)  # it converts while it loads
    assert turned.kinds["shuffles"] == 1
    assert copy.total == converted.total == squared.total - 1


@each_isa
def test_loaded_bytes_are_those_of_the_loop(isa: Isa) -> None:
    for lanes in (1, 4, 16, 64):
        listing = planted(isa, lambda x, y, lanes=lanes: store(load(U8, lanes, x) + 1, y))
        assert count_instructions(listing).loaded_bytes == lanes


def test_a_listing_without_a_loop() -> None:
    def write(module: Module) -> None:
        module.define("f", 2, lambda x, y: store(load(F32, 16, x), y))

    with pytest.raises(OptionError, match="no loop"):
        count_instructions(compile_listing(ISAS[-1], write))


ARM = """
\t.text
_product:
\tcbz\tx3, .LBB0_5
.LBB0_2:                                // =>This Loop Header: Depth=1
\tmovi\tv0.2d, #0000000000000000
.LBB0_3:                                //   Parent Loop BB0_2 Depth=1
\tldp\tq1, q2, [x0], #32
\tldr\tq3, [x1], #16
\tushll\tv4.8h, v3.8b, #0
\tsdot\tv0.4s, v1.16b, v3.16b
\tfmla\tv0.4s, v1.4s, v2.4s
\ttbl\tv5.16b, { v1.16b }, v6.16b
\tstr\tq5, [x2], #16
\tsubs\tx4, x4, #1
\tb.ne\t.LBB0_3
\tsubs\tx3, x3, #1
\tb.ne\t.LBB0_2
.LBB0_5:
\tret
"""


def test_assembly_of_arm() -> None:
    (found,) = innermost_loops(ARM)
    assert [kind_of(line) for line in found] == [
        "loads", "loads", "conversions", "multiplies", "multiplies", "shuffles", "others", "others", "others",
    ]  # fmt: skip
    assert [reads_memory(line) for line in found] == [True, True, *[False] * 7]


@pytest.mark.parametrize(("line", "kind", "reads"), [
    ("vmovdqu\t(%rdi,%rcx), %ymm0", "loads", True), ("vmovups\t%zmm0, (%rsi)", "others", False),
    ("vpmovzxbd\t(%rdi), %zmm0", "conversions", True), ("vpdpbusd\t64(%rax){1to16}, %zmm1, %zmm2", "multiplies", True),
    ("vpbroadcastd\t4(%rax), %ymm2", "loads", True), ("leaq\t(%rax,%rax,8), %rcx", "others", False),
    ("prefetcht0\t2048(%rax)", "others", False), ("vfmadd231ps\t%zmm4, %zmm5, %zmm3", "multiplies", False),
    ("vpaddd\t.LCPI0_1(%rip), %xmm1, %xmm2", "others", True), ("cmpq\t%r8, 8(%rbx)", "others", True),
    ("vpshufb\t%ymm1, %ymm2, %ymm3", "shuffles", False), ("movzwl\t(%rax), %ecx", "conversions", True),
])  # fmt: skip
def test_kinds(line: str, kind: str, reads: bool) -> None:
    assert (kind_of(line), reads_memory(line)) == (kind, reads)


# ---- kernels ----


@each_isa
@pytest.mark.parametrize(("body", "shape"), BODIES, ids=["floats", "integers"])
def test_a_product_on_every_instruction_set(isa: Isa, body: Body, shape: Shape) -> None:
    weights, x = random_blocks(3, 2 * STEP), vector(2 * STEP)
    kernel = compiled(body, shape, isa)
    got = loaded_product(kernel, shape)(weights, x)
    rounded = np.multiply(*(part if part.ndim > 1 else part[:, None] for part in quantise_input(x))).reshape(-1)
    want = dequantised(weights) @ (x if shape is FLOAT else rounded)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())
    assert 0.05 < kernel.instructions < (2 if isa is not Isa.GENERIC else 20)
    assert 18 / 32 + 1 <= kernel.loaded_bytes <= 18 / 32 + shape.step_bytes / STEP + 0.01


@pytest.mark.skipif(not X86, reason="counts of x86 with AVX2")
def test_integers_take_fewer_instructions() -> None:
    for isa in (isa for isa in ISAS if isa is not Isa.GENERIC):
        floats, integers = (compiled(body, shape, isa) for body, shape in BODIES)
        assert 2 * integers.instructions < floats.instructions
        assert 2 * integers.loaded_bytes < floats.loaded_bytes


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=128, max_size=128))
def test_activations_as_codes(values: list[float]) -> None:
    x = np.array(values, np.float32)
    scales, codes = quantise_input(x)
    assert np.abs(codes.astype(int)).max() <= 127
    assert np.abs(codes * scales[:, None] - x.reshape(-1, 32)).max(axis=1).tolist() <= (0.51 * scales + 1e-30).tolist()
    assert np.array_equal(corrections(codes) * 4, -8 * codes.astype(int).sum(1))
    packed = coded_input(x)
    assert packed.size == CODED.step_bytes
    assert np.array_equal(packed[:16].view(np.int8), codes[0, :16])
    assert np.array_equal(packed[64:80].view(np.int8), codes[0, 16:])


def crashes(block: object, x: object, sums: Value) -> Value:
    return sums + load(F32, 16, const(8))


def never_ends(block: object, x: object, sums: Value) -> Value:
    with while_(lambda: simd.opaque(const(1)) < 2):
        pass
    return sums


def test_a_crash_stays_in_the_child() -> None:
    weights, x = random_blocks(2, STEP), vector(STEP)
    with pytest.raises(ResourceError, match=r"SIG(SEGV|BUS)"):
        run_guarded(compiled(crashes, FLOAT), FLOAT, weights, x)
    with pytest.raises(ResourceError, match=r"did not end within 2 s"):
        guarded_product(compiled(never_ends, FLOAT).listing.machine_code, weights, x, seconds=2)


def test_a_write_outside_of_the_result_is_found() -> None:
    def outside(weights: Value, x: Value, y: Value, rows: Value, steps: Value) -> None:
        store(const(0.0, F32), y - 64)

    def write(module: Module) -> None:
        module.define("product", 5, outside)

    code = compile_listing(ISAS[0], write).machine_code
    with pytest.raises(ResourceError, match="wrote outside"):
        guarded_product(code, random_blocks(1, STEP), vector(STEP))


def test_attempts(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(attempt_kernel(_dequantise, FLOAT), CountedKernel)
    assert attempt_kernel(crashes, FLOAT) is None
    assert attempt_kernel(lambda block, x, sums: sums, FLOAT) is None
    assert attempt_kernel(lambda block, x, sums: block.load(U8, 16, 3), FLOAT) is None
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("crashes: ", "SIG", "its result is wrong", "bytes at 3"))


# ---- the package's kernels, time and figures ----


@each_isa
def test_the_package_is_right_and_counted(isa: Isa) -> None:
    weights, x = random_blocks(8, 512), vector(512)
    want = dequantised(weights) @ x
    np.testing.assert_allclose(package_product(isa)(weights, x), want, rtol=0, atol=0.03 * np.abs(want).max())
    kernel = package_kernel("Q4_0", isa)
    assert kernel.loaded_bytes >= 18 / 32 and (isa is Isa.GENERIC or kernel.instructions < 0.6)


def test_an_instruction_set_that_is_missing() -> None:
    missing = [isa for isa in Isa if isa not in ISAS and isa is not detect_isa()]
    if not missing:
        pytest.skip("this processor has all")
    with pytest.raises(OptionError, match=missing[0].value):
        package_kernel("Q4_0", missing[0])


def test_limits_of_a_core() -> None:
    assert 2e8 < measured_frequency(3) < 8e9
    assert 1e8 < measured_reads(4, size=1 << 20, passes=3) < 1e12
    core = CoreLimits(9e9, 3e9)
    assert core.memory_rate(0.5625) == 16e9 and core.core_rate(0.5, 2) == 12e9
    assert "memory should be" in limit_sentence("a", 0.2, 0.4)
    assert "the core should be the limit, at 50%" in limit_sentence("a", 0.8, 0.4)
    assert "too near" in limit_sentence("a", 0.41, 0.4)


def test_timing_by_turns(capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    products = {name: lambda weights, x, name=name: calls.append(name) or x for name in ("a", "b")}
    weights = large_matrix(8, STEP)
    assert weights.shape == (8, 72)
    timed = time_products(products, weights, rounds=3)
    assert calls == ["a", "b"] * 4 and timed.weights == 8 * STEP
    assert "round 3" in capsys.readouterr().out


def test_verdicts() -> None:
    fast, slow = tuple(1.0 + i / 100 for i in range(9)), tuple(2.0 + i / 100 for i in range(9))
    timed = TimedProducts({"fast": fast, "slow": slow, "same": fast[::-1]}, 10**9)
    assert "faster than slow" in timed.sentence("fast", "slow")
    assert "slower than fast" in timed.sentence("slow", "fast")
    assert "cannot tell" in timed.sentence("same", "fast")
    assert timed.rate("slow") == pytest.approx(1e9 / 2.04)


def test_figures_say_what_they_show() -> None:
    dots = {"floats": KernelDot(0.5, 4.5, 3e9), "package": KernelDot(0.16, 1.3, 12e9)}
    figure = core_roofline(CoreLimits(9e9, 3e9), 0.5625, dots, "title")
    assert "16.0 billions" in figure.text and "75%" in figure.text and "<img" in figure.static_html()
    assert core_roofline(CoreLimits(9e9, 3e9), 0.5625, {}, "title").text
    kernel = compiled(_integer, CODED)
    bars = instruction_bars([kernel], "title")
    assert f"{kernel.instructions:.3f}" in bars.text
    assert sum(trace.x[0] for trace in bars.plotly.data) == pytest.approx(kernel.instructions)


def test_tiles_must_be_whole() -> None:
    with pytest.raises(OptionError, match="whole tiles"):
        pallas_product(lambda *refs: None, random_blocks(5, 64), vector(64))


# ---- checks ----


def solutions() -> dict[str, Callable]:
    return plain_solutions("17")


def as_floats(blocks: object, x: object, sums: Value) -> Value:
    """The integer kernel's result by products of floats."""
    raw = blocks.quants()
    scales = (blocks.scales() * x.scales()).permute([lane // 16 for lane in range(64)])
    for codes, xs in ((raw & 15, x.low()), (raw >> 4, x.high())):
        product = (codes.to(I32) - 8).to(F32) * xs.to(I32).to(F32) * scales
        for first in range(0, 64, 16):
            sums = sums + product.permute(range(first, first + 16))
    return sums


def stub(block: object, x: object, sums: object) -> None:
    raise NotImplementedError


def returns_codes(block: object, x: object, sums: object) -> object:
    return block.quants()


WRONG: list[tuple[Item, Callable, str]] = [
    (lab17.dequantise_product, stub, "still the empty stub"),
    (lab17.dequantise_product, lambda block, x, sums: None, "returned NoneType"),
    (lab17.dequantise_product, returns_codes, r"returned U8 x 16; the sums are F32 x 16"),
    (lab17.dequantise_product, lambda block, x, sums: sums + block.quants(), "raised|sums are"),
    (lab17.dequantise_product, lambda block, x, sums: sums + block.load(F32, 16, 0), "have 18 bytes, and a load"),
    (lab17.dequantise_product, lambda block, x, sums: fma(x.low(), x.high(), sums), "wrong value"),
    (lab17.dequantise_product, lambda block, x, sums: sums, "wrong value|no loop"),
    (lab17.dequantise_product, crashes, "SIG(SEGV|BUS)"),
    (lab17.integer_product, as_floats, "right, but .* instructions a weight"),
    (lab17.integer_product, stub, "still the empty stub"),
    (lab17.integer_product, lambda blocks, x, sums: x.nothing(), "AttributeError"),
    (lab17.instructions_allowed, lambda b, f, p, w: 1.0, "wrong value"),
    (lab17.correction, lambda codes: 0, "shape"),
    (lab17.pallas_kernel, lambda scales, quants, x, y: None, "every element of y written"),
    (lab17.pallas_kernel, lambda scales, quants: None, "raised"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "answer", "said"), WRONG)
def test_mistakes_are_named(item: Item, answer: Callable, said: str) -> None:
    result = item(answer)
    assert not result.passed
    assert re.search(said, result.message), result.message
    assert "\n" not in result.message


def dot_by_dot(blocks: object, x: object, sums: Value) -> Value:
    """Two `dot`s, both scales spread on their own, and the correction added afterwards."""
    raw, own = blocks.quants(), [lane // 4 for lane in range(16)]
    dots = simd.dot(simd.dot(const(0, I32, 16), raw & 15, x.low()), raw >> 4, x.high())
    dots = dots + x.corrections().permute(own)
    return sums + dots.to(F32) * blocks.scales().permute(own) * x.scales().permute(own)


def multiply_then_add(block: object, x: object, sums: Value) -> Value:
    raw = block.quants()
    low, high = ((codes.to(I32) - 8).to(F32) for codes in (raw & 15, raw >> 4))
    return sums + (low * x.low() + high * x.high()) * block.scales()


@pytest.mark.parametrize(
    ("item", "answer"), [(lab17.integer_product, dot_by_dot), (lab17.dequantise_product, multiply_then_add)]
)
def test_other_right_answers_pass(item: Item, answer: Callable) -> None:
    assert item(answer).passed, item(answer).message


@each_isa
def test_other_right_answers_have_few_instructions(isa: Isa) -> None:
    """The limits hold on each instruction set of this processor."""
    for own, others, shape in ((_dequantise, (multiply_then_add,), FLOAT), (_integer, (dot_by_dot,), CODED)):
        limit = 1.5 * compiled(own, shape, isa).instructions
        for other in others:
            assert compiled(other, shape, isa).instructions <= limit
    if isa is not Isa.GENERIC:
        assert compiled(as_floats, CODED, isa).instructions > 1.5 * compiled(_integer, CODED, isa).instructions


def test_right_answers_pass() -> None:
    found = solutions()
    for item in lab17.ITEMS:
        assert item(found[item.name]).passed, item(found[item.name]).message
    assert str(lab17.score()).startswith("lab 17: 5 of 5 solved")
