"""Instructions of ARM in listings, which need no such processor; and the choice of its instruction sets."""

from collections.abc import Callable

import pytest
from gguf import GGMLQuantizationType as Type

from minillama.errors import OptionError
from minillama.kernels.cpu import simd
from minillama.kernels.cpu.runtime import arm_features, registry
from minillama.kernels.cpu.runtime.arm_features import best_neon, neon_features
from minillama.kernels.cpu.runtime.machine_code import Target, compile_listing
from minillama.kernels.cpu.simd import F32, I8, I32, U8, U16, Isa, Module, Value, load, store
from minillama.lab.own_kernels import count_table

ARM = Target("aarch64-unknown-linux-gnu", "generic", "+v8.2a,+dotprod,+i8mm")
DOT, I8MM = Isa.NEON_DOTPROD, Isa.NEON_I8MM


def listing(isa: Isa, body: Callable[[Value], object]) -> str:
    """Assembly of a function of an address."""

    def function(address: Value) -> None:
        body(address)

    return compile_listing(isa, lambda module: module.define("function", 1, function), ARM).assembly


def changed(operation: Callable[..., Value], *inputs: tuple[simd.Element, int]) -> Callable[[Value], None]:
    """Apply an operation to vectors at an address, and store the result there."""

    def body(at: Value) -> None:
        store(operation(*(load(element, lanes, at + 64 * i) for i, (element, lanes) in enumerate(inputs))), at)

    return body


@pytest.mark.parametrize(
    ("isa", "body", "instruction"),
    [
        (DOT, changed(simd.dot, (I32, 4), (U8, 16), (I8, 16)), "sdot"),
        (I8MM, changed(lambda s, c, x: simd.dot(s, c, x, True), (I32, 4), (U8, 16), (I8, 16)), "usdot"),
        (I8MM, changed(simd.matrix_product, (I32, 4), (I8, 16), (I8, 16)), "smmla"),
        (DOT, changed(lambda codes: simd.lookup(range(16), codes), (U8, 16)), "tbl"),
        (DOT, changed(simd.f16_to_f32, (U16, 4)), "fcvtl"),
        (DOT, changed(simd.f32_to_f16, (F32, 4)), "fcvtn"),
        (Isa.GENERIC, changed(simd.f16_to_f32, (U16, 4)), "fcvtl"),
        (DOT, changed(simd.reduce_sum, (I32, 4)), "addv"),
        (DOT, changed(lambda *rows: simd.row_sums(rows), *[(I32, 4)] * 4), "addp"),
        (DOT, changed(lambda *rows: simd.row_sums(rows), *[(F32, 4)] * 4), "faddp"),
        (DOT, changed(simd.fma, *[(F32, 4)] * 3), "fmla"),
        (DOT, lambda at: simd.pause(), "isb"),
        (DOT, simd.prefetch, "prfm"),
    ],
)
def test_instructions(isa: Isa, body: Callable[[Value], object], instruction: str) -> None:
    assert instruction in listing(isa, body).split()


def test_x86_keeps_its_pause() -> None:
    def write(module: Module) -> None:
        module.define("function", 0, simd.pause)

    x86 = compile_listing(Isa.GENERIC, write, Target("x86_64-unknown-linux-gnu", "x86-64")).assembly
    assert "pause" in x86 and "isb" not in x86


class TestCounts:
    @pytest.mark.parametrize(("kind", "most"), [(Type.Q4_0, 13), (Type.Q8_0, 12), (Type.Q6_K, 22), (Type.F16, 26)])
    def test_few_instructions(self, kind: Type, most: float) -> None:
        """A kernel that spills its registers, or widens bytes, takes more; plain vectors take 71 for Q4_0."""
        assert most / 2 < count_table.instructions(kind, DOT) <= most

    def test_table(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert count_table.main(["F16"]) == 0
        head, _, row, _, prompts = capsys.readouterr().out.splitlines()
        assert head.startswith("| | avx2 (haswell) |") and row.startswith("| F16 | ") and row.count("|") == 7
        assert prompts.startswith("Q4_0 in prompts, for 32 weights and a token: neon-dotprod ")

    def test_a_type_without_kernels(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert count_table.main(["Q4"]) == 2
        assert capsys.readouterr().err.startswith("error: Q4 is not a type with kernels; choose from Q4_0, Q4_1")


class TestChoice:
    @pytest.mark.parametrize(
        ("flags", "found", "best"),
        [
            ("fp asimd", {}, Isa.GENERIC),
            ("fp asimd i8mm", {}, Isa.GENERIC),
            ("fp asimd asimddp", {}, DOT),
            ("fp asimd asimddp i8mm", {}, I8MM),
            ("", {"dotprod": True, "i8mm": False}, DOT),
            ("", {"dotprod": True, "i8mm": True}, I8MM),
        ],
    )
    def test_features(self, flags: str, found: dict[str, bool], best: Isa, monkeypatch: pytest.MonkeyPatch) -> None:
        """As Linux or macOS reports them, or LLVM by itself."""
        monkeypatch.setattr(arm_features, "cpu_flags", lambda: frozenset(flags.split()))
        assert best_neon(found) is best

    def test_llvm_knows_what_the_kernels_use(self) -> None:
        """Or it would abort the process."""
        assert neon_features(I8MM, {}) == "+dotprod,+i8mm,+neon"
        assert neon_features(DOT, {"dotprod": False, "sve": True, "lse": False}) == "+dotprod,-lse,+neon,+sve"

    @pytest.fixture
    def arm(self, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
        """A processor with dot products, and without `smmla`."""
        monkeypatch.setattr(registry, "on_arm64", lambda: True)
        monkeypatch.setattr(registry.binding, "get_host_cpu_features", lambda: {"dotprod": True})
        monkeypatch.setattr(arm_features, "cpu_flags", frozenset)
        registry.chosen_isa.cache_clear()
        yield monkeypatch
        registry.chosen_isa.cache_clear()

    def test_the_best_one(self, arm: pytest.MonkeyPatch) -> None:
        arm.delenv("MINILLAMA_CPU_KERNELS", raising=False)
        assert registry.chosen_isa() is DOT
        assert registry.available_isas() == (DOT, Isa.GENERIC)

    @pytest.mark.parametrize("word", ["avx2", "neon-i8mm"])
    def test_another_one_is_refused(self, arm: pytest.MonkeyPatch, word: str) -> None:
        arm.setenv("MINILLAMA_CPU_KERNELS", word)
        with pytest.raises(OptionError, match=f"is {word}, which this processor lacks; it has neon-dotprod, generic"):
            registry.chosen_isa()
