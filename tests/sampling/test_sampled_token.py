"""A draw with the likeliest tokens, and with a mask of allowed tokens as llama.cpp applies a grammar."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillama.sampling import Sampling, build_chain, distribution, sample
from minillama.sampling.sampled_token import allowed_tokens, mask_words

V = 100
LOGITS = (np.random.default_rng(0).normal(size=V) * 2).astype(np.float32)
draw = jax.jit(sample)


def mask_of(tokens: set[int]) -> np.ndarray:
    words = np.zeros(mask_words(V), np.uint32)
    for token in tokens:
        words[token // 32] |= np.uint32(1) << np.uint32(token % 32)
    return words


@pytest.mark.parametrize("post_sampling_probs", [False, True])
def test_the_likeliest_tokens(post_sampling_probs: bool) -> None:
    sampling = Sampling(n_probs=5, top_k=20, post_sampling_probs=post_sampling_probs)
    chain = build_chain(sampling, V)
    state = chain.init(1)
    sampled, _ = draw(chain, jnp.asarray(LOGITS), state)
    raw = LOGITS - np.log(np.sum(np.exp(LOGITS.astype(np.float64))))
    with np.errstate(divide="ignore"):
        expected = np.log(distribution(LOGITS, chain, state)) if post_sampling_probs else raw
    order = np.argsort(-expected, kind="stable")[:5]
    top, token = sampled.top, int(sampled.token)
    assert top is not None and top.ids[:5].tolist() == order.tolist()
    np.testing.assert_allclose(top.logprobs[:5], expected[order], atol=1e-5)
    np.testing.assert_allclose(top.chosen, expected[token], atol=1e-5)
    np.testing.assert_allclose(sampled.logprob, raw[token], atol=1e-5)


def test_a_mask_has_a_bit_for_each_token() -> None:
    tokens = {0, 31, 32, 63, 64, 99}
    assert set(np.flatnonzero(allowed_tokens(jnp.asarray(mask_of(tokens)), V)).tolist()) == tokens


def test_a_token_that_is_not_allowed_is_drawn_again() -> None:
    """First from all tokens, as llama.cpp does; then from the allowed ones with the next random numbers."""
    sampling = Sampling(top_k=20, temp=1.5)
    chain = build_chain(sampling, V)
    kinds = set()
    for seed in range(12):
        state = chain.init(seed)
        allowed = {int(token) for token in np.random.default_rng(seed).choice(V, 50, replace=False)}
        first, after = draw(chain, jnp.asarray(LOGITS), state)
        expected = int(first.token)
        if expected not in allowed:
            masked = np.where(np.isin(np.arange(V), list(allowed)), LOGITS, -np.inf).astype(np.float32)
            again, _ = draw(chain, jnp.asarray(masked), after)  # there are no penalties: the window does not matter
            expected = int(again.token)
        kinds.add(int(first.token) in allowed)
        found, state = draw(chain, jnp.asarray(LOGITS), state, jnp.asarray(mask_of(allowed)))
        assert int(found.token) == expected and expected in allowed
        assert state.recent[:2].tolist() == [expected, -1]  # the rejected one is not accepted
        assert int(state.draws.place) == (2 if int(first.token) in allowed else 4)
        np.testing.assert_allclose(found.logprob, LOGITS[expected] - np.log(np.sum(np.exp(LOGITS))), atol=1e-5)
    assert kinds == {False, True}
