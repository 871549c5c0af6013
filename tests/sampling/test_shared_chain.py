"""Chains of one structure for texts that are sampled together: each text gets what its own chain gives it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from minillama.sampling import Chain, Sampling, build_chain, chain_structure, sample, sample_rows
from minillama.sampling.chain_builder import build_packed_chain
from minillama.sampling.packed_chain import PackedChain, stack_chains
from minillama.sampling.sampler_order import DEFAULT_ORDER

V, INF = 1500, float("inf")  # more than a list that is sorted
STEPS = 12
LOGITS = (np.random.default_rng(0).normal(size=(STEPS, V)) * 3).astype(np.float32)
PENALTIES = {"repeat_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1}
SHORT = [  # a top-k of at most 64
    {},
    {"temp": 0.0},
    {"top_k": 5, "top_p": 0.5, "min_p": 0.0, **PENALTIES},
    {"top_nsigma": 1.5, "typical": 0.7, "top_p": 1.0, "min_keep": 4},
    {"xtc_probability": 0.6, "xtc_threshold": 0.05, "temp": 1.5, "logit_bias": ((5, 9.0), (7, -INF))},
    {"dynatemp_range": 0.5, "dynatemp_exp": 1.2, "temp": 1.1, "min_p": 0.2, "min_keep": 20},
]
LONG = [  # any other
    {"top_k": 0},
    {"top_k": 0, "top_p": 1.0, "min_p": 0.0},
    {"top_k": 1300, "temp": 2.0, "top_p": 0.99, "min_p": 0.0},
    {"top_k": -1, "typical": 0.7, "top_p": 1.0, "min_p": 0.0, **PENALTIES},
    {"top_k": 0, "top_nsigma": 1.5, "xtc_probability": 0.6, "xtc_threshold": 0.02, "dynatemp_range": 0.5},
    {"top_k": 0, "typical": 0.9, "min_p": 0.1, "min_keep": 1200, "logit_bias": ((5, 9.0), (7, -INF))},
]
DEFAULT = chain_structure(Sampling(), V, is_shared=True)


@jax.jit
def together(packed: PackedChain, states: object) -> jax.Array:
    """The tokens of each text, [B, STEPS]."""

    def step(states: object, row: jax.Array) -> tuple[object, jax.Array]:
        chains = packed.unpack()
        logits = jnp.broadcast_to(row, (len(packed.numbers), V))
        sampled, states = sample_rows(chains, logits, states)
        return states, sampled.token

    return jax.lax.scan(step, states, jnp.asarray(LOGITS))[1].T


@jax.jit
def alone(chain: Chain, state: object) -> jax.Array:
    def step(state: object, row: jax.Array) -> tuple[object, jax.Array]:
        sampled, state = sample(chain, row, state)
        return state, sampled.token

    return jax.lax.scan(step, state, jnp.asarray(LOGITS))[1]


def check(options: list[dict]) -> None:
    chains = [build_chain(Sampling(**each), V) for each in options]
    packed = stack_chains([build_packed_chain(Sampling(**each), V, is_shared=True) for each in options])
    states = [chain.init(seed) for seed, chain in enumerate(chains)]
    found = together(packed, jax.tree.map(lambda *rows: jnp.stack(rows), *states))
    for place, (chain, state) in enumerate(zip(chains, states, strict=True)):
        assert found[place].tolist() == alone(chain, state).tolist(), options[place]
    assert len({tuple(row) for row in found.tolist()}) == len(options)


def test_texts_together_are_texts_alone() -> None:
    check(SHORT[:2])


@pytest.mark.slow
@pytest.mark.parametrize("options", [SHORT, LONG], ids=["short", "long"])
def test_with_other_options(options: list[dict]) -> None:
    check(options)


@pytest.mark.parametrize("options", [*SHORT, {"n_probs": 5}, {"n_probs": 3, "post_sampling_probs": True}])
def test_one_structure_for_most_options(options: dict) -> None:
    assert chain_structure(Sampling(**options), V, is_shared=True) == DEFAULT


def test_other_structures() -> None:
    structure = partial(chain_structure, vocab_size=V, is_shared=True)
    others = [
        {structure(Sampling(**options)) for options in group} for group in (LONG, [{"top_k": 65}, {"top_k": 900}])
    ]
    assert [len(group) for group in others] == [1, 1]
    rare = [
        {"dry_multiplier": 0.8}, {"mirostat": 1}, {"mirostat": 2}, {"samplers": "kt"}, {"repeat_last_n": 65},
        {"logit_bias": tuple((token, 1.0) for token in range(65))}, {"n_probs": 33},
    ]  # fmt: skip
    found = {DEFAULT, *others[0], *others[1], *(structure(Sampling(**options)) for options in rare)}
    assert len(found) == 3 + len(rare)
    assert structure(Sampling(samplers=DEFAULT_ORDER.upper())) == DEFAULT


@pytest.mark.parametrize(
    "options", [{}, LONG[5], {"dry_multiplier": 1.0, "dry_sequence_breakers": (3,)}, {"mirostat": 1}]
)
@pytest.mark.parametrize("is_shared", [False, True])
def test_a_packed_chain_is_the_chain(options: dict, is_shared: bool) -> None:
    chain = build_chain(Sampling(**options), V, is_shared=is_shared)
    packed = build_packed_chain(Sampling(**options), V, is_shared=is_shared)
    unpacked = packed.unpack()
    assert packed.window == chain.window and jax.tree.structure(unpacked) == jax.tree.structure(chain)
    for found, leaf in zip(jax.tree.leaves(unpacked), jax.tree.leaves(chain), strict=True):
        assert found.dtype == leaf.dtype and found.tolist() == leaf.tolist()
    assert len(jax.tree.leaves(packed)) <= 2
