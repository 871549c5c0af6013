"""Operations of the SIMD language against numpy, on every instruction set of this processor."""

import ctypes
from collections.abc import Callable

import numpy as np
import pytest

from minillama.kernels.cpu import simd
from minillama.kernels.cpu.runtime.machine_code import callable_at, compile_kernels
from minillama.kernels.cpu.runtime.registry import available_isas
from minillama.kernels.cpu.simd import (
    F32,
    I8,
    I32,
    I64,
    U8,
    U16,
    Isa,
    Module,
    Value,
    Var,
    const,
    if_,
    load,
    loop,
    store,
)

ISAS = available_isas()  # of this processor


def run(isa: Isa, arguments: int, body: Callable[..., Value | None]) -> Callable[..., int]:
    """Compile one function without the disk cache."""

    def write(module: Module) -> None:
        module.define("function", arguments, body)

    return callable_at(compile_kernels("test", isa, write, None)("function"), arguments)


def mapped(isa: Isa, operation: Callable[..., Value], out: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    """Apply an operation to vectors in memory."""
    elements = {"float32": F32, "int32": I32, "int8": I8, "uint8": U8, "uint16": U16}

    def body(*addresses: Value) -> None:
        values = [load(elements[a.dtype.name], a.size, at) for a, at in zip(inputs, addresses[1:], strict=True)]
        store(operation(*values), addresses[0])

    run(isa, 1 + len(inputs), body)(out.ctypes.data, *(a.ctypes.data for a in inputs))
    return out


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)
class TestOnEveryInstructionSet:
    @pytest.mark.parametrize("lanes", [16, 32, 64])
    @pytest.mark.parametrize("above_127", [False, True])
    def test_dot_is_exact(self, isa: Isa, lanes: int, above_127: bool, rng: np.random.Generator) -> None:
        codes = rng.integers(0, 256 if above_127 else 128, lanes).astype(np.uint8)
        x = rng.integers(-127, 128, lanes).astype(np.int8)
        codes[:4], x[:4] = 255 if above_127 else 127, (127, 127, -127, -127)
        codes[4:8], x[4:8] = 255 if above_127 else 127, -127
        start = rng.integers(-(2**20), 2**20, lanes // 4).astype(np.int32)
        expected = start + (codes.astype(int) * x).reshape(-1, 4).sum(1)
        got = mapped(isa, lambda s, c, v: simd.dot(s, c, v, above_127), np.zeros_like(start), start, codes, x)
        np.testing.assert_array_equal(got, expected)

    @pytest.mark.parametrize("lanes", [16, 32, 64])
    def test_dot_of_narrow_codes_is_exact(self, isa: Isa, lanes: int, rng: np.random.Generator) -> None:
        for largest in (127, 64, 15):
            codes = rng.integers(0, largest + 1, (8, lanes)).astype(np.uint8)
            xs = rng.integers(-127, 128, (8, lanes)).astype(np.int8)
            codes[:, :4], xs[:, :4] = largest, -127
            expected = (codes.astype(int) * xs).reshape(8, -1, 4).sum((0, 2)).astype(np.int32)

            def dot(*v: Value, most: int = largest) -> Value:
                return simd.dot_narrow(v[:8], v[8:], most)

            np.testing.assert_array_equal(mapped(isa, dot, np.zeros_like(expected), *codes, *xs), expected)
            start = np.arange(lanes // 4, dtype=np.int32) - 9

            def dot_from(s: Value, *v: Value, most: int = largest) -> Value:
                return simd.dot_narrow(v[:8], v[8:], most, s)

            got = mapped(isa, dot_from, np.zeros_like(start), start, *codes, *xs)
            np.testing.assert_array_equal(got, expected + start)

    @pytest.mark.parametrize("lanes", [32, 64])
    def test_dot_of_signed_codes_is_exact(self, isa: Isa, lanes: int, rng: np.random.Generator) -> None:
        if isa is not Isa.AVX2:
            pytest.skip("an operation of AVX2")
        codes = rng.integers(-128, 128, lanes).astype(np.int8)
        x = rng.integers(-127, 128, lanes).astype(np.int8)
        codes[:8], x[:8] = -128, (127, 127, 127, 127, -127, -127, -127, -127)
        expected = (codes.astype(np.int32) * x).reshape(-1, 4).sum(1)
        got = mapped(isa, simd.dot_signed, np.zeros(lanes // 4, np.int32), codes, x)
        np.testing.assert_array_equal(got, expected)

    def test_an_opaque_value_is_the_same(self, isa: Isa) -> None:
        numbers = np.array([-(2**62), -1, 0, 7], np.int64)
        got = np.zeros_like(numbers)

        def body(source: Value, to: Value) -> None:
            for i in loop(0, 4):
                store(simd.opaque(load(I64, 1, source + i * 8)), to + i * 8)

        run(isa, 2, body)(numbers.ctypes.data, got.ctypes.data)
        np.testing.assert_array_equal(got, numbers)

    def test_every_half_becomes_its_float_and_comes_back(self, isa: Isa) -> None:
        bits = np.arange(2**16, dtype=np.uint16)
        floats, back = np.zeros(2**16, np.float32), np.zeros(2**16, np.uint16)

        def body(source: Value, middle: Value, to: Value) -> None:
            for i in loop(0, 2**16, 16):
                value = simd.f16_to_f32(load(U16, 16, source + i * 2))
                store(value, middle + i * 4)
                store(simd.f32_to_f16(value), to + i * 2)

        run(isa, 3, body)(bits.ctypes.data, floats.ctypes.data, back.ctypes.data)
        expected = bits.view(np.float16).astype(np.float32)
        nan = np.isnan(expected)
        np.testing.assert_array_equal(floats[~nan], expected[~nan])
        np.testing.assert_array_equal(back[~nan], bits[~nan])
        assert np.isnan(floats[nan]).all() and np.isnan(back[nan].view(np.float16)).all()

    def test_floats_round_to_halves_as_in_numpy(self, isa: Isa, rng: np.random.Generator) -> None:
        for scale in (1e-8, 1e-6, 1e-3, 1.0, 3e4):
            x = (rng.standard_normal(16) * scale).astype(np.float32)
            got = mapped(isa, simd.f32_to_f16, np.zeros(16, np.uint16), x)
            with np.errstate(over="ignore"):
                np.testing.assert_array_equal(got, x.astype(np.float16).view(np.uint16))

    def test_bfloats(self, isa: Isa, rng: np.random.Generator) -> None:
        x = rng.standard_normal(16).astype(np.float32)
        bits = (x.view(np.uint32) >> 16).astype(np.uint16)
        got = mapped(isa, simd.bf16_to_f32, np.zeros(16, np.float32), bits)
        np.testing.assert_array_equal(got, (bits.astype(np.uint32) << 16).view(np.float32))

    @pytest.mark.parametrize(("rows", "lanes"), [(16, 16), (8, 16), (8, 8), (2, 16)])
    def test_transposed(self, isa: Isa, rows: int, lanes: int) -> None:
        x, turned = np.arange(rows * lanes, dtype=np.float32).reshape(rows, lanes), np.zeros((lanes, rows), np.float32)

        def body(source: Value, to: Value) -> None:
            for i, column in enumerate(simd.transpose([load(F32, lanes, source + r * lanes * 4) for r in range(rows)])):
                store(column, to + i * rows * 4)

        run(isa, 2, body)(x.ctypes.data, turned.ctypes.data)
        np.testing.assert_array_equal(turned, x.T)

    def test_exp(self, isa: Isa) -> None:
        x = -np.concatenate([[0, 1e-8, 0.5, 86.9, 87.5, 1e30, np.inf], np.linspace(0, 80, 57)]).astype(np.float32)
        got = mapped(isa, simd.exp, np.zeros(64, np.float32), x)
        np.testing.assert_allclose(got, np.where(x < -87, 0, np.exp(x.astype(np.float64))), rtol=4e-7, atol=0)

    def test_nearest_rounds_halves_to_even(self, isa: Isa) -> None:
        x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, -127.4999, 126.5, 127.0], np.float32)
        np.testing.assert_array_equal(mapped(isa, simd.round_, np.zeros(8, np.int32), x), np.rint(x))

    def test_tables_of_sixteen(self, isa: Isa, rng: np.random.Generator) -> None:
        entries, codes = rng.integers(0, 256, 16), rng.integers(0, 16, 64).astype(np.uint8)
        for lanes in (32, 64):
            got = mapped(
                isa, lambda c: simd.lookup([int(e) for e in entries], c), np.zeros(lanes, np.uint8), codes[:lanes]
            )
            np.testing.assert_array_equal(got, entries[codes[:lanes]])

    def test_constant_tables(self, isa: Isa) -> None:
        """Values at computed places, of two tables in one function."""

        def body(to: Value, index: Value) -> Value:
            large, small = (
                simd.constant_table(simd.U64, [2**63 + 7 * i for i in range(100)]),
                simd.constant_table(U8, [3 * i for i in range(80)]),
            )
            assert simd.constant_table(U8, [3 * i for i in range(80)]).ir is not None  # the same table again
            store(simd.vector([load(simd.F64, 1, large + (index + i) * 8) for i in (0, 2)]), to)
            return load(U8, 1, small + index).to(I64)

        found = np.zeros(2, np.uint64)
        function = run(isa, 2, body)
        assert [function(found.ctypes.data, index) for index in (5, 79)] == [15, 237]
        assert found.tolist() == [2**63 + 7 * 79, 2**63 + 7 * 81]

    def test_sums_and_folds(self, isa: Isa, rng: np.random.Generator) -> None:
        x = rng.integers(-99, 99, (16, 16)).astype(np.float32)
        out = np.zeros(18, np.float32)

        def body(source: Value, to: Value) -> None:
            rows = [load(F32, 16, source + 64 * i) for i in range(16)]
            store(simd.row_sums(rows), to)
            store(simd.reduce_sum(rows[0]), to + 64)
            store(simd.reduce(rows[0], simd.max_), to + 68)

        run(isa, 2, body)(x.ctypes.data, out.ctypes.data)
        np.testing.assert_array_equal(out, [*x.sum(1), x[0].sum(), x[0].max()])

    def test_shapes_of_vectors(self, isa: Isa) -> None:
        x = np.arange(8, dtype=np.int32)
        np.testing.assert_array_equal(
            mapped(isa, lambda v: simd.concat(v, v + 8, v, v), np.zeros(32, np.int32), x), [*range(16), *x, *x]
        )
        np.testing.assert_array_equal(
            mapped(isa, lambda v: simd.zero_pad(v, 16), np.ones(16, np.int32), x), [*x, *[0] * 8]
        )
        np.testing.assert_array_equal(
            mapped(isa, lambda v: simd.zero_pad(v[3], 4), np.ones(4, np.int32), x), [3, 0, 0, 0]
        )
        np.testing.assert_array_equal(
            mapped(isa, lambda v: simd.vector([v[7], v[0]]).bitcast(U8), np.zeros(8, np.uint8), x), [7, *[0] * 7]
        )

    def test_signs_decide_shifts_and_widening(self, isa: Isa) -> None:
        x = np.array([-128, -1, 1, 127], np.int8)
        np.testing.assert_array_equal(mapped(isa, lambda v: v >> 1, np.zeros(4, np.int8), x), x >> 1)
        np.testing.assert_array_equal(mapped(isa, lambda v: v.to(I32), np.zeros(4, np.int32), x), x)
        unsigned = x.view(np.uint8)
        np.testing.assert_array_equal(mapped(isa, lambda v: v >> 1, np.zeros(4, np.uint8), unsigned), unsigned >> 1)
        np.testing.assert_array_equal(mapped(isa, lambda v: v.to(F32), np.zeros(4, np.float32), unsigned), unsigned)

    def test_loops_conditions_and_variables(self, isa: Isa) -> None:
        def body(count: Value) -> Value:
            """The sum of the odd numbers below count."""
            found = Var(const(0))
            for i in loop(0, count):
                with if_((i % 2).equals(1)):
                    found.value = found.value + i
            return found.value

        function = run(isa, 1, body)
        assert [function(n) for n in (0, 1, 2, 9)] == [0, 0, 1, 16]

    def test_atomics_and_variables(self, isa: Isa) -> None:
        def write(module: Module) -> None:
            module.define_global("memory", 2)

            def body(amount: Value) -> Value:
                return simd.atomic_add(module.global_address("memory"), amount)

            module.define("function", 1, body)
            module.define("swap", 1, lambda new: simd.atomic_swap(module.global_address("memory"), new))

        find = compile_kernels("test", isa, write, None)
        add, swap = callable_at(find("function"), 1), callable_at(find("swap"), 1)
        assert [add(5), add(7), swap(1)] == [0, 5, 12]
        assert ctypes.c_int64.from_address(find("memory")).value == 1

    def test_stack_memory_is_aligned_and_calls_reach_addresses(self, isa: Isa) -> None:
        def write(module: Module) -> None:
            module.define("twice", 1, lambda a: a * 2)
            module.define("function", 1, lambda a: simd.call_address(module.function_address("twice"), a))
            module.define("place", 0, lambda: simd.alloca(128) % 64)

        find = compile_kernels("test", isa, write, None)
        assert callable_at(find("function"), 1)(21) == 42
        assert callable_at(find("place"), 0)() == 0


class TestDiskCache:
    def test_the_next_process_compiles_nothing(self, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(module: Module) -> None:
            module.define("function", 0, lambda: const(7, I64))

        compile_kernels("seven", ISAS[0], write, tmp_path)
        monkeypatch.setattr("minillama.kernels.cpu.runtime.machine_code._compile", None)
        assert callable_at(compile_kernels("seven", ISAS[0], write, tmp_path)("function"), 0)() == 7
        with pytest.raises(TypeError):  # another name, another kernel
            compile_kernels("eight", ISAS[0], write, tmp_path)

    @pytest.mark.parametrize("damage", [b"", b"short", b"x" * 500])
    def test_a_damaged_file_is_compiled_again(self, tmp_path, damage: bytes) -> None:
        def write(module: Module) -> None:
            module.define("function", 0, lambda: const(7, I64))

        compile_kernels("seven", ISAS[0], write, tmp_path)
        (file,) = tmp_path.iterdir()
        content = file.read_bytes()
        file.write_bytes(damage)
        assert callable_at(compile_kernels("seven", ISAS[0], write, tmp_path)("function"), 0)() == 7
        assert file.read_bytes() == content

    def test_an_unwritable_folder_is_ignored(self, tmp_path) -> None:
        occupied = tmp_path / "file"
        occupied.touch()

        def write(module: Module) -> None:
            module.define("function", 0, lambda: const(7, I64))

        assert callable_at(compile_kernels("seven", ISAS[0], write, occupied / "below")("function"), 0)() == 7


@pytest.mark.skipif(Isa.AMX not in ISAS, reason="this processor has no tiles")
class TestTiles:
    def test_rounding_to_bfloat_is_to_the_nearest(self, rng: np.random.Generator) -> None:
        x = rng.standard_normal(32).astype(np.float32)
        x[:2] = np.array([0x3F808000, 0x3F818000], np.uint32).view(np.float32)  # halves: to even
        got = mapped(
            Isa.AMX, lambda v: simd.f32_to_bf16(v.permute(range(16)), v.permute(range(16, 32))),
            np.zeros(32, np.uint16), x,
        )  # fmt: skip
        bits = x.view(np.uint32)
        np.testing.assert_array_equal(got, (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)

    def test_products_are_added_up(self) -> None:
        """Integers that bfloat16 represents exactly: left [16, 32], right [32, 16] in pairs."""
        rng = np.random.default_rng(0)
        left, right = rng.integers(-9, 10, (16, 32)), rng.integers(-9, 10, (32, 16))
        pairs = right.reshape(16, 2, 16).swapaxes(1, 2)
        a, b = ((m.astype(np.float32, "C").view(np.uint32) >> 16).astype(np.uint16) for m in (left, pairs))
        row_sums = np.zeros((16, 20), np.float32)

        def body(a: Value, b: Value, to: Value) -> None:
            with simd.tile_config():
                simd.zero_tile(3)
                simd.load_tile(4, a, simd.TILE_BYTES)
                simd.load_tile(7, b, simd.TILE_BYTES)
                for _ in range(2):
                    simd.tile_dot_bf16(3, 4, 7)
                simd.store_tile(3, to, 80)

        run(Isa.AMX, 3, body)(a.ctypes.data, b.ctypes.data, row_sums.ctypes.data)
        np.testing.assert_array_equal(row_sums[:, :16], 2 * left @ right)
        assert not row_sums[:, 16:].any()
