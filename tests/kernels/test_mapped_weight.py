"""Weights in a mapped file, multiplied by the CPU kernels through JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from test_cpu_matmul import check
from test_weight import EXACT, random_bytes
from weights_in_memory import in_file

from minillama.kernels import matmuls, portable_weight
from minillama.kernels.cpu.mapped_weight import map_weight, multiply
from minillama.kernels.cpu.matmul_strategies import DECODE_TOKENS, SHORT_PROMPT
from minillama.kernels.cpu.runtime.kernel_roles import Role
from minillama.kernels.grouped_products import RowGroups

DEVICE = jax.devices("cpu")[0]


class TestInsideJit:
    """Products and look-ups through JAX."""

    def test_weights_are_not_copied(self) -> None:
        raw = random_bytes(Type.Q4_0, 40, 64)
        memory = np.zeros(1 << 16, np.uint8)
        memory = memory[-memory.ctypes.data % 4096 :]
        weight = map_weight(jax.device_put(memory, DEVICE), 4128, Type.Q4_0, (40, 64))
        assert weight.memory.unsafe_buffer_pointer() + weight.offset == memory.ctypes.data + 4128
        memory[4128 : 4128 + raw.nbytes] = raw.reshape(-1)  # visible through the weight: the same memory
        got = jax.jit(weight.rows)(jnp.arange(40))
        np.testing.assert_array_equal(np.asarray(got), dequantize(raw, Type.Q4_0))

    def test_weights_beyond_two_gigabytes(self) -> None:
        raw, offset = random_bytes(Type.Q8_0, 16, 64), 2**31 + 96
        memory = np.zeros(offset + raw.nbytes + 4096, np.uint8)  # untouched pages take no memory
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

    @pytest.mark.parametrize("tokens", [3, DECODE_TOKENS])
    def test_rows_of_a_batch_have_the_bits_of_lone_rows(self, tokens: int) -> None:
        kinds = [(Type.Q4_K, 64), (Type.F16, 7), (Type.Q8_0, 33)]
        weights = [in_file(random_bytes(kind, rows, 512), kind, (rows, 512)) for kind, rows in kinds]
        x = jnp.asarray(np.random.default_rng(0).standard_normal((tokens, 512)).astype(np.float32))
        run = jax.jit(lambda x, ws: multiply(x, ws))
        lone = [run(row[None], weights) for row in x]
        for i, y in enumerate(run(x, weights)):
            np.testing.assert_array_equal(np.asarray(y), np.concatenate([products[i] for products in lone]))

    @pytest.mark.parametrize("kind", [Type.Q4_0, Type.F16])
    def test_rows_of_a_group_have_the_bits_of_lone_rows(self, kind: Type) -> None:
        """Groups of one row, some, none and as many as a batch has."""
        stack = in_file(random_bytes(kind, 4 * 24, 512), kind, (4, 24, 512))
        ends = np.cumsum([1, 5, 0, DECODE_TOKENS])
        groups = RowGroups(*(jnp.asarray(a, jnp.int32) for a in (np.arange(4), ends - [1, 5, 0, DECODE_TOKENS], ends)))
        x = jnp.asarray(np.random.default_rng(0).standard_normal((ends[-1], 512)).astype(np.float32))
        (y,) = jax.jit(lambda x, stack: stack.grouped_products(x, [], groups))(x, stack)
        choose = jax.jit(lambda x, stack, i: stack.expert(i).product(x))
        for row, expert in enumerate(np.searchsorted(ends, np.arange(ends[-1]), side="right")):
            alone = choose(x[row : row + 1], stack, jnp.int32(expert))
            np.testing.assert_array_equal(np.asarray(y[row]), np.asarray(alone[0]))

    @pytest.mark.parametrize("tokens", [5, 16, 40, 96])
    def test_invalid_tokens_are_not_multiplied_and_give_zeros(self, tokens: int) -> None:
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
                assert tokens <= SHORT_PROMPT or not np.asarray(y)[valid:].any()

    def test_one_call_equals_single_calls_bit_for_bit(self) -> None:
        weights = [in_file(random_bytes(Type.Q4_0, rows, 2048), Type.Q4_0, (rows, 2048)) for rows in (300, 2000)]
        x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 2048)).astype(np.float32))
        for y, weight in zip(matmuls(x, weights), weights, strict=True):
            np.testing.assert_array_equal(np.asarray(y), np.asarray(matmuls(x, [weight])[0]))

    @pytest.mark.parametrize("kind", [Type.Q4_K, *EXACT], ids=lambda kind: kind.name)
    def test_an_expert_is_its_own_matrix(self, kind: Type) -> None:
        raw = random_bytes(kind, 48, 512)
        stack = in_file(raw, kind, (3, 16, 512))
        x = np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32)
        choose = jax.jit(lambda x, stack, i: stack.expert(i).product(x))
        assert stack.expert(jnp.int32(0)).shape == (16, 512)
        for i in range(3):
            got = np.asarray(choose(jnp.asarray(x), stack, jnp.int32(i)))
            check(kind, raw[16 * i : 16 * i + 16], x, got)

    @pytest.mark.parametrize("tokens", [1, 3, 8, 9, 40])
    @pytest.mark.parametrize("kind", [Type.Q8_0, Type.Q4_K, Type.F16])
    def test_matrices_of_a_stack_in_one_call_equal_single_calls_bit_for_bit(self, kind: Type, tokens: int) -> None:
        """Of matrices from any number on; padded tokens give zeros. (Few valid tokens of many would be a GEMV here.)"""
        stack = in_file(random_bytes(kind, 5 * 40, 512), kind, (5, 40, 512))
        x = jnp.asarray(np.random.default_rng(0).standard_normal((3, tokens, 512)).astype(np.float32))
        valid = jnp.int32(max(1, tokens if tokens == 9 else tokens - 2))
        y = np.asarray(jax.jit(lambda x, stack, first: stack.batched_product(x, first, valid))(x, stack, jnp.int32(1)))
        single = jax.jit(lambda x, stack, i: multiply(x, [stack.expert(i)], valid)[0])
        for i in range(3):
            np.testing.assert_array_equal(y[i], np.asarray(single(x[i], stack, jnp.int32(1 + i))))

    def test_more_matrices_than_a_call_takes(self) -> None:
        raw = random_bytes(Type.Q8_0, 300 * 2, 32)
        x = np.random.default_rng(0).standard_normal((300, 1, 32)).astype(np.float32)
        stack = in_file(raw, Type.Q8_0, (300, 2, 32))
        y = np.asarray(jax.jit(lambda x, stack: stack.batched_product(x))(jnp.asarray(x), stack))
        for i in (0, 255, 256, 299):
            check(Type.Q8_0, raw[2 * i : 2 * i + 2], x[i], y[i])

    @pytest.mark.parametrize("tokens", [1, 40])
    def test_numbers_of_a_stack_are_limited_by_the_handler(self, tokens: int) -> None:
        stack = in_file(random_bytes(Type.Q8_0, 48, 512), Type.Q8_0, (3, 16, 512))
        x = jnp.asarray(np.random.default_rng(0).standard_normal((1, tokens, 512)).astype(np.float32))
        run = jax.jit(lambda x, stack, first, valid: stack.batched_product(x, first, valid))
        for wrong, nearest in ((-1, 0), (-(2**31), 0), (3, 2), (2**31 - 1, 2)):
            got, expected = (np.asarray(run(x, stack, jnp.int32(i), jnp.int32(tokens))) for i in (wrong, nearest))
            np.testing.assert_array_equal(got, expected)
        for wrong, nearest in ((-5, 0), (2**31 - 1, tokens)):
            got, expected = (np.asarray(run(x, stack, jnp.int32(0), jnp.int32(n))) for n in (wrong, nearest))
            np.testing.assert_array_equal(got, expected)

    def test_mapped_and_portable_weights_in_one_call(self) -> None:
        raw = random_bytes(Type.Q4_0, 20, 64)
        mixed = [in_file(raw, Type.Q4_0, (20, 64)), portable_weight(raw, Type.Q4_0, DEVICE)]
        x = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
        for y in matmuls(jnp.asarray(x), mixed):
            check(Type.Q4_0, raw, x, np.asarray(y))

    def test_row_numbers_are_clipped_to_the_matrix(self) -> None:
        weight = in_file(random_bytes(Type.Q8_0, 4, 32), Type.Q8_0, (4, 32))
        got = np.asarray(weight.rows(jnp.array([-5, 99])))
        np.testing.assert_array_equal(got, np.asarray(weight.rows(jnp.array([0, 3]))))

    @pytest.mark.parametrize("kind", [Type.Q8_0, Type.F16])
    def test_row_numbers_are_limited_by_the_handler_too(self, kind: Type) -> None:
        weight = in_file(random_bytes(kind, 4, 32), kind, (4, 32))
        table = jnp.asarray(np.array([weight.plan(Role.EMBED, 4).row()], np.int32))
        look_up = jax.ffi.ffi_call("minillama_rows", jax.ShapeDtypeStruct((4, 32), jnp.float32))
        got = np.asarray(look_up(table, jnp.array([-1, 4, -(2**31), 2**31 - 1], jnp.int32), weight.memory))
        np.testing.assert_array_equal(got, np.asarray(weight.rows(jnp.array([0, 3, 0, 3]))))

    @pytest.mark.parametrize("tokens", [16, 40])
    def test_a_number_of_valid_tokens_outside_of_the_shape(self, tokens: int) -> None:
        """A negative one would store zeros before the result."""
        weights = [in_file(random_bytes(kind, 64, 512), kind, (64, 512)) for kind in (Type.Q4_K, Type.F16)]
        x = jnp.asarray(np.random.default_rng(0).standard_normal((tokens, 512)).astype(np.float32))
        run = jax.jit(lambda x, ws, valid: multiply(x, ws, valid))
        for wrong, nearest in ((-1, 0), (-100_000_000, 0), (-(2**31), 0), (tokens + 1, tokens), (2**31 - 1, tokens)):
            for y, expected in zip(*(run(x, weights, jnp.int32(n)) for n in (wrong, nearest)), strict=True):
                np.testing.assert_array_equal(np.asarray(y), np.asarray(expected))

    @pytest.mark.parametrize("tokens", [1, 40])
    def test_expert_numbers_are_limited_by_the_handler(self, tokens: int) -> None:
        stack = in_file(random_bytes(Type.Q8_0, 48, 512), Type.Q8_0, (3, 16, 512))
        x = jnp.asarray(np.random.default_rng(0).standard_normal((tokens, 512)).astype(np.float32))
        choose = jax.jit(lambda x, stack, i: stack.expert(i).product(x))
        for wrong, nearest in ((-1, 0), (-(2**31), 0), (3, 2), (2**31 - 1, 2)):
            got, expected = (np.asarray(choose(x, stack, jnp.int32(i))) for i in (wrong, nearest))
            np.testing.assert_array_equal(got, expected)

    def test_programs_in_several_threads(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        weight = in_file(random_bytes(Type.Q4_0, 4000, 512), Type.Q4_0, (4000, 512))
        x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 512)).astype(np.float32))
        run = jax.jit(lambda x, w: matmuls(x, [w])[0])
        expected = np.asarray(run(x, weight))
        with ThreadPoolExecutor(4) as pool:
            for got in pool.map(lambda _: np.asarray(run(x, weight)), range(200)):
                np.testing.assert_array_equal(got, expected)
