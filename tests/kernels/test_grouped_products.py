"""Grouped products: the CPU handler and the form for XLA against a product of each row with its matrix."""

import ctypes
import mmap
from collections.abc import Iterator, Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize
from hypothesis import given
from hypothesis import strategies as st
from test_cpu_matmul import check
from test_weight import random_bytes
from weights_in_memory import in_file

from minillama.kernels import RowGroups, Weight, grouped_matmuls, portable_weight
from minillama.kernels.cpu.mapped_weight import MappedWeight, map_weight
from minillama.kernels.cpu.runtime import ffi_handlers, registry
from minillama.kernels.grouped_products import MAX_TILE_ROWS, tile_rows
from minillama.kernels.scaled_weight import ScaledWeight

DEVICE = jax.devices("cpu")[0]
MATRICES, N, K, ROWS = 5, 40, 256, 60
KINDS = [Type.F32, Type.F16, Type.Q4_0, Type.Q6_K, Type.MXFP4]
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
X = np.random.default_rng(0).standard_normal((ROWS, K)).astype(np.float32)
multiply = jax.jit(grouped_matmuls)


@cache
def matrices(kind: Type) -> np.ndarray:
    return random_bytes(kind, MATRICES * N, K).reshape(MATRICES, N, -1)


@cache
def mapped(kind: Type) -> MappedWeight:
    return in_file(matrices(kind), kind, (MATRICES, N, K))


def groups_of(offsets: Sequence[int], numbers: Sequence[int] | None = None) -> RowGroups:
    """Groups without gaps."""
    return with_bounds(range(len(offsets) - 1) if numbers is None else numbers, offsets[:-1], offsets[1:])


def with_bounds(*parts: Sequence[int]) -> RowGroups:
    return RowGroups(*(jnp.asarray(np.array(part, np.int32)) for part in parts))


def run(stack: Weight, groups: RowGroups, x: np.ndarray = X) -> np.ndarray:
    return np.asarray(multiply(jnp.asarray(x), [stack], groups)[0])


def with_the_rest_spoilt(offsets: Sequence[int]) -> np.ndarray:
    """Activations with nan in rows outside of all groups."""
    x = X.copy()
    x[: offsets[0]] = np.nan
    x[offsets[-1] :] = np.nan
    return x


def check_groups(kind: Type, y: np.ndarray, offsets: Sequence[int], numbers: Sequence[int] | None = None) -> None:
    """Every row is its own matrix's product, within the rounding of activations."""
    for g, number in enumerate(range(len(offsets) - 1) if numbers is None else numbers):
        rows = slice(offsets[g], offsets[g + 1])
        if rows.start < rows.stop:
            check(kind, matrices(kind)[number], X[rows], y[rows])


ANY_OFFSETS = st.lists(st.integers(0, ROWS), min_size=MATRICES + 1, max_size=MATRICES + 1).map(sorted)


@by_kind
class TestEveryType:
    @given(offsets=ANY_OFFSETS)
    def test_each_row_meets_its_own_matrix(self, kind: Type, offsets: list[int]) -> None:
        """Groups of any size, none included; rows outside of all groups are not read."""
        y = run(mapped(kind), groups_of(offsets), with_the_rest_spoilt(offsets))
        check_groups(kind, y, offsets)

    @pytest.mark.parametrize("offsets", [[0] * 6, [0] * 3 + [ROWS] * 3, [0, 1, 3, 7, 15, 24], [3, 3, 12, 12, 45, 60]])
    def test_groups_of_special_sizes(self, kind: Type, offsets: list[int]) -> None:
        """None, all rows in one, sizes of every GEMV and of the GEMM, and a start after the first row."""
        y = run(mapped(kind), groups_of(offsets), with_the_rest_spoilt(offsets))
        check_groups(kind, y, offsets)

    def test_in_tiles(self, kind: Type) -> None:
        """The form for XLA; matrices without rows hold infinities, which would show."""
        offsets = [0, 0, 37, 37, 38, 50]
        values = dequantize(matrices(kind), kind).reshape(MATRICES, N, K).astype(np.float32)
        expected = np.zeros((ROWS, N))
        for g in range(MATRICES):
            expected[offsets[g] : offsets[g + 1]] = X[offsets[g] : offsets[g + 1]] @ values[g].T
        raw = matrices(kind).copy()
        if kind is Type.F32:
            raw[[0, 2]] = np.full(4, np.inf, np.float32).view(np.uint8)[:4].tolist() * (raw.shape[-1] // 4)
        y = run(portable_weight(raw, kind, DEVICE), groups_of(offsets))
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_few_rows_give_the_bits_of_single_rows() -> None:
    """Eight tokens at once, such as a draft, must not differ from one by one."""
    stack, offsets = mapped(Type.Q6_K), [0, 3, 3, 11, 18, 19]
    y = run(stack, groups_of(offsets))
    for g in range(MATRICES):
        for row in range(offsets[g], offsets[g + 1]):
            one = run(stack, groups_of([0, 1], [g]), X[row : row + 1])
            np.testing.assert_array_equal(y[row], one[0])


def test_each_row_may_have_a_group_of_its_own() -> None:
    """As the experts of one token have; a matrix may occur twice."""
    numbers = [4, 0, 4, 2]
    y = run(mapped(Type.Q4_0), groups_of(range(5), numbers), X[:4])
    check_groups(Type.Q4_0, y, range(5), numbers)


@pytest.mark.parametrize("others", [(Type.Q4_0,), (Type.Q6_K, Type.F32)], ids=["one layout", "several layouts"])
def test_several_stacks(others: tuple[Type, ...]) -> None:
    kinds, offsets = (Type.Q4_0, *others), [0, 20, 21, 21, 40, 55]
    found = multiply(jnp.asarray(X), [mapped(kind) for kind in kinds], groups_of(offsets))
    for kind, y in zip(kinds, found, strict=True):
        check_groups(kind, np.asarray(y), offsets)


def test_scaled_stacks() -> None:
    """A number for each matrix, in one stack of two."""
    scales, offsets = np.array([2.0, 3.0, 5.0, 7.0, 11.0], np.float32), [0, 4, 4, 30, 31, 50]
    stacks = [mapped(Type.Q6_K), ScaledWeight(mapped(Type.Q6_K), jnp.asarray(scales))]
    expected, _ = multiply(jnp.asarray(X), [mapped(Type.Q6_K), mapped(Type.Q6_K)], groups_of(offsets))
    for order in (1, -1):
        plain, scaled = multiply(jnp.asarray(X), stacks[::order], groups_of(offsets))[::order]
        np.testing.assert_array_equal(np.asarray(plain)[:50], np.asarray(expected)[:50])
        factors = np.repeat(scales, np.diff(offsets))[:, None]
        np.testing.assert_allclose(np.asarray(scaled)[:50], factors * np.asarray(expected)[:50], rtol=1e-6)


@pytest.mark.parametrize("kind", [Type.Q6_K, Type.F16], ids=lambda kind: kind.name)
def test_numbers_outside_of_their_range_become_the_nearest(kind: Type) -> None:
    """So no number reads or writes outside of the operands."""
    large, stack = 2**31 - 1, mapped(kind)
    wrong = with_bounds([-large, 1, 99, large, 4], [-large, 20, 10, 30, large], [20, 10, 30, large, 5])
    right = groups_of([0, 20, 20, 30, ROWS, ROWS], [0, 1, 4, 4, 4])
    np.testing.assert_array_equal(run(stack, wrong), run(stack, right))


@pytest.mark.parametrize("in_place", [True, False], ids=["kernels", "XLA"])
def test_rows_between_groups_are_not_read(in_place: bool) -> None:
    numbers, starts, ends = [3, 0, 1], [2, 10, 40], [7, 30, 41]
    stack = mapped(Type.F32) if in_place else portable_weight(matrices(Type.F32), Type.F32, DEVICE)
    x = np.full_like(X, np.nan)
    for start, end in zip(starts, ends, strict=True):
        x[start:end] = X[start:end]
    y = run(stack, with_bounds(numbers, starts, ends), x)
    for number, start, end in zip(numbers, starts, ends, strict=True):
        check(Type.F32, matrices(Type.F32)[number], X[start:end], y[start:end])


@pytest.mark.parametrize("valid", [None, 4])
def test_one_matrix_for_each_of_several_inputs(valid: int | None) -> None:
    """`batched_product`, as latent attention calls it for its heads; padded tokens give zeros."""
    x, numbers = X[:36].reshape(3, 12, K).copy(), [1, 2, 3]
    n_valid = None if valid is None else jnp.int32(valid)
    if valid is not None:
        x[:, valid:] = np.nan
    y = np.asarray(mapped(Type.Q6_K).batched_product(jnp.asarray(x), jnp.int32(1), n_valid))
    for i, number in enumerate(numbers):
        check(Type.Q6_K, matrices(Type.Q6_K)[number], x[i, :valid], y[i, :valid])
    assert valid is None or not y[:, valid:].any()


@pytest.mark.parametrize("kind", [Type.F32, Type.Q8_0], ids=lambda kind: kind.name)
def test_matrices_without_rows_are_not_read(kind: Type) -> None:
    """Their pages cannot be read at all: an access would end the process."""
    rows, width = 64, 1024  # whole pages a matrix
    raw = random_bytes(kind, 4 * rows, width)
    size = raw.nbytes // 4
    assert size % mmap.PAGESIZE == 0
    memory = np.frombuffer(mmap.mmap(-1, 4 * size), np.uint8)
    memory[:] = raw.reshape(-1)
    stack = map_weight(jax.device_put(memory, DEVICE), 0, kind, (4, rows, width))
    x = np.random.default_rng(1).standard_normal((24, width)).astype(np.float32)
    assert stack.memory.unsafe_buffer_pointer() == memory.ctypes.data
    _protect(memory.ctypes.data, size, 0)
    _protect(memory.ctypes.data + 2 * size, size, 0)
    try:
        y = run(stack, groups_of([0, 0, 21, 21, 24]), x)
    finally:
        _protect(memory.ctypes.data, 4 * size, mmap.PROT_READ | mmap.PROT_WRITE)
    check(kind, raw[rows : 2 * rows], x[:21], y[:21])
    check(kind, raw[3 * rows :], x[21:], y[21:])


def _protect(address: int, size: int, access: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(size), access) == 0


@pytest.fixture
def threads() -> Iterator[ctypes.Array]:
    """The numbers of threads of the handlers, restored afterwards."""
    registry.register()
    words = (ctypes.c_int64 * 2).from_address(registry.handlers()(ffi_handlers.THREADS))
    before = list(words)
    yield words
    words[:] = before


def test_any_number_of_threads_gives_the_same(threads: ctypes.Array) -> None:
    offsets, found = [0, 9, 12, 12, 45, 60], []
    for count in (1, 2, 5):
        threads[:] = [count, count]
        found.append(run(mapped(Type.MXFP4), groups_of(offsets)))
    check_groups(Type.MXFP4, found[0], offsets)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_tiles_have_about_as_many_rows_as_groups() -> None:
    assert [tile_rows(rows, 32) for rows in (4, 32, 33, 128, 129, 100_000)] == [1, 1, 2, 4, 8, MAX_TILE_ROWS]
    assert tile_rows(5, 1) == 5
