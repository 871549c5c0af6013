"""Hundreds of continuations of one prompt in one batch, to study a sampling setting."""

import math
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from minillama.array_types import Bool, Float, Int
from minillama.engine.llm import LLM
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.measure.texts.diversity import distinct
from minillama.model import Config, Params, empty_cache
from minillama.model.forward import forward, unembed
from minillama.sampling import Chain, SamplerState, Sampling, build_chain, logprob


@dataclass(frozen=True)
class Samples:
    """B continuations of up to T tokens; `valid` is False after an end token."""

    tokens: Int[np.ndarray, "B T"]
    logprobs: Float[np.ndarray, "B T"]  # natural logarithms of the model's own probabilities, before any filter
    valid: Bool[np.ndarray, "B T"]

    @property
    def likelihood(self) -> float:
        """Geometric mean probability of a token: exp of the mean log-probability."""
        return float(np.exp(self.logprobs[self.valid].mean()))

    def distinct(self, size: int) -> float:
        """Distinct-n: share of different n-grams of `size` tokens (Li et al. 2016)."""
        share = distinct(self._kept, size)
        return 0.0 if math.isnan(share) else share

    def texts(self, llm: LLM) -> list[str]:
        """The continuations as text."""
        return [llm.tokenizer.decode(row) for row in self._kept]

    @property
    def _kept(self) -> list[list[int]]:
        """The tokens of each continuation up to its end."""
        return [row[mask].tolist() for row, mask in zip(self.tokens, self.valid, strict=True)]


def continuations(
    llm: LLM, prompt: str, sampling: Sampling, *, count: int = 200, length: int = 24, seed: int = 0
) -> Samples:
    """Continue a prompt `count` times in one batch, with seeds seed, seed + 1, ...

    A row draws the tokens of `llm.generate` with its seed, except where rounding decides.
    """
    ids = llm.tokenizer.encode(prompt)
    chain = build_chain(sampling, llm.config.vocab_size)
    states = [chain.init(seed + row) for row in range(count)]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    row = jnp.asarray(np.array(ids, np.int32))
    ends = jnp.asarray(np.array(sorted(llm.tokenizer.eog), np.int32))
    tokens, logprobs, valid = _continue(llm.params, llm.config, llm.cache_types, chain, state, row, ends, length)
    return Samples(np.asarray(tokens).T, np.asarray(logprobs).T, np.asarray(valid).T)


@partial(jax.jit, static_argnames=("config", "cache_types", "length"))
def _continue(
    params: Params,
    config: Config,
    cache_types: CacheTypes,
    chain: Chain,
    state: SamplerState,
    ids: Int[Array, "P"],
    ends: Int[Array, "E"],
    length: int,
) -> tuple[Int[Array, "T B"], Float[Array, "T B"], Bool[Array, "T B"]]:
    size = jnp.int32(ids.shape[0])
    state = jax.vmap(lambda one: chain.accept_many(one, ids, size))(state)
    rows = state.recent.shape[0]
    empty = empty_cache(config, ids.shape[0] + length, cache_types)
    hidden, cache = forward(params, config, ids[None], empty)
    cache = jax.tree.map(lambda leaf: jnp.repeat(leaf, rows, axis=0), cache)
    first = jnp.repeat(unembed(params, config, hidden[:, -1]), rows, axis=0)

    def step(carry: tuple, _: None) -> tuple[tuple, tuple]:
        logits, state, cache, running = carry
        token, state = jax.vmap(chain)(logits, state)
        chance = jax.vmap(logprob)(logits, token)
        hidden, cache = forward(params, config, token[:, None].astype(jnp.int32), cache)
        after = running & jnp.all(token[:, None] != ends[None], axis=1)
        return (unembed(params, config, hidden[:, 0]), state, cache, after), (token, chance, running)

    carry = (first, state, cache, jnp.ones(rows, jnp.bool_))
    return lax.scan(step, carry, None, length=length)[1]
