"""CPU attention against the formula, on every instruction set of this processor.

The tests call the tasks of a kernel as its handler does, so that all instruction sets are tested; `attend` runs on the
chosen one only. Hidden positions of the cache hold values that would change the result.
"""

import ctypes
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from kernel_calls import InThisProcess
from reference_attention import SCALE, slow_attention
from test_simd import ISAS

from minillama import env
from minillama.gguf.kv_cache_types import CacheType
from minillama.kernels.cpu.attention.attention_args import LANES, AttentionArgs, AttentionSpec
from minillama.kernels.cpu.attention.attention_op import (
    MAX_DECODE_TOKENS,
    attend,
    load_attention,
    panel_lanes,
)
from minillama.kernels.cpu.attention.decode_attention import define_decode
from minillama.kernels.cpu.attention.prefill_attention import define_prefill
from minillama.kernels.cpu.runtime import ffi_handlers, registry
from minillama.kernels.cpu.runtime.machine_code import compile_kernels
from minillama.kernels.cpu.simd import Isa, Module
from minillama.model.states.stores import empty_store

F32, F16, BF16, Q8 = CacheType.F32, CacheType.F16, CacheType.BF16, CacheType.Q8_0
Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL = CacheType.Q4_0, CacheType.Q4_1, CacheType.Q5_0, CacheType.Q5_1, CacheType.IQ4_NL
KV_HEADS, SOFTCAP = 2, 5.0
BATCH, CAPACITY = 2, 147  # the largest of all cases
HEADS = [
    AttentionSpec(64, 64, 4, F16, F16, softcap=False),
    AttentionSpec(128, 64, 1, Q8, F32, softcap=False),
    AttentionSpec(20, 12, 8, F32, BF16, softcap=True),
    AttentionSpec(80, 96, 3, BF16, Q8, softcap=True),
    AttentionSpec(64, 64, 3, F16, Q8, softcap=False, sinks=True),
    AttentionSpec(576, 512, 8, F16, F16, softcap=False, shared=True),
    AttentionSpec(288, 272, 2, Q8, BF16, softcap=False),
    AttentionSpec(96, 50, 6, Q8, Q8, softcap=False, shared=True),
    AttentionSpec(64, 96, 2, Q4_0, Q5_1, softcap=False),
    AttentionSpec(96, 64, 2, Q4_1, IQ4_NL, softcap=False),
    AttentionSpec(32, 64, 2, Q5_0, Q4_0, softcap=False),
    AttentionSpec(64, 32, 2, IQ4_NL, Q4_1, softcap=False),
    AttentionSpec(64, 64, 2, Q5_1, Q5_0, softcap=False),
    AttentionSpec(320, 288, 16, Q4_0, Q5_0, softcap=False),
]
by_heads = pytest.mark.parametrize("heads", HEADS, ids=lambda heads: heads.name.removeprefix("minillama_attention_"))
by_isa = pytest.mark.parametrize("isa", ISAS, ids=lambda isa: isa.value)


@dataclass(frozen=True)
class Case:
    """T queries from the start of each sequence on, in a cache of some capacity."""

    time: int
    starts: tuple[int, ...]
    capacity: int
    window: int = 0


CASES = [
    Case(1, (0,), 1),
    Case(1, (36, 3), 41),
    Case(1, (29,), 33, window=5),
    Case(2, (15, 0), 37),
    Case(8, (0, 50), 61, window=17),
    Case(9, (7,), 23),
    Case(9, (64, 2), 77, window=3),
    Case(40, (101, 0), 143),
    Case(40, (30,), 71, window=11),
    Case(40, (100,), 147, window=40),  # some rows of a panel see no key of the last tile
]


@dataclass(frozen=True)
class Stored:
    """Keys or values: the array of the cache, and its values."""

    array: np.ndarray
    decoded: np.ndarray

    def cut(self, case: Case) -> "Stored":
        """The part that a case uses."""
        room = slice(len(case.starts)), slice(None), slice(case.capacity)
        return Stored(self.array[room], self.decoded[room])

    def with_unseen_spoilt(self, case: Case) -> np.ndarray:
        """The array, with nan at all positions that no query of a sequence sees."""
        array = self.array.copy()
        spoilt = 255 if array.dtype == np.uint8 else np.nan  # two such bytes are a scale of nan
        for b, start in enumerate(case.starts):
            first = max(0, start - case.window + 1) if case.window else 0
            array[b, :, :first] = spoilt
            array[b, :, start + case.time :] = spoilt
        return array


@dataclass(frozen=True)
class Inputs:
    q: np.ndarray
    positions: np.ndarray
    keys: Stored
    values: Stored


@cache
def stored(kind: CacheType, size: int, seed: int) -> Stored:
    shape = (BATCH, KV_HEADS, CAPACITY, size)
    numbers = jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))
    store = empty_store(kind, *shape).encode(numbers)
    (array,) = jax.tree.leaves(store)
    return Stored(np.asarray(array), np.asarray(store.decode()))


def inputs(heads: AttentionSpec, case: Case, loud: float = 2.0) -> Inputs:
    """Queries, positions and cache of a case; loud: standard deviation of the queries, less of long ones."""
    shape = (len(case.starts), case.time, KV_HEADS * heads.groups, heads.key_size)
    q = loud * min(1, 128 / heads.key_size) ** 0.5 * np.random.default_rng(case.time).standard_normal(shape, np.float32)
    positions = np.array(case.starts, np.int32)[:, None] + np.arange(case.time, dtype=np.int32)
    keys = stored(heads.key_type, heads.key_size, 1)
    values = Stored(keys.array, keys.decoded[..., : heads.value_size])
    if not heads.shared:
        values = stored(heads.value_type, heads.value_size, 2)
    return Inputs(q.astype(np.float32), positions, keys.cut(case), values.cut(case))


@cache
def expected(heads: AttentionSpec, case: Case, loud: float = 2.0) -> np.ndarray:
    """The result by the formula."""
    given = inputs(heads, case, loud)
    arrays = given.q, given.keys.decoded, given.values.decoded, given.positions
    return slow_attention(*arrays, softcap=softcap(heads), window=case.window, sinks=sinks(heads))


def sinks(heads: AttentionSpec) -> np.ndarray | None:
    """A logit of each query head: below, among and above its scores."""
    if not heads.sinks:
        return None
    return np.linspace(-20, 40, KV_HEADS * heads.groups, dtype=np.float32)


def softcap(heads: AttentionSpec) -> float:
    return SOFTCAP if heads.softcap else 0.0


@cache
def kernels(heads: AttentionSpec, isa: Isa):
    return compile_kernels(f"test-{heads.name}", isa, lambda module: write(module, heads), env.kernel_cache_dir())


def write(module: Module, heads: AttentionSpec) -> None:
    define_decode(module, "decode", heads)
    for lanes in (LANES, 2 * LANES):
        define_prefill(module, f"prefill{lanes}", heads, lanes)


def attention(heads: AttentionSpec, isa: Isa, case: Case, given: Inputs, on: InThisProcess | None = None) -> np.ndarray:
    """Store the arguments as the handler does, and run all tasks.

    on: where they run, None for this process.
    """
    on = InThisProcess(kernels(heads, isa)) if on is None else on
    guarded = on.guarded
    keys, values = (guarded(stored.with_unseen_spoilt(case)) for stored in (given.keys, given.values))
    q, positions = guarded(np.ascontiguousarray(given.q)), guarded(np.ascontiguousarray(given.positions))
    batch, time = positions.shape
    out = guarded(np.full((batch, time, KV_HEADS * heads.groups * heads.value_size), np.nan, np.float32))
    logits = None if sinks(heads) is None else guarded(sinks(heads))
    slots = guarded(np.arange(batch, dtype=np.int32))
    scale, cap = (int(bits) for bits in np.array([SCALE, softcap(heads)], np.float32).view(np.int32))
    args = AttentionArgs.pack(
        time=time, rows=len(keys), kv_heads=KV_HEADS, capacity=case.capacity, window=case.window, scale=scale,
        softcap=cap, q=q.ctypes.data, positions=positions.ctypes.data, out=out.ctypes.data, key_cache=keys.ctypes.data,
        value_cache=values.ctypes.data, slots=slots.ctypes.data,
        sinks=0 if logits is None else logits.ctypes.data,
    )  # fmt: skip
    lanes = panel_lanes(time, heads.groups)
    blocks = -(-time * heads.groups // lanes) if lanes else time * heads.splits
    for number in range(batch * KV_HEADS * blocks):
        on.call(f"prefill{lanes}" if lanes else "decode", args, number)
    return out


@by_isa
@by_heads
class TestEveryKernel:
    def test_equals_the_formula_and_reads_no_hidden_position(self, heads: AttentionSpec, isa: Isa) -> None:
        for case in CASES:
            got = attention(heads, isa, case, inputs(heads, case))
            rounding = 1e-5 * max(1, heads.key_size / 128)  # of a longer sum
            np.testing.assert_allclose(got, expected(heads, case), atol=rounding, err_msg=str(case))

    def test_several_tokens_equal_single_tokens(self, heads: AttentionSpec, isa: Isa) -> None:
        """Bit for bit: the verification of a draft must not depend on its length."""
        case = Case(MAX_DECODE_TOKENS, (70, 3), 90)
        given = inputs(heads, case)
        together = attention(heads, isa, case, given)
        for t in range(case.time):
            alone = Case(1, tuple(start + t for start in case.starts), case.capacity)
            one = Inputs(given.q[:, t : t + 1], given.positions[:, t : t + 1], given.keys, given.values)
            np.testing.assert_array_equal(attention(heads, isa, alone, one), together[:, t : t + 1])

    def test_positions_outside_of_the_cache_become_the_nearest(self, heads: AttentionSpec, isa: Isa) -> None:
        """So no position reads memory before or after the cache."""
        for time in (1, 40):
            case = Case(time, (41 - time, 41 - time), 41)
            given = inputs(heads, case)
            for far, nearest in ((2_000_000_000, 40), (-2_000_000_000, 0), (41, 40), (-1, 0)):
                found, held = (
                    attention(heads, isa, case, replace(given, positions=np.full((2, time), position, np.int32)))
                    for position in (far, nearest)
                )
                np.testing.assert_array_equal(found, held)

    def test_scores_may_be_large(self, heads: AttentionSpec, isa: Isa) -> None:
        """e^s may be infinite in float32, but e^(s-m) is not."""
        for case in (Case(1, (90,), 91), Case(40, (50,), 91)):
            got = attention(heads, isa, case, inputs(heads, case, loud=300.0))
            np.testing.assert_allclose(got, expected(heads, case, loud=300.0), atol=2e-3)


@pytest.fixture
def threads() -> Iterator[ctypes.Array]:
    """The numbers of threads of the handlers, restored afterwards."""
    registry.register()
    words = (ctypes.c_int64 * 2).from_address(registry.handlers()(ffi_handlers.THREADS))
    before = list(words)
    yield words
    words[:] = before


@pytest.mark.parametrize("time", [1, MAX_DECODE_TOKENS, MAX_DECODE_TOKENS + 1, 40])
def test_any_number_of_threads_gives_the_same(time: int, threads: ctypes.Array) -> None:
    """Through JAX: the result does not depend on the number of threads."""
    heads, case = HEADS[1], Case(time, (55, 7), 101, window=30)
    given = inputs(heads, case)
    arrays = [jnp.asarray(stored.with_unseen_spoilt(case)) for stored in (given.keys, given.values)]
    found = []
    for count in (1, 2, 5):
        threads[:] = [count, count]
        q, positions = jnp.asarray(given.q), jnp.asarray(given.positions)
        found.append(np.asarray(attend(heads, q, positions, *arrays, SCALE, softcap(heads), case.window)))
    np.testing.assert_allclose(found[0], expected(heads, case), atol=1e-5)
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def test_panels_take_many_tokens_and_are_as_narrow_as_possible() -> None:
    assert [panel_lanes(time, 4) for time in (1, MAX_DECODE_TOKENS, MAX_DECODE_TOKENS + 1)] == [0, 0, 2 * LANES]
    assert [panel_lanes(time, 1) for time in (MAX_DECODE_TOKENS + 1, LANES, LANES + 1)] == [LANES, LANES, 2 * LANES]


def test_concurrent_threads_load_a_kernel_once() -> None:
    """One thread may load the executables of a model while another traces."""
    heads = AttentionSpec(28, 28, 2, CacheType.F32, CacheType.F32, False)
    start = threading.Barrier(4)

    def load() -> None:
        start.wait()
        load_attention(heads)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(load) for _ in range(4)]:
            done.result()
    assert [spec for _, spec in registry.loaded].count(heads) == 1
