"""The sampler chain: draws, seeds, the penalty window, compilations, and reports of the stages."""

import dataclasses
from collections.abc import Iterator
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.extend.core import Jaxpr, JaxprEqn

from minillama.errors import OptionError
from minillama.sampling import (
    Candidates,
    Chain,
    SamplerState,
    Sampling,
    build_chain,
    distribution,
    explain,
    logprob,
    resolve_seed,
)
from minillama.sampling.mersenne_twister import MersenneTwister
from minillama.sampling.sampler_state import NO_TOKEN, StepContext
from minillama.sampling.stages.draw import draw

V = 1000
LOGITS = (np.random.default_rng(0).normal(size=V) * 3).astype(np.float32)
step = jax.jit(lambda chain, logits, state: chain(logits, state))
steps = jax.jit(jax.vmap(lambda chain, logits, state: chain(logits, state), in_axes=(None, None, 0)))


def tokens_of(sampling: Sampling, seed: int, count: int = 12, logits: np.ndarray = LOGITS) -> list[int]:
    chain = build_chain(sampling, len(logits))
    state, tokens = chain.init(seed), []
    for _ in range(count):
        token, state = step(chain, jnp.asarray(logits), state)
        tokens.append(int(token))
    return tokens


def with_seeds(chain: Chain, count: int) -> SamplerState:
    """A batch of states that differ only in the random numbers."""
    state = chain.init(0)
    words = np.random.default_rng(1).integers(0, 2**32, (2, count, 624), np.uint32)
    draws, xtc = (jax.vmap(lambda some: MersenneTwister(some, jnp.int32(0)))(jnp.asarray(each)) for each in words)
    others = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), (state.recent, state.mu))
    return jax.vmap(SamplerState)(draws, xtc, *others)


# Draws


def test_same_seed_same_tokens() -> None:
    assert tokens_of(Sampling(), 5) == tokens_of(Sampling(), 5)
    assert tokens_of(Sampling(), 5) != tokens_of(Sampling(), 6)
    assert len(set(tokens_of(Sampling(), 2**32 - 1))) > 1  # the largest


def test_stages_without_effect_keep_the_draws_of_a_seed() -> None:
    """A stage that removes nothing does not change the random numbers; nor does the length of the list."""
    sharp = np.where(np.arange(V) < 3, 1.0, -50.0).astype(np.float32)
    narrow = dict.fromkeys(["top_k", "xtc"], tokens_of(Sampling(top_p=1.0), 3, logits=sharp))
    assert narrow["top_k"] == tokens_of(Sampling(top_k=0, top_p=1.0), 3, logits=sharp)
    assert narrow["xtc"] == tokens_of(Sampling(top_p=1.0, xtc_probability=0.5, xtc_threshold=0.4), 3, logits=sharp)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(top_k=5, top_p=1.0, min_p=0.0, temp=3.0),
        Sampling(mirostat=2, mirostat_ent=2.0),
    ],
)
def test_draws_follow_the_distribution(sampling: Sampling) -> None:
    """The random words are fixed, so this test is deterministic; five standard deviations for every token."""
    logits, count = LOGITS[:64], 20_000
    chain = build_chain(sampling, 64)
    states = with_seeds(chain, count)
    tokens, _ = steps(chain, jnp.asarray(logits), states)
    expected = distribution(logits, chain, chain.init(1))
    seen = np.bincount(np.asarray(tokens), minlength=64) / count
    assert expected.sum() == pytest.approx(1, abs=1e-5)
    assert not seen[expected == 0].any()
    assert np.all(np.abs(seen - expected) <= 5 * np.sqrt(expected * (1 - expected) / count) + 1 / count)


def test_xtc_has_its_probability() -> None:
    chain = build_chain(Sampling(samplers="x", xtc_probability=0.3, xtc_threshold=0.1), 4)
    states = with_seeds(chain, 4000)
    counts = jax.jit(jax.vmap(lambda state: chain.candidates(jnp.zeros(4), state).count))(states)
    assert set(np.asarray(counts).tolist()) == {1, 4}
    assert np.mean(np.asarray(counts) == 1) == pytest.approx(0.3, abs=0.04)


@given(st.lists(st.floats(0, 1, width=32), min_size=8, max_size=8), st.floats(0, 1, exclude_max=True, width=32))
def test_draw_inverts_the_running_sum(weights: list[float], uniform: float) -> None:
    probs = np.array(weights, np.float32)
    if not probs.any():
        probs[3] = 1
    with np.errstate(divide="ignore"):
        candidates = Candidates.from_logits(jnp.log(jnp.asarray(probs)))
    position = int(draw(candidates, jnp.float32(uniform)))
    running = np.cumsum(probs.astype(np.float64))
    target = np.float64(uniform) * running[-1]
    assert probs[position] > 0
    assert running[position] >= target * (1 - 1e-5)
    assert position == 0 or running[position - 1] <= target * (1 + 1e-5) + 1e-12


def test_greedy() -> None:
    best = int(np.argmax(LOGITS))
    for sampling in (
        Sampling(temp=0),
        Sampling(temp=-1),
        Sampling(temp=1e-30),
        Sampling(temp=1e-45),
        Sampling(top_k=1),
    ):
        assert set(tokens_of(sampling, 3, count=4)) == {best}
    tied = np.zeros(V, np.float32)
    assert set(tokens_of(Sampling(temp=0), 3, count=4, logits=tied)) == {0}


def test_mirostat_keeps_the_surprise_at_tau() -> None:
    """The mean surprise of the draws, in bits, under their own distribution, approaches tau."""
    for version in (1, 2):
        chain = build_chain(Sampling(mirostat=version, mirostat_ent=3.0, temp=1.0), V)

        def one(state: SamplerState, _: None, chain: Chain = chain) -> tuple[SamplerState, jax.Array]:
            probs = chain.candidates(jnp.asarray(LOGITS), state)
            token, after = chain(jnp.asarray(LOGITS), state)
            return after, -jnp.log2(jnp.sum(jnp.where(probs.ids == token, probs.probs, 0.0)))

        state, surprise = jax.jit(lambda state, one=one: jax.lax.scan(one, state, None, 600))(chain.init(2))
        assert float(jnp.mean(surprise[100:])) == pytest.approx(3.0, abs=0.25)
        # mu starts at 2 tau and moves by eta (surprise - tau) a token
        assert float(state.mu) == pytest.approx(6.0 - 0.1 * float(jnp.sum(surprise - 3.0)), abs=0.01)


@pytest.mark.parametrize("fill", [np.nan, -np.inf, np.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=0, typical=0.5, top_nsigma=1.0), Sampling(mirostat=1)])
def test_nan_and_infinite_logits_give_a_token(fill: float, sampling: Sampling) -> None:
    assert all(0 <= token < V for token in tokens_of(sampling, 1, 3, np.full(V, fill, np.float32)))
    partly = LOGITS.copy()
    partly[:5] = fill
    tokens = tokens_of(sampling, 1, 3, partly)
    assert all(0 <= token < V for token in tokens)
    if fill == np.inf and sampling == Sampling():
        assert all(token < 5 for token in tokens)
    if not fill > 0:
        assert all(token >= 5 for token in tokens)


def test_half_precision_logits() -> None:
    chain = build_chain(Sampling(temp=0, samplers="t"), V)
    assert int(step(chain, jnp.asarray(LOGITS, jnp.bfloat16), chain.init(0))[0]) in np.argsort(-LOGITS)[:3]


# The penalty window


@settings(max_examples=25)
@given(st.lists(st.integers(0, V - 1), max_size=80), st.integers(0, 90), st.lists(st.integers(0, V - 1), max_size=70))
def test_window_has_the_newest_token_first(before: list[int], n_valid: int, after: list[int]) -> None:
    chain = build_chain(Sampling(), V)
    padded = np.full(80, 7, np.int32)
    padded[: len(before)] = before
    state = accept_many(chain, chain.init(0), jnp.asarray(padded), n_valid)
    for token in after[:3]:
        state = accept(chain, state, jnp.int32(token))
    expected = [*padded[:n_valid].tolist(), *after[:3]][::-1][:64]
    assert state.recent.tolist() == expected + [NO_TOKEN] * (64 - len(expected))


accept_many = jax.jit(lambda chain, state, ids, n: chain.accept_many(state, ids, n))
accept = jax.jit(lambda chain, state, token: chain.accept(state, token))


def test_a_prompt_accepted_whole_or_in_parts() -> None:
    chain = build_chain(Sampling(repeat_last_n=100), V)
    ids = jnp.arange(150, dtype=jnp.int32)
    whole = accept_many(chain, chain.init(0), ids, 150)
    parts = accept_many(chain, accept_many(chain, chain.init(0), ids[:70], 70), ids[70:], 80)
    assert whole.recent.tolist() == parts.recent.tolist() == list(range(149, 21, -1))
    assert accept_many(chain, whole, ids[:0], 0).recent.tolist() == whole.recent.tolist()


def test_a_drawn_token_is_penalised() -> None:
    flat = np.zeros(V, np.float32)
    s = Sampling(samplers="et", presence_penalty=100.0, repeat_last_n=64)
    assert len(set(tokens_of(s, 1, 64, flat))) == 64
    greedy = Sampling(samplers="et", presence_penalty=100.0, repeat_last_n=2, temp=0)
    assert tokens_of(greedy, 1, 6, flat) == [0, 1, 2, 0, 1, 2]


# Compilations


def primitives(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def vocabulary_operations(sampling: Sampling, size: int = V) -> set[str]:
    """Names of the costly operations on arrays as long as the vocabulary."""
    chain = build_chain(sampling, size)
    jaxpr = jax.make_jaxpr(lambda logits, state: chain(logits, state))(jnp.zeros(size), chain.init(0)).jaxpr
    names = set()
    for equation in primitives(jaxpr):
        name = equation.primitive.name
        if name in ("sort", "top_k", "cumsum", "exp", "log") and equation.invars[0].aval.shape == (size,):
            names.add(f"top_k of {equation.params['k']}" if name == "top_k" else name)
    return names


def test_after_a_top_k_no_costly_operation_on_the_vocabulary() -> None:
    everything = Sampling(
        typical=0.9, repeat_penalty=1.1, dry_multiplier=0.8, xtc_probability=0.5, top_nsigma=2.0, min_keep=3,
        dynatemp_range=0.1, logit_bias=((1, 1.0),),
    )  # fmt: skip
    assert vocabulary_operations(Sampling()) == vocabulary_operations(everything) == {"top_k of 64"}
    assert vocabulary_operations(Sampling(top_k=100)) == {"top_k of 128"}
    assert vocabulary_operations(Sampling(top_k=0, typical=0.5, top_p=1.0)) == {"exp", "log", "cumsum", f"top_k of {V}"}
    assert vocabulary_operations(Sampling(top_k=0, top_p=1.0)) == {"exp", "cumsum"}


def test_a_long_list_is_never_sorted() -> None:
    """llama.cpp sorts it; here a search takes the same time for every distribution."""
    everything = Sampling(
        top_k=0, typical=0.9, xtc_probability=0.5, top_nsigma=2.0, min_keep=3, dynatemp_range=0.1, repeat_penalty=1.1
    )
    for sampling in (Sampling(top_k=0), Sampling(top_k=2000), everything, Sampling(mirostat=2)):
        assert vocabulary_operations(sampling, 6000) <= {"exp", "log"}
    assert vocabulary_operations(Sampling(mirostat=1), 6000) == {"exp", "top_k of 100"}


@pytest.mark.parametrize("sampling", [Sampling(top_k=0, typical=0.6), Sampling(mirostat=1, mirostat_ent=4.0)])
@pytest.mark.parametrize("spread", [3.0, 0.01])
def test_a_search_keeps_what_sorting_keeps(sampling: Sampling, spread: float) -> None:
    """Of few likely candidates, and of thousands that are nearly equal."""
    size = 6000
    logits = (np.random.default_rng(1).normal(size=size) * spread).astype(np.float32)
    chain = build_chain(sampling, size)
    state = chain.init(0)
    last = explain(logits, chain, state)
    for report in last[1:]:
        assert report.kept == len(set(report.ids)) > 0
    probs = np.exp(logits.astype(np.float64) - logits.max())
    probs /= probs.sum()
    if not sampling.mirostat:
        surprise = -np.log(probs)
        order = np.argsort(np.abs(surprise - np.sum(probs * surprise)), kind="stable")
        count = int(np.argmax(np.cumsum(probs[order]) > 0.6)) + 1
        assert last[1].kept == pytest.approx(count, abs=2)
        assert (count > 1024) == (spread < 1)
    else:
        assert set(last[-1].ids) == set(np.argsort(-logits, kind="stable")[: last[-1].kept])


def test_changing_options_does_not_recompile() -> None:
    traces = []

    @jax.jit
    def traced(chain: Chain, logits: jax.Array, state: SamplerState) -> tuple[jax.Array, SamplerState]:
        traces.append(1)
        return chain(logits, state)

    def run(**options: object) -> int:
        chain = build_chain(Sampling(**options), V)
        _, state = traced.eval_shape(chain, jnp.asarray(LOGITS), chain.init(resolve_seed(-1)))
        traced.eval_shape(chain, jnp.asarray(LOGITS), state)  # the output state is a valid input
        return len(traces)

    assert run() == 1
    for temp in (0.0, 0.5, 1.0, 2.0):  # including their off values
        for top_p in (0.0, 0.5, 1.0):
            run(temp=temp, top_p=top_p, min_p=1 - top_p, top_k=1 + int(60 * top_p))
    assert run(repeat_last_n=0, mirostat_ent=3.0, dry_base=2.0, min_keep=1, xtc_threshold=0.3) == 1
    assert run(repeat_penalty=1.1) == 2
    assert run(repeat_penalty=1.3, frequency_penalty=0.5, presence_penalty=-1.0, repeat_last_n=33) == 2
    assert run(top_k=65) == 3
    assert run(top_k=128) == 3
    assert run(logit_bias=((1, 1.0),)) == 4
    assert run(logit_bias=((5, -1.0), (6, float("-inf")))) == 4
    assert run(samplers="kpt") == 5


def test_chain_under_vmap_scan_and_eval_shape() -> None:
    chain = build_chain(Sampling(dry_multiplier=0.5, repeat_penalty=1.1), V)
    state = chain.init(0)
    token, after = jax.eval_shape(chain, jnp.asarray(LOGITS), state)
    assert (token.shape, token.dtype, after.recent.shape) == ((), jnp.int32, (64,))
    several = with_seeds(chain, 3)
    tokens, states = steps(chain, jnp.asarray(LOGITS), several)
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], several) for i in range(3)]
    alone = [int(step(chain, jnp.asarray(LOGITS), one)[0]) for one in each]
    assert tokens.tolist() == alone == states.recent[:, 0].tolist()


def test_custom_stage() -> None:
    """A user's own stage works in the chain like the built-in ones."""

    class OnlyEven:
        name = "only-even"

        def __call__(self, candidates: Candidates, step: StepContext) -> Candidates:
            return candidates.keep(candidates.ids % 2 == 0)

    chain = build_chain(Sampling(), V)
    mine = dataclasses.replace(chain, stages=(OnlyEven(), *chain.stages))
    tokens, _ = jax.jit(jax.vmap(lambda state: mine(jnp.asarray(LOGITS), state)))(with_seeds(mine, 50))
    assert len(set(tokens.tolist())) > 1
    assert not np.any(np.asarray(tokens) % 2)


# Errors and reports


def test_invalid_options() -> None:
    with pytest.raises(OptionError, match="logit_bias names token 1000; the vocabulary ends at 999"):
        build_chain(Sampling(logit_bias=((1000, 1.0),)), V)
    with pytest.raises(OptionError, match="dry_sequence_breakers names token 1000; the vocabulary ends at 999"):
        build_chain(Sampling(dry_multiplier=1.0, dry_sequence_breakers=(1000,)), V)
    chain = build_chain(Sampling(), V)
    with pytest.raises(OptionError, match="seed is -1"):
        chain.init(-1)
    with pytest.raises(ValueError, match="64 logits for a chain built for 1000 tokens"):
        chain(jnp.zeros(64), chain.init(0))


def test_logprob_is_of_the_raw_logits() -> None:
    expected = LOGITS[17] - np.log(np.sum(np.exp(LOGITS.astype(np.float64))))
    assert float(logprob(jnp.asarray(LOGITS), jnp.int32(17))) == pytest.approx(expected, abs=1e-4)


def test_explain_reports_kept_and_removed_tokens() -> None:
    chain = build_chain(Sampling(top_k=10, top_p=0.9, min_p=0.1), V)
    state = chain.init(0)
    reports = explain(LOGITS, chain, state)
    assert [report.name for report in reports] == ["logits", "top-k", "top-p", "min-p", "temp-ext", "dist"]
    assert [report.kept for report in reports[:2]] == [V, 10]
    assert reports[1].removed.tolist() == np.argsort(-LOGITS, kind="stable")[10:].tolist()
    for before, after in pairwise(reports):
        assert set(before.ids) == set(after.ids) | set(after.removed)
        assert after.probs.sum() == pytest.approx(1, abs=1e-5)
        assert np.all(np.diff(after.probs) <= 0)
    full = distribution(LOGITS, chain, state)
    assert full.shape == (V,)
    assert full[reports[-1].ids].tolist() == reports[-1].probs.tolist()
    assert np.count_nonzero(full) == reports[-1].kept
    greedy = explain(jnp.asarray(LOGITS), build_chain(Sampling(temp=0), V), state)
    assert greedy[-1].ids.tolist() == [int(np.argmax(LOGITS))]
