"""The processor's kernels against dequantised float32, for every type, every way of multiplying, every instruction set.

The activations are rounded to int8, x = d c + e with |e| <= d/2 and d = max |x| / 127 over 32 neighbours, and nothing
else is approximate. So for a row w of weights

    |y - w·x| <= sum |w_i| d_i / 2                 at worst, and
    (y - w·x)^2 = sum w_i^2 d_i^2 / 12             on average, for e is spread evenly over the step.

The first is asserted for every number, the second, with a quarter more for chance, for the mean. Where x already is a
whole multiple of d nothing is left to explain but the rounding of float32 sums.

Tiles (AMX) round many tokens' activations and the weights to bfloat16 instead, each by 2^-9 of itself at most: together
|x_i w_i| / 256, which is less than the first bound, where d_i / 2 >= |x_i| / 254. Floats of 16 bits and their
activations are two bfloat16 each, of which all products but that of the low parts are added up:

    |y - w·x| <= 2^-17 sum |w_i x_i|
"""

import subprocess
import sys
from collections.abc import Iterable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from test_simd import ISAS
from test_weight import random_bytes

from minillama import env
from minillama.errors import OptionError
from minillama.gguf import Tensor
from minillama.kernels import Files, Portable, cpu_available, load_weight, matmuls, portable_weight
from minillama.kernels.cpu.formats import FORMATS
from minillama.kernels.cpu.mapped_weight import MappedWeight, map_weight, multiply
from minillama.kernels.cpu.matmul import activations_amx, gemm_amx
from minillama.kernels.cpu.matmul.activations import PANEL_TOKENS, PanelLayout, RowLayout
from minillama.kernels.cpu.matmul.gemm import MAX_UNPACKED_ROWS
from minillama.kernels.cpu.matmul.matmul_args import MatmulArgs
from minillama.kernels.cpu.runtime import registry
from minillama.kernels.cpu.runtime.machine_code import callable_at
from minillama.kernels.cpu.runtime.registry import GEMV_TOKENS, TYPES, Role, activation_terms
from minillama.kernels.cpu.simd import Isa

DEVICE = jax.devices("cpu")[0]
FLOAT_ROUNDING = 3e-6  # of a sum of some thousand products, in sizes of the terms
QUICK = (Type.Q4_0, Type.Q6_K, Type.F16)  # the types that are tried at once also with what is slow:
# the generic instruction set, whose kernels take seconds to compile, and AVX-512 beside AMX, which shares most of it
SLOW = {Isa.GENERIC} | ({Isa.AVX512} if ISAS[0] is Isa.AMX else set())


def cases(kinds: Iterable[Type]) -> pytest.MarkDecorator:
    """Types of tensors with instruction sets; what takes long to compile is slow."""
    return pytest.mark.parametrize(
        ("kind", "isa"),
        [
            pytest.param(
                kind, isa, id=f"{kind.name}-{isa.value}",
                marks=pytest.mark.slow if isa in SLOW and kind not in QUICK else (),
            )
            for isa in ISAS
            for kind in kinds
        ],
    )  # fmt: skip


@cache
def kernels(kind: Type, isa: Isa):
    return registry.type_kernels(kind, isa, env.kernel_cache_dir())


def product(kind: Type, isa: Isa, raw: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Call a type's kernels as the handler does: prepare the activations, then compute the rows, some at a time."""
    (tokens, width), rows = x.shape, len(raw)
    if tokens in GEMV_TOKENS:
        prepare, kernel, units, step = Role.PREPARE_GEMV, Role[f"GEMV_{tokens}"], tokens, 7
        size = tokens * RowLayout(width, FORMATS[kind].group).size if kind in FORMATS else 0
    elif (parts := activation_terms(kind, isa)) is not None:
        prepare, kernel, units, step = (
            Role.PREPARE_GEMM,
            Role.GEMM,
            -(-tokens // activations_amx.PANEL_TOKENS),
            gemm_amx.MICROTILE_ROWS,
        )
        size = units * activations_amx.TileLayout(width, parts).size
    else:
        prepare, kernel, units, step = Role.PREPARE_GEMM, Role.GEMM, -(-tokens // PANEL_TOKENS), MAX_UNPACKED_ROWS
        group = FORMATS[kind].group if kind in FORMATS else None
        size = units * (PanelLayout(width, group).size if group else 4 * width * PANEL_TOKENS)
    scratch, y = np.zeros(size + 64, np.uint8), np.full((tokens, rows + 2), np.nan, np.float32)
    y_rows = np.ascontiguousarray(y[:, :rows])
    source = x if size == 0 else scratch
    args = MatmulArgs.pack(
        weights=raw.ctypes.data, row_bytes=raw.shape[1], width=width, rows=rows, tokens=tokens,
        source=x.ctypes.data, x=source.ctypes.data, y=y_rows.ctypes.data,
    )  # fmt: skip
    find = kernels(kind, isa)
    callable_at(find(prepare.name), 3)(args.ctypes.data, 0, units)
    for first in range(0, rows, step):
        callable_at(find(kernel.name), 3)(args.ctypes.data, first, min(rows, first + step))
    return y_rows


def steps(x: np.ndarray) -> np.ndarray:
    """d of every number: the step that it is rounded to."""
    blocks = np.abs(x.astype(np.float64)).reshape(len(x), -1, 32).max(-1) / 127
    return np.repeat(blocks, 32, axis=1)


def tile_rounding(kind: Type, isa: Isa, tokens: int) -> float:
    """What tiles may lose of every product."""
    if tokens in GEMV_TOKENS or (parts := activation_terms(kind, isa)) is None:
        return 0.0
    return 2.0**-8 if parts == 1 else 2.0**-17


def check(kind: Type, raw: np.ndarray, x: np.ndarray, y: np.ndarray, isa: Isa = ISAS[0]) -> None:
    """Hold a product to the bounds above."""
    w = np.asarray(dequantize(raw, kind), np.float64).reshape(len(raw), -1)
    error = np.abs(y - x.astype(np.float64) @ w.T)
    rounding = FLOAT_ROUNDING * (np.abs(x.astype(np.float64)) @ np.abs(w).T)
    if kind not in FORMATS:
        lost = tile_rounding(kind, isa, len(x)) / FLOAT_ROUNDING * rounding
        assert (error <= rounding + lost).all()
        return
    assert (error <= steps(x) / 2 @ np.abs(w).T + rounding).all()
    if error.size >= 200:
        expected = np.sqrt((steps(x) ** 2 / 12 @ (w**2).T).mean())
        assert np.sqrt((error**2).mean()) <= 1.25 * expected + rounding.mean()


@cases(TYPES)
class TestEveryKernel:
    @pytest.mark.parametrize("tokens", [1, 2, 4, 16, 24, 39])
    def test_errors_are_those_of_the_activations(self, kind: Type, isa: Isa, tokens: int) -> None:
        raw = random_bytes(kind, 71, 768)
        x = np.random.default_rng(tokens).standard_normal((tokens, 768)).astype(np.float32)
        check(kind, raw, x, product(kind, isa, raw, x), isa)

    @pytest.mark.parametrize("tokens", [1, 4, 21])
    def test_nothing_else_is_approximate(self, kind: Type, isa: Isa, tokens: int) -> None:
        """Activations that are whole multiples of their step."""
        rng = np.random.default_rng(1)
        raw = random_bytes(kind, 9, 512)
        codes = rng.integers(-127, 128, (tokens, 16, 32))
        codes[..., 5] = 127
        x = (codes * 2.0 ** rng.integers(-9, 3, (tokens, 16, 1))).astype(np.float32).reshape(tokens, 512)
        w = np.asarray(dequantize(raw, kind), np.float64).reshape(9, -1)
        scale = np.abs(x.astype(np.float64)) @ np.abs(w).T
        # shifted codes are larger than their weights, and so is the rounding of their sums
        allowed = 4 * FLOAT_ROUNDING + tile_rounding(kind, isa, tokens)
        assert (np.abs(product(kind, isa, raw, x) - x @ w.T) <= allowed * scale).all()

    def test_rows_by_number(self, kind: Type, isa: Isa) -> None:
        raw = random_bytes(kind, 8, 512)
        ids, out = np.array([7, 0, 7], np.int32), np.zeros((3, 512), np.float32)
        args = MatmulArgs.pack(
            weights=raw.ctypes.data, row_bytes=raw.shape[1], width=512, rows=8, tokens=3,
            source=ids.ctypes.data, y=out.ctypes.data,
        )  # fmt: skip
        callable_at(kernels(kind, isa)(Role.EMBED.name), 3)(args.ctypes.data, 0, 3)
        np.testing.assert_allclose(out, dequantize(raw, kind).reshape(8, -1)[ids], rtol=3e-7, atol=3e-8)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)
class TestQuantisedActivations:
    """Bit for bit as ggml's Q8_0 prescribes, but with a float32 scale."""

    WIDTH = 96

    @pytest.fixture
    def x(self) -> np.ndarray:
        """33 tokens: one panel and one token more. Two blocks are special: zeros, and halves between two codes."""
        x = np.random.default_rng(5).standard_normal((33, self.WIDTH)).astype(np.float32)
        x[1, :32] = 0
        x[2, :32] = np.arange(32) - 15.5
        x[2, 0] = 127
        return x

    def expected(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Codes [T, K] and scales [T, K/32]."""
        blocks = x.reshape(len(x), -1, 32)
        top = np.abs(blocks).max(-1)
        inverse = np.divide(np.float32(127), top, out=np.zeros_like(top), where=top > 0)
        return np.rint(blocks * inverse[..., None]).reshape(x.shape), top * np.float32(1 / 127)

    def prepared(self, isa: Isa, role: Role, x: np.ndarray, units: int) -> np.ndarray:
        """The scratch memory."""
        scratch = np.zeros(1 << 16, np.uint8)
        args = MatmulArgs.pack(width=self.WIDTH, tokens=len(x), source=x.ctypes.data, x=scratch.ctypes.data)
        callable_at(kernels(Type.Q8_0, isa)(role.name), 3)(args.ctypes.data, 0, units)
        return scratch

    def test_for_decoding(self, isa: Isa, x: np.ndarray) -> None:
        size = RowLayout(self.WIDTH, 32).size
        rows = self.prepared(isa, Role.PREPARE_GEMV, x, len(x))[: size * len(x)].reshape(len(x), size)
        codes, scales = self.expected(x)
        np.testing.assert_array_equal(rows[:, : self.WIDTH].view(np.int8), codes)
        floats = np.ascontiguousarray(rows[:, self.WIDTH :]).view(np.float32).reshape(len(x), 2, -1)
        np.testing.assert_array_equal(floats[:, 0], scales)
        sums = codes.reshape(*scales.shape, 32).sum(-1)
        np.testing.assert_array_equal(floats[:, 1], scales * sums.astype(np.float32))

    def test_for_a_prompt(self, isa: Isa, x: np.ndarray) -> None:
        if activation_terms(Type.Q8_0, isa) is not None:
            pytest.skip("tiles take bfloat16")
        scratch = self.prepared(isa, Role.PREPARE_GEMM, x, 2)
        codes, scales = self.expected(x)
        layout = PanelLayout(self.WIDTH, 32)
        panel = scratch[: layout.size]
        found = (
            panel[: self.WIDTH * PANEL_TOKENS]
            .view(np.int8)
            .reshape(-1, PANEL_TOKENS, 4)
            .swapaxes(0, 1)
            .reshape(PANEL_TOKENS, -1)
        )
        np.testing.assert_array_equal(found, codes[:PANEL_TOKENS])
        words = panel[self.WIDTH * PANEL_TOKENS :].reshape(3, self.WIDTH // 32, PANEL_TOKENS, 4)
        sums = codes.reshape(*scales.shape, 32).sum(-1)[:PANEL_TOKENS]
        np.testing.assert_array_equal(words[0].copy().view(np.float32)[..., 0].T, scales[:PANEL_TOKENS])
        scaled = scales[:PANEL_TOKENS] * sums.astype(np.float32)
        np.testing.assert_array_equal(words[1].copy().view(np.float32)[..., 0].T, scaled)
        np.testing.assert_array_equal(words[2].copy().view(np.int32)[..., 0].T, -128 * sums)


@cases([Type.Q4_0, Type.Q8_0, Type.Q4_K, Type.Q6_K, Type.F16])
@given(data=st.data())
def test_all_shapes(kind: Type, isa: Isa, data: st.DataObject) -> None:
    """Rows that divide by no tile, from the shortest rows to longer ones than a buffer of unpacked weights."""
    block = 256 if kind in (Type.Q4_K, Type.Q6_K) else 32
    width = block * data.draw(st.one_of(st.integers(1, 12), st.sampled_from([2048 // block + 1, 4096 // block])))
    rows = data.draw(st.integers(1, 150))
    tokens = data.draw(st.sampled_from([1, 2, 4, 5, 9, 16, 17, 24, 25, 32, 40, 45, 64, 89]))
    raw = random_bytes(kind, rows, width, seed=rows)
    x = np.random.default_rng(width).standard_normal((tokens, width)).astype(np.float32)
    check(kind, raw, x, product(kind, isa, raw, x), isa)


@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q6_K, Type.F16], ids=lambda kind: kind.name)
def test_long_rows(kind: Type) -> None:
    raw = random_bytes(kind, 5, 16384)
    for tokens in (1, 20):
        x = np.random.default_rng(0).standard_normal((tokens, 16384)).astype(np.float32)
        check(kind, raw, x, product(kind, ISAS[0], raw, x))


@cases(FORMATS)
def test_any_bytes(kind: Type, isa: Isa) -> None:
    """Not only sane blocks: where the weights of a row are finite, its product is right whatever its neighbours are."""
    _, size = np.array([1]), random_bytes(kind, 1, 512).shape[1]
    raw = np.random.default_rng(3).integers(0, 256, (64, size)).astype(np.uint8)
    with np.errstate(all="ignore"):
        w = np.asarray(dequantize(raw, kind), np.float64)
        sane = np.isfinite(w).all(1) & (np.abs(w).max(1) < 1e30)
    assert sane.any()
    for tokens in (1, 16):
        x = np.random.default_rng(4).standard_normal((tokens, 512)).astype(np.float32)
        y = product(kind, isa, raw, x)
        check(kind, raw[sane], x, y[:, sane], isa)


@pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)
def test_zeros_give_zeros(isa: Isa) -> None:
    raw = random_bytes(Type.Q4_K, 3, 256)
    for tokens in (1, 5):
        assert not product(Type.Q4_K, isa, raw, np.zeros((tokens, 256), np.float32)).any()


def in_file(raw: np.ndarray, kind: Type, shape: tuple[int, ...], offset: int = 96) -> MappedWeight:
    """A tensor at an odd place of a page-aligned file."""
    room = np.zeros(raw.nbytes + offset + 8192, np.uint8)
    memory = room[-room.ctypes.data % 4096 :]
    memory[offset : offset + raw.nbytes] = raw.reshape(-1)
    return map_weight(jax.device_put(memory, DEVICE), offset, kind, shape)


class TestInsideJit:
    """What JAX calls."""

    def test_weights_are_not_copied(self) -> None:
        raw = random_bytes(Type.Q4_0, 40, 64)
        memory = np.zeros(1 << 16, np.uint8)
        memory = memory[-memory.ctypes.data % 4096 :]
        weight = map_weight(jax.device_put(memory, DEVICE), 4128, Type.Q4_0, (40, 64))
        assert weight.memory.unsafe_buffer_pointer() + weight.offset == memory.ctypes.data + 4128
        memory[4128 : 4128 + raw.nbytes] = raw.reshape(-1)  # seen through the weight, for it is the same memory
        got = jax.jit(weight.rows)(jnp.arange(40))
        np.testing.assert_array_equal(np.asarray(got), dequantize(raw, Type.Q4_0))

    def test_weights_beyond_two_gigabytes(self) -> None:
        raw, offset = random_bytes(Type.Q8_0, 16, 64), 2**31 + 96
        memory = np.zeros(offset + raw.nbytes + 4096, np.uint8)  # what nobody touches takes no memory
        memory = memory[-memory.ctypes.data % 4096 :]
        memory[offset : offset + raw.nbytes] = raw.reshape(-1)
        weight = map_weight(jax.device_put(memory, DEVICE), offset, Type.Q8_0, (16, 64))
        np.testing.assert_array_equal(np.asarray(weight.rows(jnp.arange(16))), dequantize(raw, Type.Q8_0))
        x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
        check(Type.Q8_0, raw, x, np.asarray(weight.product(jnp.asarray(x))))

    @pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, 7, 16, 17, 70])
    def test_several_matrices_in_one_call(self, tokens: int) -> None:
        kinds = [(Type.Q4_K, 512), (Type.Q6_K, 130), (Type.F16, 7), (Type.Q8_0, 64), (Type.F32, 9), (Type.Q5_0, 33)]
        raws = [random_bytes(kind, rows, 512) for kind, rows in kinds]
        weights = [in_file(raw, kind, (rows, 512)) for raw, (kind, rows) in zip(raws, kinds, strict=True)]
        x = np.random.default_rng(0).standard_normal((tokens, 512)).astype(np.float32)
        found = jax.jit(lambda x, ws: multiply(x, ws))(jnp.asarray(x), weights)
        for y, raw, (kind, _) in zip(found, raws, kinds, strict=True):
            check(kind, raw, x, np.asarray(y))

    @pytest.mark.parametrize("tokens", [5, 16, 40, 96])
    def test_tokens_that_do_not_count_cost_nothing_and_come_out_as_zeros(self, tokens: int) -> None:
        kinds = [(Type.Q4_K, 512), (Type.Q8_0, 130), (Type.F16, 7), (Type.F32, 9)]
        weights = [in_file(random_bytes(kind, rows, 512), kind, (rows, 512)) for kind, rows in kinds]
        x = np.random.default_rng(0).standard_normal((tokens, 512)).astype(np.float32)
        run = jax.jit(lambda x, ws, valid: multiply(x, ws, valid))
        whole = [np.asarray(y) for y in run(jnp.asarray(x), weights, jnp.int32(tokens))]
        for valid in {1, 8, 9, 16, 17, 32, 33, tokens - 1, tokens} & set(range(1, tokens + 1)):
            untold = x.copy()
            untold[valid:] = np.nan
            for y, expected in zip(run(jnp.asarray(untold), weights, jnp.int32(valid)), whole, strict=True):
                np.testing.assert_array_equal(np.asarray(y)[:valid], expected[:valid])
                assert tokens <= max(GEMV_TOKENS) or not np.asarray(y)[valid:].any()

    def test_together_is_as_alone_to_the_bit(self) -> None:
        weights = [in_file(random_bytes(Type.Q4_0, rows, 2048), Type.Q4_0, (rows, 2048)) for rows in (300, 2000)]
        x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2048)).astype(np.float32))
        for y, weight in zip(matmuls(x, weights), weights, strict=True):
            np.testing.assert_array_equal(np.asarray(y), np.asarray(matmuls(x, [weight])[0]))

    def test_an_expert_is_its_own_matrix(self) -> None:
        raw = random_bytes(Type.Q4_K, 48, 512)
        stack = in_file(raw, Type.Q4_K, (3, 16, 512))
        x = np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32)
        choose = jax.jit(lambda x, stack, i: stack.expert(i).product(x))
        assert stack.expert(jnp.int32(0)).shape == (16, 512)
        for i in range(3):
            got = np.asarray(choose(jnp.asarray(x), stack, jnp.int32(i)))
            check(Type.Q4_K, raw[16 * i : 16 * i + 16], x, got)

    def test_beside_weights_of_another_kind_each_goes_its_own_way(self) -> None:
        raw = random_bytes(Type.Q4_0, 20, 64)
        mixed = [in_file(raw, Type.Q4_0, (20, 64)), portable_weight(raw, Type.Q4_0, DEVICE)]
        x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
        for y in matmuls(jnp.asarray(x), mixed):
            check(Type.Q4_0, raw, x, np.asarray(y))

    def test_numbers_of_rows_beyond_the_matrix_stay_inside(self) -> None:
        weight = in_file(random_bytes(Type.Q8_0, 4, 32), Type.Q8_0, (4, 32))
        got = np.asarray(weight.rows(jnp.array([-5, 99])))
        np.testing.assert_array_equal(got, np.asarray(weight.rows(jnp.array([0, 3]))))

    def test_programs_in_several_threads(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        weight = in_file(random_bytes(Type.Q4_0, 4000, 512), Type.Q4_0, (4000, 512))
        x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32))
        run = jax.jit(lambda x, w: matmuls(x, [w])[0])
        expected = np.asarray(run(x, weight))
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda _: np.asarray(run(x, weight)), range(200)):
                np.testing.assert_array_equal(got, expected)


class TestChoice:
    def test_the_environment_chooses(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for word in ("avx2", "generic"):
            monkeypatch.setenv("MINILLAMA_CPU_KERNELS", word)
            registry.chosen_isa.cache_clear()
            assert registry.chosen_isa().value == word
        registry.chosen_isa.cache_clear()

    def test_what_the_processor_lacks_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "detect_isa", lambda: Isa.GENERIC)
        monkeypatch.setenv("MINILLAMA_CPU_KERNELS", "avx2")
        registry.chosen_isa.cache_clear()
        with pytest.raises(OptionError, match="MINILLAMA_CPU_KERNELS is avx2, which this processor lacks; it has gen"):
            registry.chosen_isa()
        registry.chosen_isa.cache_clear()

    def test_without_llvm_xla_multiplies_and_says_so(self, monkeypatch, caplog: pytest.LogCaptureFixture) -> None:
        cpu_available.cpu_kernels_error.cache_clear()
        monkeypatch.setitem(sys.modules, "minillama.kernels.cpu.runtime.registry", None)
        assert (
            "ImportError" in cpu_available.cpu_kernels_error()
            or "ModuleNotFoundError" in cpu_available.cpu_kernels_error()
        )
        cpu_available.cpu_kernels_error()
        assert len([r for r in caplog.records if "XLA multiplies" in r.message]) == 1
        cpu_available.cpu_kernels_error.cache_clear()

    def test_a_type_whose_kernels_cannot_be_built_is_multiplied_by_xla(self, monkeypatch, tmp_path) -> None:
        def fail(kind: Type) -> None:
            raise RuntimeError("LLVM ERROR: no such instruction")

        cpu_available.type_kernels_error.cache_clear()
        monkeypatch.setattr(registry, "load_kernels", fail)
        raw = random_bytes(Type.Q4_0, 4, 64)
        (tmp_path / "model.gguf").write_bytes(raw.tobytes())
        tensor = Tensor("w", (4, 64), Type.Q4_0, raw, 0, tmp_path / "model.gguf")
        assert isinstance(load_weight(tensor, Files({tensor.file: raw.reshape(-1)}), DEVICE), Portable)
        cpu_available.type_kernels_error.cache_clear()

    def test_kernel_numbers_differ(self) -> None:
        numbers = [registry.kernel_number(kind, role) for kind in TYPES for role in Role]
        assert len(set(numbers)) == len(numbers)
        assert max(numbers) < registry.ffi_handlers.KERNEL_COUNT


@pytest.mark.parametrize("word", [*(isa.value for isa in ISAS[1:]), "off"])
def test_a_whole_model_on_other_kernels(word: str, builtin_model) -> None:
    """In a process of its own, for the choice is made once."""
    code = (
        "import minillama as ml; llm = ml.load(progress=False);"
        "print(llm.generate('Once upon a time', n=24, temp=0).text)"
    )
    environment = {**__import__("os").environ, "MINILLAMA_CPU_KERNELS": word}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    import minillama as ml

    assert result.stdout == ml.load(progress=False).generate("Once upon a time", n=24, temp=0).text + "\n"
