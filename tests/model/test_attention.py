"""Attention in tiles against the formula, and what it does not look at."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_attention import SCALE, slow_attention

from minillama.gguf.kv_cache_types import CacheType
from minillama.model.layers.attention import (
    LARGE_TILE,
    TILE,
    attend,
    attention,
    attention_at_once,
    attention_in_tiles,
    attention_weights,
)
from minillama.model.states.stores import Plain, Store, empty_store

N, K, H, V = 6, 2, 32, 64


def filled(kind: CacheType, batch: int, capacity: int, size: int, seed: int) -> Store:
    numbers = np.random.default_rng(seed).standard_normal((batch, capacity, K, size), np.float32)
    return empty_store(kind, batch, K, capacity, size).write(jnp.asarray(numbers), jnp.zeros(batch, jnp.int32))


def queries(batch: int, time: int) -> jax.Array:
    return jnp.asarray(3 * np.random.default_rng(9).standard_normal((batch, time, N, H), np.float32))


def at(*starts: int, time: int) -> jax.Array:
    return jnp.asarray(np.array(starts, np.int32)[:, None] + np.arange(time, dtype=np.int32)[None])


SINKS = np.array([2.0, -50.0, 30.0, 0.0, -3.0, 8.0], np.float32)  # of N heads: some larger than all scores
CASES = [
    # capacity, first positions of the sequences of a batch, T, softcap, window, sinks
    (16, (0,), 16, 0.0, 0, SINKS),
    (16, (3,), 1, 0.0, 0, None),
    (300, (0,), 300, 0.0, 0, None),
    (300, (250,), 50, 20.0, 0, SINKS),  # the last tile overlaps the one before it
    (300, (299,), 1, 0.0, 0, SINKS),
    (384, (128, 0, 300), 40, 0.0, 0, None),
    (384, (383, 5), 1, 2.0, 0, SINKS),
    (384, (200,), 150, 0.0, 7, None),
    (384, (127, 300), 3, 5.0, 130, SINKS),
    (300, (260,), 1, 0.0, 100, None),
]


@pytest.mark.parametrize(("capacity", "starts", "time", "softcap", "window", "sinks"), CASES)
def test_attention_is_the_formula(
    capacity: int, starts: tuple[int, ...], time: int, softcap: float, window: int, sinks: np.ndarray | None
) -> None:
    batch = len(starts)
    keys, values = filled(CacheType.F32, batch, capacity, H, 0), filled(CacheType.F32, batch, capacity, V, 1)
    q, positions = queries(batch, time), at(*starts, time=time)
    arrays = (np.asarray(a) for a in (q, keys.decode(), values.decode(), positions))
    expected = slow_attention(*arrays, softcap=softcap, window=window, sinks=sinks)
    logits = None if sinks is None else jnp.asarray(sinks)
    got = attention(q, keys, values, positions, SCALE, softcap, window, logits)
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-5)
    tiled = partial(attention_in_tiles, scale=SCALE, softcap=softcap, window=window, tile=TILE)
    np.testing.assert_allclose(np.asarray(jax.jit(tiled)(q, keys, values, positions, logits)), expected, atol=1e-5)
    at_once = partial(attention_at_once, scale=SCALE, softcap=softcap, window=window)
    np.testing.assert_allclose(np.asarray(jax.jit(at_once)(q, keys, values, positions, logits)), expected, atol=1e-5)
    whole = attend(attention_weights(q, keys, positions, SCALE, softcap, window, logits), values)
    np.testing.assert_allclose(np.asarray(whole), expected, atol=1e-5)


@pytest.mark.parametrize("time", [1, 3])
def test_a_query_head_for_each_key_head(time: int) -> None:
    keys, values = filled(CacheType.F16, 2, 150, H, 0), filled(CacheType.F16, 2, 150, V, 1)
    q, positions = queries(2, time)[:, :, :K], at(115, 0, time=time)
    got = attention_at_once(q, keys, values, positions, scale=SCALE, softcap=0.0, window=0)
    whole = attend(attention_weights(q, keys, positions, SCALE, 0.0, 0), values)
    np.testing.assert_allclose(np.asarray(got), np.asarray(whole), atol=1e-5)


@pytest.mark.parametrize("tile", [1, 13, TILE, LARGE_TILE])
@pytest.mark.parametrize("window", [0, 20])
def test_the_size_of_a_tile_changes_nothing(tile: int, window: int) -> None:
    keys, values = filled(CacheType.F32, 1, 150, H, 0), filled(CacheType.F32, 1, 150, V, 1)
    q, positions = queries(1, 30), at(115, time=30)
    tiled = partial(attention_in_tiles, scale=SCALE, softcap=0.0, window=window, tile=tile)
    got = jax.jit(tiled)(q, keys, values, positions)
    whole = attend(attention_weights(q, keys, positions, SCALE, 0.0, window), values)
    np.testing.assert_allclose(np.asarray(got), np.asarray(whole), atol=1e-5)


@pytest.mark.parametrize("kind", CacheType)
@pytest.mark.parametrize(("time", "sinks"), [(1, None), (1, SINKS), (20, SINKS)])
def test_every_type_is_read_as_what_it_holds(kind: CacheType, time: int, sinks: np.ndarray | None) -> None:
    keys, values = filled(kind, 1, 200, H, 0), filled(kind, 1, 200, V, 1)
    q, positions = queries(1, time), at(170, time=time)
    decoded = (np.asarray(store.decode()) for store in (keys, values))
    expected = slow_attention(np.asarray(q), *decoded, np.asarray(positions), softcap=0.0, window=0, sinks=sinks)
    got = attention(q, keys, values, positions, SCALE, 0.0, 0, None if sinks is None else jnp.asarray(sinks))
    np.testing.assert_allclose(np.asarray(got), expected, atol=1e-5)


@pytest.mark.parametrize(("start", "time", "window", "seen"), [(0, 100, 0, (0, 1)), (300, 20, 30, (2, 3))])
def test_tiles_that_no_query_sees_are_not_read(start: int, time: int, window: int, seen: tuple[int, int]) -> None:
    """Not a number, times zero, would show."""
    numbers = np.full((1, K, 4 * TILE, H), np.nan, np.float32)
    numbers[:, :, seen[0] * TILE : seen[1] * TILE] = 1
    store = Plain(jnp.asarray(numbers))
    got = attention(queries(1, time), store, store, at(start, time=time), SCALE, 0.0, window)
    np.testing.assert_allclose(np.asarray(got), 1, atol=1e-6)


def test_memory_does_not_grow_with_the_context() -> None:
    def temporary_bytes(capacity: int) -> int:
        def run(q: jax.Array, keys: jax.Array, values: jax.Array, positions: jax.Array) -> jax.Array:
            return attention(q, Plain(keys), Plain(values), positions, SCALE, 0.0, 0)

        store = jnp.zeros((1, K, capacity, H), jnp.float16)
        compiled = jax.jit(run).lower(queries(1, 64), store, store, at(0, time=64)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(64 * TILE) <= temporary_bytes(2 * TILE) + 4096


@pytest.mark.parametrize("time", [1, 20])
def test_rows_of_a_cache_are_read_where_they_are(time: int) -> None:
    """As copies of the rows, bit for bit; a row outside of the cache reads some other one."""
    keys, values = filled(CacheType.F16, 5, 200, H, 0), filled(CacheType.F16, 5, 200, V, 1)
    slots, q, positions = jnp.array([3, 0, 5], jnp.int32), queries(3, time), at(150, 7, 0, time=time)
    tiled = partial(attention_in_tiles, scale=SCALE, softcap=0.0, window=0, tile=TILE)
    at_once = partial(attention_at_once, scale=SCALE, softcap=0.0, window=0)
    for form in (partial(attention, scale=SCALE, softcap=0.0, window=0), jax.jit(tiled), jax.jit(at_once)):
        got = np.asarray(form(q, keys, values, positions, sinks=None, slots=slots))
        expected = np.asarray(form(q, keys.of_rows(slots), values.of_rows(slots), positions))
        np.testing.assert_array_equal(got[:2], expected[:2])
        assert np.isfinite(got).all()
