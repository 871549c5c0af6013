"""Sampling from sharded logits draws the same tokens as from logits on one device."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from device_processes import Check
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from minillama.sampling import Chain, SamplerState, Sampling, build_chain, logprob
from minillama.sampling.sharded_sampling import sample_sharded, shardable_stages

V, STEPS, AXIS = 301, 16, "tensor"
INF = float("inf")
PENALTIES = {"repeat_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1, "repeat_last_n": 16}
CHAINS = {
    "plain": {"temp": 0.9},
    "greedy": {"temp": 0.0},
    "penalties": {"temp": 0.9, **PENALTIES},
    "rewards": {"temp": 0.5, "repeat_penalty": 0.7, "frequency_penalty": -0.5},
    "biases": {"temp": 1.0, "logit_bias": ((5, 2.0), (299, 9.0), (300, 8.5), *((t, -INF) for t in range(70, 160)))},
    "nearly all forbidden": {"temp": 1.0, "logit_bias": tuple((token, -INF) for token in range(2, V))},
    "dry": {"temp": 0.7, "dry_multiplier": 2.0, "dry_allowed_length": 1, "dry_sequence_breakers": (3, 250)},
    "all of these": {
        "temp": 0.8, "dry_multiplier": 1.0, "dry_allowed_length": 1, "logit_bias": ((5, 2.0), (7, -INF)), **PENALTIES,
    },
    "all later stages": {
        "temp": 1.2, "typical": 0.9, "top_p": 0.9, "min_p": 0.02, "xtc_probability": 0.5, "xtc_threshold": 0.05,
        "dynatemp_range": 0.3, "min_keep": 3,
    },
    "other order": {"samplers": "kepmt", "temp": 1.0, **PENALTIES},
}  # fmt: skip


def random_logits(seed: int, rounded: bool) -> np.ndarray:
    """Logits of some steps; rounded ones have many ties."""
    logits = np.random.default_rng(seed).normal(size=(STEPS, V)).astype(np.float32) * 3
    return np.round(logits) if rounded else logits


@jax.jit
def draw_on_one_device(chain: Chain, logits: Array, state: SamplerState) -> Any:
    def step(state: SamplerState, row: Array) -> tuple[SamplerState, tuple[Array, Array]]:
        token, state = chain(row, state)
        return state, (token, logprob(row, token))

    return lax.scan(step, state, logits)


def draw_sharded(chain: Chain, logits: np.ndarray, state: SamplerState, devices: int) -> Any:
    size = -(-V // devices)
    padded = np.pad(logits, ((0, 0), (0, devices * size - V)), constant_values=50.0)  # the padding must not matter
    return _draw_sharded(chain, padded, state, devices)


def _on_device(chain: Chain, logits: Array, state: SamplerState) -> Any:
    def step(state: SamplerState, row: Array) -> tuple[SamplerState, tuple[Array, Array]]:
        sampled, state = sample_sharded(chain, row, state, AXIS)
        return state, (sampled.token, sampled.logprob)

    state, found = lax.scan(step, state, logits)
    return jax.tree.map(lambda leaf: leaf[None], (state, found))  # of each device


def _sharded(chain: Chain, logits: Array, state: SamplerState, devices: int) -> Any:
    mesh, here = Mesh(np.array(jax.devices()[:devices]), (AXIS,)), PartitionSpec()
    leaves, structure = jax.tree.flatten((chain, state))

    def on_device(leaves: list[Array], logits: Array) -> Any:
        chain, state = jax.tree.unflatten(structure, leaves)
        return _on_device(chain, logits, state)

    return jax.shard_map(
        on_device,
        mesh=mesh,
        in_specs=(here, PartitionSpec(None, AXIS)),
        out_specs=PartitionSpec(AXIS),
        check_vma=False,
    )(leaves, logits)


_draw_sharded = jax.jit(_sharded, static_argnums=3)


def check_draws(options: dict[str, Any], logits: np.ndarray, seed: int, counts: tuple[int, ...] = (4,)) -> int:
    """Compare tokens, log-probabilities and the state; returns the number of distinct tokens."""
    chain = build_chain(Sampling(**options), V)
    assert shardable_stages(chain)
    state, (tokens, logprobs) = draw_on_one_device(chain, jnp.asarray(logits), chain.init(seed))
    for count in counts:
        found_state, (found, found_logprobs) = draw_sharded(chain, logits, chain.init(seed), count)
        for place in range(count):
            np.testing.assert_array_equal(found[place], tokens)
            np.testing.assert_allclose(found_logprobs[place], logprobs, rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(found_state.recent[place], state.recent)
            np.testing.assert_array_equal(found_state.draws.words[place], state.draws.words)
            np.testing.assert_array_equal(found_state.xtc.place[place], state.xtc.place)
    return len(set(np.asarray(tokens).tolist()))


def check_chain(name: str, count: int) -> None:
    kinds = 0
    for seed, rounded in ((1, False), (2, True), (3, True)):
        kinds = max(kinds, check_draws(CHAINS[name], random_logits(seed, rounded), seed, (count,)))
    assert kinds > 1


QUICK = ("greedy", "biases", "all of these")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CHAINS]
)
def test_the_same_tokens(apart: Check, name: str) -> None:
    apart(check_chain, name, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAINS)
def test_the_same_tokens_on_two_devices(apart: Check, name: str) -> None:
    apart(check_chain, name, 2)


def check_top_k(values: list[int]) -> None:
    for top_k in values:
        options = {"temp": 2.0, "top_k": top_k, "top_p": 1.0, "min_p": 0.0}
        check_draws(options, random_logits(top_k, top_k % 2 == 0), top_k)


def test_values_of_top_k(apart: Check) -> None:
    """Fewer than a shard has, more than that, and all."""
    apart(check_top_k, [1, 2, 40, 64, 75, 76, 77, 128, 300, 301, 5000])


@pytest.mark.slow
def test_all_values_of_top_k(apart: Check) -> None:
    apart(check_top_k, list(range(1, V + 2)))


def check_not_finite() -> None:
    """A NaN or infinite logit in any shard shows in the log-probability, whichever token is drawn."""
    logits = random_logits(1, False)
    for step in range(1, STEPS):
        logits[step, step * 20] = (np.nan, np.inf)[step % 2]
    chain = build_chain(Sampling(**CHAINS["greedy"]), V)
    for logprobs in (
        draw_on_one_device(chain, jnp.asarray(logits), chain.init(1))[1][1],
        draw_sharded(chain, logits, chain.init(1), 4)[1][1][3],
    ):
        assert np.isfinite(logprobs[0]) and not np.isfinite(logprobs[1:]).any()


def test_not_finite(apart: Check) -> None:
    apart(check_not_finite)


def check_equal_logits() -> None:
    """All logits equal: the first tokens win ties."""
    logits = np.zeros((STEPS, V), np.float32)
    for top_k in (1, 40, 64):
        check_draws({"temp": 1.0, "top_k": top_k, "top_p": 1.0, "min_p": 0.0}, logits, top_k)


def test_equal_logits(apart: Check) -> None:
    apart(check_equal_logits)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, ["top-k"]),
        ({"logit_bias": ((1, 1.0),), **PENALTIES, "dry_multiplier": 0.5}, ["logit-bias", "penalties", "dry", "top-k"]),
        ({"top_k": 0}, []),
        ({"top_k": 0, **PENALTIES}, []),
        ({"top_nsigma": 1.0}, []),  # before top-k: it needs the deviation of all logits
        ({"samplers": "pkt"}, []),
        ({"samplers": "tk"}, []),
        ({"samplers": "kept", **PENALTIES}, ["top-k"]),
        ({"mirostat": 1}, []),
        ({"mirostat": 2, **PENALTIES}, []),
    ],
)
def test_shardable_stages(options: dict[str, Any], names: list[str]) -> None:
    assert [stage.name for stage in shardable_stages(build_chain(Sampling(**options), V))] == names


def test_an_empty_chain_has_no_shardable_stages() -> None:
    chain = build_chain(Sampling(), V)
    assert shardable_stages(replace(chain, stages=())) == ()
