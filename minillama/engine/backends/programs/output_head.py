"""The computation at the output head: logits and sampled tokens."""

from functools import partial

import jax
from jax import Array

from minillama.array_types import Float, Int, UInt32
from minillama.engine.backends.programs.each_text import each_text, one_by_one
from minillama.engine.backends.programs.program import Masks
from minillama.engine.backends.programs.verified_draft import VerifiedDraft
from minillama.model import Config, Params
from minillama.model.collectives import all_gather
from minillama.model.forward import unembed_shard
from minillama.sampling import Chain, SamplerState, sample
from minillama.sampling.packed_chain import PackedChain
from minillama.sampling.sampler_state import new_state
from minillama.sampling.sharded_sampling import sample_sharded, shardable_stages


def logits_shard(params: Params, config: Config, x: Float[Array, "B D"]) -> tuple[None, Float[Array, "B R"]]:
    """Logits that stay where the output head is; this device's R rows of the vocabulary."""
    return None, unembed_shard(params, config, x)


def draw_tokens(
    config: Config, chains: PackedChain, states: SamplerState, logits: Float[Array, "B R"], allowed: Masks | None
) -> tuple[VerifiedDraft, SamplerState]:
    """Sample one token of each text with its chain.

    A sharded vocabulary sends only its best candidates.
    """
    chain = chains.unpack()
    if config.axis is not None and allowed is None and shardable_stages(chain):
        sampled, states = each_text(partial(sample_sharded, axis=config.axis), chain, logits, states)
    else:
        whole = all_gather(logits, config.axis)[:, : config.vocab_size]
        sampled, states = one_by_one(sample, chain, whole, states, allowed)
    tokens, logprobs, top = jax.tree.map(lambda leaf: leaf[:, None], sampled)  # T is 1
    return VerifiedDraft(tokens, logprobs, top=top), states


def first_state(
    chain: Chain, words: UInt32[Array, "624"], recent: Int[Array, "W"], count: Int[Array, ""]
) -> SamplerState:
    """The state of a new sampler that has seen `count` tokens; words: of `seed_words`."""
    return chain.accept_many(new_state(words, chain.window, chain.sampler.initial_mu()), recent, count)
