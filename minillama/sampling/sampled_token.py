"""One draw of a text: a token, its log-probability, and more on request.

That is: the likeliest tokens in its place, and the mask of the tokens that a grammar allows.
"""

from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int, UInt32
from minillama.sampling.chain import Chain, logprob
from minillama.sampling.sampler_state import SamplerState
from minillama.sampling.stages.top_tokens import TopTokens

WORD_BITS = 32  # of the words of a mask; token t is bit t % 32 of word t // 32

Mask = UInt32[Array, "words"]


class SampledToken(NamedTuple):
    """A sampled token and its log-probability (natural) under the model.

    That is before any stage of the chain.
    """

    token: Int[Array, "*B"]
    logprob: Float[Array, "*B"]
    top: TopTokens | None  # where the chain has a report


def mask_words(vocab_size: int) -> int:
    """Number of words of a mask of allowed tokens."""
    return -(-vocab_size // WORD_BITS)


def sample(
    chain: Chain, logits: Float[Array, "V"], state: SamplerState, allowed: Mask | None = None
) -> tuple[SampledToken, SamplerState]:
    """Sample a token and accept it.

    allowed: bits of the tokens that a grammar allows, None for all. As in llama.cpp, the chain first draws from all
    tokens. Only where that token is not allowed, it runs a second time, on the allowed ones, with the next random
    numbers.
    """
    if allowed is None:
        return _draw(chain, logits, logits, state)

    def is_rejected(carry: tuple[Int[Array, ""], SampledToken, SamplerState]) -> Bool[Array, ""]:
        runs, sampled, _ = carry
        return (runs == 0) | ((runs == 1) & ~_bit(allowed, sampled.token))

    def draw(
        carry: tuple[Int[Array, ""], SampledToken, SamplerState],
    ) -> tuple[Int[Array, ""], SampledToken, SamplerState]:
        runs, _, before = carry
        masked = jnp.where((runs == 0) | allowed_tokens(allowed, chain.vocab_size), logits, -jnp.inf)
        sampled, after = _draw(chain, logits, masked, replace(before, recent=state.recent))
        return runs + 1, sampled, after

    top = None if chain.report is None else chain.report.blank()
    first = SampledToken(jnp.int32(0), jnp.float32(0), top)
    return lax.while_loop(is_rejected, draw, (jnp.int32(0), first, state))[1:]


def sample_rows(
    chains: Chain, logits: Float[Array, "B V"], states: SamplerState, allowed: UInt32[Array, "B words"] | None = None
) -> tuple[SampledToken, SamplerState]:
    """Sample a token of each of B texts, each with its own chain.

    All chains have one structure.
    One text after another: a stage that is off for a text costs it nothing, and its numbers are those of that text
    alone. A chain and a state are stacked: every leaf has a first axis B.
    """
    return lax.map(lambda row: sample(*row), (chains, logits, states, allowed))


def allowed_tokens(allowed: Mask, vocab_size: int) -> Bool[Array, "V"]:
    """The bits of a mask as one truth value a token."""
    bits = allowed[:, None] >> jnp.arange(WORD_BITS, dtype=jnp.uint32)[None] & 1
    return bits.reshape(-1)[:vocab_size] == 1


def _bit(allowed: Mask, token: Int[Array, ""]) -> Bool[Array, ""]:
    return (allowed[token // WORD_BITS] >> (token % WORD_BITS).astype(jnp.uint32) & 1) == 1


def _draw(
    chain: Chain, raw: Float[Array, "V"], logits: Float[Array, "V"], state: SamplerState
) -> tuple[SampledToken, SamplerState]:
    """Sample from logits; raw: the model's, before a mask."""
    found = chain.candidates(logits, state)
    token, state = chain.draw(found, state)
    top = None if chain.report is None else chain.report(raw, found, token)
    return SampledToken(token, logprob(raw, token), top), state
