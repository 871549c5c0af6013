"""The programs of drafts: guess tokens, and verify guesses for texts in slots.

A draft model computes one step after another; its latest guesses stay on the device, as the input of the next step.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float, Int
from minillama.engine.backends.programs.each_text import one_by_one
from minillama.engine.backends.programs.program import Counts, Ids, Kind, Model, program
from minillama.engine.backends.programs.slot_programs import Latest, rows_of, with_rows
from minillama.engine.backends.programs.verified_draft import VerifiedDraft, blank_draft, verify_text
from minillama.model import Cache, Config, Params
from minillama.model.collectives import all_gather
from minillama.model.forward import unembed, unembed_shard
from minillama.sampling import SamplerState
from minillama.sampling.packed_chain import PackedChain

CANDIDATES = 10  # likeliest tokens that share the probability: the top-k 10 of llama.cpp's draft-simple


@program(
    takes=(Kind.CACHE, Kind.LATEST, Kind.IDS, Kind.COUNTS, Kind.COUNTS, Kind.COUNTS),
    gives=(Kind.DRAFT, Kind.LATEST, Kind.CACHE),
)
def guess_first(
    m: Model, cache: Cache, latest: Latest, ids: Ids, n_valid: Counts, slots: Counts, start: Counts
) -> tuple[VerifiedDraft, Latest, Cache]:
    """Run the first `n_valid` of T tokens of each row, and guess the next one.

    The guess becomes the latest token of its slot. Its log-probability is that among the likeliest `CANDIDATES`.
    """
    x, after = m.forward_last(cache.select(slots, start), ids, n_valid)
    guess, _ = m.head(_likeliest, x, blank=partial(_no_guess, len(ids)))
    return guess, with_rows(latest, guess.tokens, slots), cache.after(after)


@program(takes=(Kind.CACHE, Kind.LATEST, Kind.COUNTS, Kind.COUNTS), gives=(Kind.DRAFT, Kind.LATEST, Kind.CACHE))
def guess_next(
    m: Model, cache: Cache, latest: Latest, slots: Counts, positions: Counts
) -> tuple[VerifiedDraft, Latest, Cache]:
    """Run the latest guess of each of some slots, and guess the next one."""
    x, after = m.forward(cache.select(slots, positions), rows_of(latest, slots))
    guess, _ = m.head(_likeliest, x[:, 0], blank=partial(_no_guess, len(slots)))
    return guess, with_rows(latest, guess.tokens, slots), cache.after(after)


@program(takes=(Kind.CACHE, Kind.IDS, Kind.COUNTS, Kind.COUNTS), gives=(Kind.HIDDEN, Kind.CACHE))
def run_drafts(
    m: Model, cache: Cache, ids: Ids, slots: Counts, positions: Counts
) -> tuple[Float[Array, "B T D"], Cache]:
    """Run a token and a draft of each row; hidden states that `verify_slots` takes.

    Positions after the right part of a draft are unspecified: states that cannot go back cannot be drafted for.
    """
    x, after = m.forward(cache.select(slots, positions), ids)
    return x, cache.after(after)


@program(
    takes=(Kind.CHAINS, Kind.STATE, Kind.LATEST, Kind.COUNTS, Kind.HIDDEN, Kind.IDS, Kind.COUNTS),
    gives=(Kind.DRAFT, Kind.STATE, Kind.LATEST),
)
def verify_slots(
    m: Model,
    chains: PackedChain,
    states: SamplerState | None,
    latest: Latest,
    slots: Counts,
    x: Float[Array, "B T D"],
    ids: Ids,
    n_draft: Counts,
) -> tuple[VerifiedDraft, SamplerState | None, Latest]:
    """Sample after each token of a row while its draft is right.

    The sampler is that of the row's slot, whose latest token is the last sample. n_draft: drafted tokens of each row.
    """
    blank = partial(blank_draft, chains, *ids.shape, counted=True)
    draft, states = m.head(_verify_slots, slots, chains, states, x, ids, n_draft, blank=blank)
    last = jnp.take_along_axis(draft.tokens, jnp.maximum(draft.count, 1)[:, None] - 1, axis=1)
    return draft, states, with_rows(latest, last, slots)


def _likeliest(params: Params, config: Config, x: Float[Array, "B D"]) -> tuple[VerifiedDraft, None]:
    logits = all_gather(unembed_shard(params, config, x), config.axis)[:, : config.vocab_size]
    best, ids = lax.top_k(logits.astype(jnp.float32), min(CANDIDATES, config.vocab_size))
    return VerifiedDraft(ids[:, :1].astype(jnp.int32), jax.nn.log_softmax(best)[:, :1]), None


def _no_guess(batch: int) -> VerifiedDraft:
    return VerifiedDraft(jnp.zeros((batch, 1), jnp.int32), jnp.zeros((batch, 1), jnp.float32))


def _verify_slots(
    params: Params,
    config: Config,
    slots: Int[Array, "B"],
    chains: PackedChain,
    states: SamplerState,
    x: Float[Array, "B T D"],
    ids: Int[Array, "B T"],
    n_draft: Int[Array, "B"],
) -> tuple[VerifiedDraft, SamplerState]:
    own_chains, own_states = rows_of(chains, slots).unpack(), rows_of(states, slots)
    draft, after = one_by_one(verify_text, own_chains, unembed(params, config, x), own_states, ids, n_draft)
    return draft, with_rows(states, after, slots)
