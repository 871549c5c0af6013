"""The gated delta rule: both forms against numpy and each other, for any split of a text."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_delta_net import delta_rule as slow_rule

from minillama.model.layer_kinds import DeltaNet
from minillama.model.layers.recurrent.delta_rule import CHUNK, by_chunk, by_token, delta_rule, unit_lower_inverse

BATCH, TIME, HEADS, SIZE = 2, 2 * CHUNK + 9, 2, 8
FORMS = {"by_token": jax.jit(by_token), "by_chunk": jax.jit(by_chunk)}
NUMPY = np.random.default_rng(5)
EMPTY = np.zeros((BATCH, HEADS, SIZE, SIZE), np.float32)


def tokens(seed: int, sameness: float = 0.0, forgetting: float = 1.0) -> list[np.ndarray]:
    """q, k, v, log_decay, beta of TIME tokens.

    sameness: 1 for equal keys, the hardest case of the chunked form; forgetting: usual size of -log_decay.
    """
    rng = np.random.default_rng(seed)
    q, k, v = rng.standard_normal((3, BATCH, TIME, HEADS, SIZE))
    k = (1 - sameness) * k + sameness * k[:, :1]
    q, k = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (q, k))
    log_decay = -forgetting * rng.exponential(size=(BATCH, TIME, HEADS))
    return [x.astype(np.float32) for x in (q, k, v, log_decay, rng.uniform(size=(BATCH, TIME, HEADS)))]


def masked(parts: list[np.ndarray], start: np.ndarray, stop: np.ndarray) -> list[np.ndarray]:
    """The tokens from `start` to `stop` of each text moved to the beginning; the rest has no weight."""
    index = np.arange(TIME)[None] + start[:, None]
    counts = (index < stop[:, None])[:, :, None]
    moved = [np.stack([row[np.minimum(at, TIME - 1)] for row, at in zip(x, index, strict=True)]) for x in parts]
    return [*moved[:3], *(np.where(counts, x, np.float32(0)) for x in moved[3:])]


def run(form: str, parts: list[np.ndarray], memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found, after = FORMS[form](*(jnp.asarray(x) for x in parts), jnp.asarray(memory))
    return np.asarray(found), np.asarray(after)


def slow(parts: list[np.ndarray], memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = [slow_rule(*(x[b] for x in parts), memory[b]) for b in range(BATCH)]
    return np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])


@pytest.mark.parametrize("form", FORMS)
class TestBothForms:
    @settings(max_examples=8, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1), sameness=st.sampled_from([0.0, 0.9, 1.0]),
        forgetting=st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e5]),
    )  # fmt: skip
    def test_the_formula(self, form: str, seed: int, sameness: float, forgetting: float) -> None:
        parts = tokens(seed, sameness, forgetting)
        memory = NUMPY.standard_normal(EMPTY.shape).astype(np.float32)
        for got, expected in zip(run(form, parts, memory), slow(parts, memory), strict=True):
            np.testing.assert_allclose(got, expected, atol=2e-5 * max(1.0, np.abs(expected).max()))

    @settings(max_examples=8, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), cuts=st.lists(st.integers(0, TIME), min_size=BATCH, max_size=BATCH))
    def test_any_split_gives_the_same(self, form: str, seed: int, cuts: list[int]) -> None:
        """Also with another split of each text, so that padded tokens follow those of the shorter part."""
        parts, cut = tokens(seed, forgetting=0.1), np.array(cuts)
        found, memory = run(form, parts, EMPTY)
        first, between = run(form, masked(parts, np.zeros(BATCH, int), cut), EMPTY)
        second, after = run(form, masked(parts, cut, np.full(BATCH, TIME)), between)
        np.testing.assert_allclose(after, memory, atol=2e-5)
        for b in range(BATCH):
            joined = np.concatenate([first[b, : cut[b]], second[b, : TIME - cut[b]]])
            np.testing.assert_allclose(joined, found[b], atol=2e-5)


def test_both_forms_are_the_same() -> None:
    parts = tokens(1, sameness=0.5, forgetting=0.2)
    for token, chunk in zip(run("by_token", parts, EMPTY), run("by_chunk", parts, EMPTY), strict=True):
        np.testing.assert_allclose(chunk, token, atol=1e-5)


@pytest.mark.parametrize("grouped", [False, True])
def test_value_heads_share_keys(grouped: bool) -> None:
    q, k, v, log_decay, beta = (x[:1, :5] for x in tokens(2))
    v, log_decay, beta = (np.concatenate([x, 0.5 * x, -x], axis=2) for x in (v, log_decay, np.abs(beta)))
    of_head = np.arange(3 * HEADS) // 3 if grouped else np.arange(3 * HEADS) % HEADS
    empty = np.zeros((3 * HEADS, SIZE, SIZE), np.float32)
    expected, _ = slow_rule(q[0][:, of_head] / np.sqrt(SIZE), k[0][:, of_head], v[0], log_decay[0], beta[0], empty)
    qkv = np.concatenate([x.reshape(1, 5, -1) for x in (q, k, v)], axis=-1)
    layer = DeltaNet(HEADS, 3 * HEADS, SIZE, 4, grouped=grouped)
    arrays = (jnp.asarray(x) for x in (qkv, log_decay, beta, empty[None]))
    got, _ = jax.jit(partial(delta_rule, layer=layer, epsilon=0.0))(*arrays)
    np.testing.assert_allclose(np.asarray(got[0]), expected, atol=1e-5)


@pytest.mark.parametrize("size", [1, 8, 64])
def test_inverse(size: int) -> None:
    a = np.tril(NUMPY.uniform(-1, 1, (3, size, size)), -1)
    got = np.asarray(jax.jit(unit_lower_inverse)(jnp.asarray(a, jnp.float32)))
    expected = np.linalg.inv(np.eye(size) + a)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
