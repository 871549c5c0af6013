"""The search that replaces sorting, against sorting."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minillama.sampling.candidates import Candidates
from minillama.sampling.stages.draw import draw
from minillama.sampling.stages.threshold_search import best_reaching, first_in_order, first_reaching

SIZE = 600  # more than two blocks
weights = arrays(np.uint32, SIZE, elements=st.sampled_from([0, 1, 5, 2**20]), fill=st.sampled_from([0, 1, 3]))
values = st.floats(-9, 9, width=16) | st.sampled_from([0.0, -0.0, -np.inf, np.inf, 3e38, -1e-30])
keys = arrays(np.float32, SIZE, elements=values, fill=st.sampled_from([0.5, -np.inf]))


@jax.jit
def search(weights: jax.Array, key: jax.Array, target: jax.Array) -> tuple[jax.Array, ...]:
    return (
        first_reaching(weights, key, target),
        best_reaching(weights, key, target),
        first_in_order(weights, target),
    )


def reference(weights: np.ndarray, order: np.ndarray, target: float) -> tuple[int, set[int]]:
    """By sorting: the position that reaches the target, and all up to it."""
    running = np.cumsum(weights[order].astype(np.uint64))
    place = int(np.argmax(running >= min(max(1, np.ceil(target)), running[-1])))
    return int(order[place]), set(order[: place + 1].tolist())


@given(weights, keys, st.floats(0, 1, width=32))
@example(np.ones(SIZE, np.uint32), np.zeros(SIZE, np.float32), 0.5)
@example(np.eye(SIZE, dtype=np.uint32)[3], np.zeros(SIZE, np.float32), 0.0)
@example(np.full(SIZE, 2**22, np.uint32), np.linspace(-1, 1, SIZE, dtype=np.float32), 1.0)
def test_a_search_finds_what_sorting_finds(weights: np.ndarray, key: np.ndarray, share: float) -> None:
    weights[3] = max(weights[3], 1)
    target = np.float32(share) * np.float32(weights.sum(dtype=np.uint64))
    position, mask, in_order = search(jnp.asarray(weights), jnp.asarray(key), jnp.float32(target))
    expected, best = reference(weights, np.argsort(-key, kind="stable"), target)
    assert int(position) == expected
    assert set(np.flatnonzero(mask).tolist()) == best
    assert int(in_order) == reference(weights, np.arange(SIZE), target)[0]
    assert weights[int(position)] > 0


def test_a_long_list_is_drawn_from_as_a_short_one() -> None:
    """Padding with candidates of probability 0 changes the method, not the token."""
    logits = np.random.default_rng(0).normal(size=900).astype(np.float32)
    longer = np.concatenate([logits, np.full(900, -np.inf, np.float32)])
    find = jax.jit(lambda row, share: draw(Candidates.from_logits(row).sorted_by_logit(), share))
    for share in np.linspace(0, 0.999, 50, dtype=np.float32):
        assert int(find(logits, share)) == int(find(longer, share))
