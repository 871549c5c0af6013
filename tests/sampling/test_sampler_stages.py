"""Each stage of the chain against a short reference implementation that shortens a list, like llama.cpp."""

import math
from collections import Counter
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minillama.sampling import Sampling, build_chain
from minillama.sampling.chain import Chain
from minillama.sampling.stages.dry import suffix_matches

Pairs = list[tuple[int, float]]  # (id, logit)
V = 64


# Reference implementations, from the formulas of llama.cpp.


def clear(margins: np.ndarray) -> None:
    """Skip examples whose result depends on the last bits of a float."""
    assume(np.all(np.abs(margins[np.isfinite(margins)]) > 2e-5))


def softmax(pairs: Pairs) -> np.ndarray:
    logits = np.array([logit for _, logit in pairs])
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def descending(pairs: Pairs) -> Pairs:
    return sorted(pairs, key=lambda pair: -pair[1])


def logit_bias(pairs: Pairs, biases: tuple[tuple[int, float], ...]) -> Pairs:
    total: Counter = Counter()
    for token, bias in biases:
        total[token] += bias
    return [(token, logit + total[token]) for token, logit in pairs]


def penalties(pairs: Pairs, tokens: list[int], last_n: int, repeat: float, frequency: float, presence: float) -> Pairs:
    count = Counter(tokens[-last_n:] if last_n else [])

    def lower(token: int, logit: float) -> float:
        if not count[token]:
            return logit
        return (logit * repeat if logit <= 0 else logit / repeat) - count[token] * frequency - presence

    return [(token, lower(token, logit)) for token, logit in pairs]


def dry(
    pairs: Pairs,
    tokens: list[int],
    multiplier: float,
    base: float,
    allowed: int,
    last_n: int,
    breakers: tuple[int, ...],
) -> Pairs:
    window = tokens[-last_n:] if last_n else []
    since_break = next((i for i, token in enumerate(reversed(window)) if token in breakers), len(window))
    longest: dict[int, int] = {}
    for end in range(1, len(window)):  # window[:end] ends like the window, and window[end] followed
        length = 0
        while length < min(end, since_break) and window[end - 1 - length] == window[-1 - length]:
            length += 1
        if length >= allowed:
            longest[window[end]] = max(longest.get(window[end], 0), length)
    if len(window) <= allowed or since_break < allowed:
        longest = {}
    lowered = {token: multiplier * base ** (n - allowed) for token, n in longest.items() if token not in breakers}
    return [(token, logit - lowered.get(token, 0.0)) for token, logit in pairs]


def top_n_sigma(pairs: Pairs, n: float) -> Pairs:
    finite = np.array([logit for _, logit in pairs if logit > -np.inf])
    low = finite.max() - n * finite.std()
    clear(finite - low)
    return [(token, logit if logit >= low else -np.inf) for token, logit in pairs]


def top_k(pairs: Pairs, k: int) -> Pairs:
    return descending(pairs)[:k] if k > 0 else pairs


def top_p(pairs: Pairs, p: float, min_keep: int) -> Pairs:
    if p >= 1:
        return pairs
    pairs = descending(pairs)
    cumulative = np.cumsum(softmax(pairs))
    clear(cumulative - p)
    return pairs[: next((i + 1 for i, c in enumerate(cumulative) if c >= p and i + 1 >= min_keep), len(pairs))]


def min_p(pairs: Pairs, p: float, min_keep: int) -> Pairs:
    if p <= 0:
        return pairs
    pairs = descending(pairs)
    low = pairs[0][1] + math.log(p)
    if p < 1:
        clear(np.array([logit for _, logit in pairs]) - low)
    return [pair for i, pair in enumerate(pairs) if pair[1] >= low or i < min_keep]


def typical(pairs: Pairs, p: float, min_keep: int) -> Pairs:
    if p >= 1:
        return pairs
    probs = softmax(pairs)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(probs)
    distance = np.abs(surprise - np.sum(probs[probs > 0] * surprise[probs > 0]))
    order = np.argsort(distance, kind="stable")
    # Equally likely tokens are equally typical; others must differ clearly.
    possible = order[probs[order] > 0]
    clear(np.diff(distance[possible])[np.diff(probs[possible]) != 0])
    cumulative = np.cumsum(probs[order])
    clear(cumulative - p)
    last = next((i for i, c in enumerate(cumulative) if c > p and i + 1 >= min_keep), len(pairs) - 1)
    return [pairs[i] for i in order[: last + 1]]


def xtc(pairs: Pairs, threshold: float, min_keep: int) -> Pairs:
    pairs = descending(pairs)
    probs = softmax(pairs)
    clear(probs - threshold)
    strong = int(np.sum(probs >= threshold))
    dropped = max(strong - 1, 0)
    return pairs[dropped:] if len(pairs) - dropped >= min_keep else pairs


def temperature(pairs: Pairs, temp: float) -> Pairs:
    if temp > 0:
        return [(token, logit / temp) for token, logit in pairs]
    best = max(range(len(pairs)), key=lambda i: pairs[i][1])
    return [(token, logit if i == best else -np.inf) for i, (token, logit) in enumerate(pairs)]


def dynamic_temperature(pairs: Pairs, temp: float, spread: float, exponent: float) -> Pairs:
    if len(pairs) < 2:
        return pairs
    probs = softmax(pairs)
    share = -np.sum(probs[probs > 0] * np.log(probs[probs > 0])) / math.log(len(pairs))
    low = max(0.0, temp - spread)
    chosen = low + (temp + spread - low) * max(share, 0.0) ** exponent
    assume(chosen > 0.01)
    return temperature(pairs, chosen)


def mirostat1(pairs: Pairs, mu: float, vocab_size: int) -> Pairs:
    pairs = descending(pairs)
    p = softmax(pairs)[:100]
    t = np.log((np.arange(1, len(p)) + 1) / np.arange(1, len(p)))
    b = np.log(p[:-1] / p[1:])
    s = np.sum(t * b) / np.sum(t * t)
    assume(s > 0.05 and abs(s - 1) > 0.01)
    k = ((s - 1) * 2**mu / (1 - vocab_size ** (1 - s))) ** (1 / s)
    clear(np.array([(k - round(k)) / max(k, 1) / 20]))
    return pairs[: max(int(k), 1) if k < 2**31 else 1]


def mirostat2(pairs: Pairs, mu: float) -> Pairs:
    pairs = descending(pairs)
    surprise = -np.log2(softmax(pairs))
    clear(surprise - mu)
    return pairs[: max(int(np.sum(surprise <= mu)), 1)]


# The implementation under test.

find = jax.jit(lambda chain, logits, state: chain.candidates(logits, state))
accept = jax.jit(lambda chain, state, ids, n: chain.accept_many(state, ids, n))


def ours(sampling: Sampling, logits: np.ndarray, tokens: list[int] | None = None, seed: int = 0) -> Pairs:
    chain = build_chain(sampling, len(logits))
    state = chain.init(seed)
    if tokens:
        padded = np.zeros(96, np.int32)
        padded[: len(tokens)] = tokens
        state = accept(chain, state, jnp.asarray(padded), jnp.int32(len(tokens)))
    found = find(chain, jnp.asarray(logits), state)
    kept = np.asarray(found.kept)
    return list(zip(np.asarray(found.ids)[kept].tolist(), np.asarray(found.logits)[kept].tolist(), strict=True))


def assert_same(mine: Pairs, reference: Pairs) -> None:
    assert {token for token, _ in mine} == {token for token, _ in reference}
    wanted = dict(reference)
    got, expected = np.array([[logit, wanted[token]] for token, logit in mine]).T
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-4)


def pairs_of(logits: np.ndarray) -> Pairs:
    return list(enumerate(logits.astype(np.float64).tolist()))


finite = st.floats(-15, 15, width=32, allow_subnormal=False)
# numpy arrays of hypothesis repeat one value often, so there are plenty of ties.
vectors = arrays(np.float32, V, elements=finite)
with_forbidden = arrays(np.float32, V, elements=finite | st.just(-np.inf)).filter(lambda x: bool(np.isfinite(x).any()))
shares = st.sampled_from([0.0, 0.05, 0.3, 0.9, 0.999, 1.0]) | st.floats(0, 1, width=16)
keeps = st.sampled_from([0, 1, 5, V + 1])
prompts = st.lists(st.integers(0, 5), max_size=96) | st.lists(st.integers(0, V - 1), max_size=96)
few = settings(max_examples=25)


@few
@given(with_forbidden, st.sampled_from([1, 2, 40, 63, 64, 1000]))
def test_top_k(logits: np.ndarray, k: int) -> None:
    mine = ours(Sampling(samplers="k", top_k=k), logits)
    assert mine == top_k(pairs_of(logits), k)  # in the same order, too


@few
@given(with_forbidden, shares, keeps, st.sampled_from(["p", "kp"]))
def test_top_p(logits: np.ndarray, p: float, min_keep: int, order: str) -> None:
    start = top_k(pairs_of(logits), 30) if order == "kp" else pairs_of(logits)
    assert_same(ours(Sampling(samplers=order, top_k=30, top_p=p, min_keep=min_keep), logits), top_p(start, p, min_keep))


@few
@given(with_forbidden, shares, keeps)
def test_min_p(logits: np.ndarray, p: float, min_keep: int) -> None:
    assert_same(ours(Sampling(samplers="m", min_p=p, min_keep=min_keep), logits), min_p(pairs_of(logits), p, min_keep))


@few
@given(with_forbidden, shares, keeps, st.sampled_from(["y", "ky"]))
def test_typical(logits: np.ndarray, p: float, min_keep: int, order: str) -> None:
    start = top_k(pairs_of(logits), 30) if order == "ky" else pairs_of(logits)
    mine = ours(Sampling(samplers=order, top_k=30, typical=p, min_keep=min_keep), logits)
    assert_same(mine, typical(start, p, min_keep))


@few
@given(with_forbidden, st.floats(0.01, 4))
def test_top_n_sigma(logits: np.ndarray, n: float) -> None:
    assert_same(ours(Sampling(samplers="s", top_nsigma=n), logits), top_n_sigma(pairs_of(logits), n))


@few
@given(vectors, st.sampled_from([0.01, 0.1, 0.3, 0.5]), keeps)
def test_xtc(logits: np.ndarray, threshold: float, min_keep: int) -> None:
    s = Sampling(samplers="x", xtc_probability=1.0, xtc_threshold=threshold, min_keep=min_keep)
    # Which one of equal candidates is kept is not defined: these logits have the same probability in float32.
    mine, reference = ours(s, logits), xtc(pairs_of(logits), threshold, min_keep)
    kept, wanted = (sorted(logit for _, logit in candidates) for candidates in (mine, reference))
    np.testing.assert_allclose(kept, wanted, atol=1e-8)


@few
@given(with_forbidden, st.sampled_from([-1.0, 0.0, 0.3, 0.8, 1.0, 2.0, 1e-40, 1e-20]))
def test_temperature(logits: np.ndarray, temp: float) -> None:
    mine = ours(Sampling(samplers="t", temp=temp), logits)
    if temp == 1e-40 or temp <= 0:
        assert [token for token, logit in mine if logit > -np.inf].count(int(np.argmax(logits))) == 1
    if temp != 1e-40:
        assert_same(mine, temperature(pairs_of(logits), temp))


@few
@given(vectors, st.floats(0, 3), st.floats(0.01, 2), st.floats(0, 3))
def test_dynamic_temperature(logits: np.ndarray, temp: float, spread: float, exponent: float) -> None:
    s = Sampling(samplers="t", temp=temp, dynatemp_range=spread, dynatemp_exp=exponent)
    reference = dynamic_temperature(pairs_of(logits), temp, spread, exponent)
    top = max(abs(logit) for _, logit in reference) + 1  # a small temperature is as exact as the entropy's f32 allows
    scaled = [[(token, logit / top) for token, logit in pairs] for pairs in (ours(s, logits), reference)]
    assert_same(*scaled)


@few
@given(
    with_forbidden, prompts, st.sampled_from([1, 8, 50, 64]), st.sampled_from([0.5, 1.0, 1.1, 2.0]),
    st.floats(-2, 2), st.floats(0.1, 2), st.sampled_from(["e", "ke"]),
)  # fmt: skip
def test_penalties(
    logits: np.ndarray, tokens: list[int], last_n: int, repeat: float, frequency: float, presence: float, order: str
) -> None:
    s = Sampling(
        samplers=order, top_k=30, repeat_last_n=last_n, repeat_penalty=repeat, frequency_penalty=frequency,
        presence_penalty=presence,
    )  # fmt: skip
    start = top_k(pairs_of(logits), 30) if order == "ke" else pairs_of(logits)
    assert_same(ours(s, logits, tokens), penalties(start, tokens, last_n, repeat, frequency, presence))


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 2), max_size=96) | prompts, st.sampled_from([1.0, 1.75, 1e20]), st.integers(0, 4),
    st.sampled_from([1, 8, 50, 64]), st.sampled_from([(), (2,), (0, 63)]), st.sampled_from(["d", "kd"]),
)  # fmt: skip
def test_dry(tokens: list[int], base: float, allowed: int, last_n: int, breakers: tuple[int, ...], order: str) -> None:
    assume(base < 10 or max(Counter(tokens).values(), default=0) < 3)  # otherwise the reference overflows
    logits = np.linspace(-1, 1, V, dtype=np.float32)
    s = Sampling(
        samplers=order, top_k=64, dry_multiplier=0.8, dry_base=base, dry_allowed_length=allowed,
        dry_penalty_last_n=last_n, dry_sequence_breakers=breakers,
    )  # fmt: skip
    assert_same(ours(s, logits, tokens), dry(pairs_of(logits), tokens, 0.8, base, allowed, last_n, breakers))


def test_dry_stays_finite() -> None:
    s = Sampling(samplers="d", dry_multiplier=1.0, dry_base=1e20, dry_allowed_length=0)
    lowered = dict(ours(s, np.zeros(V, np.float32), [5] * 64))
    assert lowered[5] == pytest.approx(-1e20)  # 1e20**1 is the largest power that an f32 holds


def test_suffix_matches_of_the_example() -> None:
    oldest_first = "abccbcyabc"
    recent = jnp.asarray([ord(letter) for letter in reversed(oldest_first)] + [-1] * 6, jnp.int32)
    matches = suffix_matches(recent, jnp.int32(10), jnp.int32(10))
    assert matches[:10][::-1].tolist() == [0, 0, 3, 1, 0, 2, 0, 0, 0, 0]


@few
@given(with_forbidden, st.lists(st.tuples(st.integers(0, V - 1), finite | st.just(-np.inf)), min_size=1, max_size=12))
def test_logit_bias(logits: np.ndarray, biases: list[tuple[int, float]]) -> None:
    s = Sampling(samplers="", logit_bias=tuple(biases))
    assert_same(ours(s, logits), logit_bias(pairs_of(logits), tuple(biases)))


@few
@given(vectors, st.floats(0.5, 4))
def test_mirostat_1(logits: np.ndarray, tau: float) -> None:
    # mu starts at twice tau
    assert_same(ours(Sampling(mirostat=1, mirostat_ent=tau, temp=1.0), logits), mirostat1(pairs_of(logits), 2 * tau, V))


@few
@given(vectors, st.floats(0.1, 4))
@example(np.array([0.0, 4e-31, *[0.0] * 62], np.float32), 1.0)  # a difference that exp does not see
def test_mirostat_2(logits: np.ndarray, tau: float) -> None:
    assert_same(ours(Sampling(mirostat=2, mirostat_ent=tau, temp=1.0), logits), mirostat2(pairs_of(logits), 2 * tau))


ALL: dict[str, Callable[[Pairs, list[int]], Pairs]] = {
    "e": lambda pairs, tokens: penalties(pairs, tokens, 64, 1.3, 0.2, 0.1),
    "d": lambda pairs, tokens: dry(pairs, tokens, 0.8, 1.75, 1, 64, (3,)),
    "s": lambda pairs, tokens: top_n_sigma(pairs, 2.5),
    "k": lambda pairs, tokens: top_k(pairs, 30),
    "y": lambda pairs, tokens: typical(pairs, 0.95, 2),
    "p": lambda pairs, tokens: top_p(pairs, 0.9, 2),
    "m": lambda pairs, tokens: min_p(pairs, 0.02, 2),
    "x": lambda pairs, tokens: xtc(pairs, 0.15, 2),
    "t": lambda pairs, tokens: temperature(pairs, 0.7),
}


@pytest.mark.parametrize("order", ["edskypmxt", "tpmykd", "xskep"])
@settings(max_examples=15)
@given(st.integers(0, 2**20), st.floats(0.5, 5), prompts)
@example(15, 0.5, [])  # two are kept; the second is one of many that cannot be drawn
def test_chain_runs_its_stages_in_order(order: str, seed: int, spread: float, tokens: list[int]) -> None:
    logits = (np.random.default_rng(seed).normal(size=V) * spread).astype(np.float32)
    s = Sampling(
        samplers=order, repeat_penalty=1.3, frequency_penalty=0.2, presence_penalty=0.1, dry_multiplier=0.8,
        dry_allowed_length=1, dry_sequence_breakers=(3,), top_nsigma=2.5, top_k=30, typical=0.95, top_p=0.9, min_p=0.02,
        xtc_probability=1.0, xtc_threshold=0.15, temp=0.7, min_keep=2, logit_bias=((7, -2.0), (9, 1.5)),
    )  # fmt: skip
    pairs = logit_bias(pairs_of(logits), s.logit_bias)
    for letter in order:
        pairs = ALL[letter](pairs, tokens)
    found = ours(s, logits, tokens)
    assert len(found) == len(pairs)
    # Which of the undrawable tokens are kept depends on the order of equals.
    assert_same(*([pair for pair in some if pair[1] > -np.inf] for some in (found, pairs)))


def test_option_values_are_leaves() -> None:
    """The tree structure does not depend on option values."""
    chain: Chain = build_chain(Sampling(), V)
    other = build_chain(Sampling(temp=0.1, top_k=50, top_p=0.2, min_p=0.0, repeat_last_n=9), V)
    assert jax.tree.structure(chain) == jax.tree.structure(other)
    assert len(jax.tree.leaves(chain)) == 6


LLAMA_CPP = [
    (
        Sampling(),
        {1: 5.3125, 2: 5.5875, 7: 4.625, 8: 6.0, 13: 3.7875, 14: 6.225, 20: 6.225, 21: 3.725, 26: 6.025, 27: 4.575},
    ),
    (
        Sampling(
            repeat_penalty=1.3, frequency_penalty=0.2, presence_penalty=0.1, dry_multiplier=0.8, top_nsigma=2.5,
            dry_sequence_breakers=(1,), top_k=20, typical=0.9, top_p=0.9, min_p=0.02, xtc_probability=1.0,
            xtc_threshold=0.15, temp=0.7, dynatemp_range=0.2,
        ),
        {2: 5.1453, 7: 4.259, 8: 5.5251},
    ),
    (Sampling(mirostat=2, mirostat_ent=1.2), {14: 6.225, 20: 6.225}),
]  # fmt: skip


@pytest.mark.parametrize(("sampling", "left"), LLAMA_CPP, ids=["default", "every stage", "mirostat 2"])
def test_llama_cpp_leaves_the_same(sampling: Sampling, left: dict[int, float]) -> None:
    """Expected: the candidates that llama.cpp's chain (October 2026) leaves of these logits after these tokens."""
    logits = (np.round(np.sin(np.arange(32) * 7.3) * 500) / 100).astype(np.float32)
    mine = ours(sampling, logits, [3, 9, 4, 3, 9, 4, 1, 3, 9])
    assert dict(mine) == pytest.approx(left, abs=2e-4)
