"""A draft of tokens, verified in one pass: samples count while the draft is right."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int
from minillama.engine.backends.programs.each_text import one_by_one
from minillama.model import Config, Params
from minillama.model.forward import unembed
from minillama.sampling import Chain, SamplerState, sample
from minillama.sampling.packed_chain import PackedChain
from minillama.sampling.stages.top_tokens import TopTokens


class VerifiedDraft(NamedTuple):
    """Tokens sampled in one pass, and their log-probabilities before the sampling filters.

    count: tokens of each text that are there; None for all T. top: the likeliest tokens [B, T, n], where the chain
    reports them.
    """

    tokens: Int[Array, "B T"]
    logprobs: Float[Array, "B T"]
    count: Int[Array, "B"] | None = None
    top: TopTokens | None = None


def blank_draft(chain: PackedChain, batch: int, tokens: int, *, counted: bool = False) -> VerifiedDraft:
    """Arrays of the shapes of a draft, in processes without the output head."""
    shape, report = (batch, tokens), chain.unpack().report
    count = jnp.zeros(batch, jnp.int32) if counted else None
    top = None if report is None else report.blank(batch, tokens)
    return VerifiedDraft(jnp.zeros(shape, jnp.int32), jnp.zeros(shape), count, top)


def verify_draft(
    params: Params,
    config: Config,
    chain: PackedChain,
    state: SamplerState,
    x: Float[Array, "B T D"],
    ids: Int[Array, "B T"],
    n_draft: Int[Array, "B"],
) -> tuple[VerifiedDraft, SamplerState]:
    """Sample position after position of each text until a sample differs from the draft."""
    verify = partial(verify_text, chain.unpack())
    return one_by_one(verify, unembed(params, config, x), state, ids, n_draft)


def verify_text(
    chain: Chain, logits: Float[Array, "T V"], state: SamplerState, ids: Int[Array, "T"], n_draft: Int[Array, ""]
) -> tuple[VerifiedDraft, SamplerState]:
    """Sample position after position of one text; `ids` are its token and the draft."""
    drafted = jnp.append(ids[1:], jnp.int32(0))  # the last one is never compared
    n_draft = jnp.minimum(n_draft, len(ids) - 1)  # so that the loop ends, whatever a caller says

    def goes_on(carry: tuple[VerifiedDraft, Bool[Array, ""], SamplerState]) -> Bool[Array, ""]:
        return carry[1]

    def sample_next(
        carry: tuple[VerifiedDraft, Bool[Array, ""], SamplerState],
    ) -> tuple[VerifiedDraft, Bool[Array, ""], SamplerState]:
        (*drawn, count, top), _, state = carry
        sampled, state = sample(chain, logits[count], state)
        tokens, logprobs, top = jax.tree.map(lambda all, one: all.at[count].set(one), (*drawn, top), tuple(sampled))
        is_right = (count < n_draft) & (sampled.token == drafted[count])
        return VerifiedDraft(tokens, logprobs, count + 1, top), is_right, state

    size = len(ids)
    top = None if chain.report is None else chain.report.blank(size)
    empty = VerifiedDraft(jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.float32), jnp.int32(0), top)
    draft, _, state = lax.while_loop(goes_on, sample_next, (empty, jnp.bool_(True), state))
    return draft, state
