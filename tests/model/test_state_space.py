"""The recurrence of Mamba-2: both forms against numpy, for any split of a text and any number of padded tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy_state_space import state_space as slow_form

from minillama.model.layers.recurrent.state_space import by_chunk, by_token, state_space

BATCH, TIME, GROUPS, SHARE, P, STATE, CHUNK = 2, 21, 2, 3, 4, 5, 8
FORMS = {
    "by_token": jax.jit(by_token),
    "by_chunk": jax.jit(lambda *parts: by_chunk(*parts, chunk=CHUNK)),
}
EMPTY = np.zeros((BATCH, GROUPS, SHARE, P, STATE), np.float32)


def tokens(seed: int, forgetting: float) -> list[np.ndarray]:
    """x, b, c and log_decay of TIME tokens; forgetting: usual size of -log_decay."""
    rng = np.random.default_rng(seed)
    shapes = (GROUPS, SHARE, P), (GROUPS, STATE), (GROUPS, STATE)
    parts = [rng.standard_normal((BATCH, TIME, *shape)) for shape in shapes]
    parts.append(-forgetting * rng.exponential(size=(BATCH, TIME, GROUPS, SHARE)))
    return [part.astype(np.float32) for part in parts]


def run(form: str, parts: list[np.ndarray], memory: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found, after = FORMS[form](*(jnp.asarray(part) for part in parts), jnp.asarray(memory))
    return np.asarray(found), np.asarray(after)


def slow(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x, b, c, log_decay = parts
    heads, empty = GROUPS * SHARE, np.zeros((GROUPS * SHARE, P, STATE))
    rows = [
        slow_form(x[i].reshape(TIME, heads, P), b[i], c[i], log_decay[i].reshape(TIME, heads), empty)
        for i in range(BATCH)
    ]
    return np.stack([row[0] for row in rows]).reshape(x.shape), np.stack([row[1] for row in rows]).reshape(EMPTY.shape)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), forgetting=st.sampled_from([0.0, 1e-3, 1.0, 50.0, 1e5]))
def test_both_forms_are_the_formula(form: str, seed: int, forgetting: float) -> None:
    parts = tokens(seed, forgetting)
    for got, expected in zip(run(form, parts, EMPTY), slow(parts), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), end=st.integers(0, TIME))
def test_a_split_text_gives_the_same(seed: int, end: int) -> None:
    """Tokens of no weight, before or after, change nothing: so texts of one shape stand for every split."""
    parts = tokens(seed, 1.0)
    counts = np.arange(TIME) < end

    def only(kept: np.ndarray) -> list[np.ndarray]:
        x, b, c, log_decay = parts
        mask = kept[None, :, None, None]
        return [np.where(mask[..., None], x, 0), b, c, np.where(mask, log_decay, 0)]

    whole, after = run("by_chunk", parts, EMPTY)
    first, memory = run("by_chunk", only(counts), EMPTY)
    second, last = run("by_chunk", only(~counts), memory)
    joined = np.where(counts[None, :, None, None, None], first, second)
    np.testing.assert_allclose(joined, whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(last, after, rtol=1e-4, atol=1e-4)


def test_heads_of_a_group_are_neighbours() -> None:
    """Head j reads group j // share."""
    x, b, c, log_decay = tokens(0, 1.0)
    heads = GROUPS * SHARE
    got, memory = state_space(
        jnp.asarray(x.reshape(BATCH, TIME, heads, P)), jnp.asarray(b), jnp.asarray(c),
        jnp.asarray(log_decay.reshape(BATCH, TIME, heads)), jnp.zeros((BATCH, heads, P, STATE)),
    )  # fmt: skip
    expected, after = slow([x, b, c, log_decay])
    np.testing.assert_allclose(np.asarray(got).reshape(x.shape), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.asarray(memory).reshape(EMPTY.shape), after, rtol=1e-4, atol=1e-4)
