"""The programs of continuous batching: texts in the slots of one cache.

A cache of N slots never moves. A pass over B texts reads and writes the rows `slots` of it, and a sampler and a latest
token of each slot are kept where the model computes. A row that is slot N stands for no text: it pads B to a size that
is compiled already, and changes nothing.
"""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Int, UInt32
from minillama.engine.backends.programs.output_head import draw_tokens, first_state, logits_shard
from minillama.engine.backends.programs.program import Counts, Ids, Kind, Masks, Model, program
from minillama.engine.backends.programs.verified_draft import VerifiedDraft, blank_draft
from minillama.model import Cache, Config, Params
from minillama.sampling import SamplerState
from minillama.sampling.packed_chain import PackedChain

Tree = TypeVar("Tree")
Latest = Int[Array, "N 1"] | Int[np.ndarray, "N 1"]


@program(takes=(Kind.CACHE, Kind.IDS, Kind.COUNTS, Kind.COUNTS, Kind.COUNTS), gives=(Kind.HIDDEN, Kind.CACHE))
def prefill_slot(
    m: Model, cache: Cache, ids: Ids, n_valid: Counts, slot: Counts, start: Counts
) -> tuple[Float[Array, "1 1 D"], Cache]:
    """Run `n_valid` of T tokens of a slot; the last hidden state.

    start: the position of the first one.
    """
    x, after = m.forward_last(cache.select(slot, start), ids, n_valid)
    return x[:, None], cache.after(after)


@program(takes=(Kind.CACHE, Kind.LATEST, Kind.COUNTS, Kind.COUNTS), gives=(Kind.LOGITS, Kind.CACHE))
def decode_slots(
    m: Model, cache: Cache, latest: Latest, slots: Counts, positions: Counts
) -> tuple[Float[Array, "B V"], Cache]:
    """Run the latest token of each of some slots; logits after it."""
    x, after = m.forward(cache.select(slots, positions), rows_of(latest, slots))
    return m.head(logits_shard, x[:, 0])[1], cache.after(after)


@program(
    takes=(Kind.CHAINS, Kind.STATE, Kind.LATEST, Kind.COUNTS, Kind.LOGITS, Kind.MASKS),
    gives=(Kind.DRAFT, Kind.STATE, Kind.LATEST),
)
def draw_slots(
    m: Model,
    chains: PackedChain,
    states: SamplerState | None,
    latest: Latest,
    slots: Counts,
    logits: Float[Array, "B V"],
    allowed: Masks | None,
) -> tuple[VerifiedDraft, SamplerState | None, Latest]:
    """Sample a token of each row with its slot's sampler, as the latest one.

    allowed: bits of the tokens that each row may go on with, as of `sample`; None for all.
    """
    blank = partial(blank_draft, chains, len(slots), 1)
    draft, states = m.head(_draw_slots, slots, chains, states, logits, allowed, blank=blank)
    return draft, states, with_rows(latest, draft.tokens, slots)


@program(
    takes=(
        Kind.CHAINS, Kind.STATE, Kind.LATEST, Kind.CHAIN, Kind.SEEDS, Kind.WINDOW, Kind.COUNTS, Kind.COUNTS, Kind.IDS,
    ),
    gives=(Kind.CHAINS, Kind.STATE, Kind.LATEST),
)  # fmt: skip
def join_slot(
    m: Model,
    chains: PackedChain,
    states: SamplerState | None,
    latest: Latest,
    chain: PackedChain,
    seeds: UInt32[Array | np.ndarray, "1 624"],
    recent: Int[Array | np.ndarray, "1 W"],
    count: Counts,
    slot: Counts,
    token: Ids,
) -> tuple[PackedChain, SamplerState | None, Latest]:
    """Put a new sampler and a prompt's last token into a slot.

    The next step runs that token. recent: the tokens up to that one; the sampler sees the first `count` of them.
    """
    given = slot, chains, states, chain, seeds, recent, count
    kept = m.head(_join_slot, *given, blank=lambda: None)[1]
    chains, states = (chains, None) if kept is None else kept
    return chains, states, with_rows(latest, jnp.asarray(token), slot)


@program(takes=(Kind.CHAIN, Kind.STATIC), gives=(Kind.CHAINS, Kind.STATE), donates=False)
def new_samplers(m: Model, chain: PackedChain, slots: int) -> tuple[PackedChain, SamplerState]:
    """Samplers of the structure of a chain, one for each slot, until others join."""

    def for_each(leaf: Array) -> Array:
        return jnp.broadcast_to(leaf, (slots, *leaf.shape))

    recent = jnp.zeros(chain.window, jnp.int32)
    state = first_state(chain.unpack(), jnp.zeros(624, jnp.uint32), recent, jnp.int32(0))
    return jax.tree.map(for_each, chain), jax.tree.map(for_each, state)


@program(takes=(Kind.CACHE, Kind.COUNTS, Kind.COUNTS, Kind.COUNTS), gives=(Kind.CACHE,))
def copy_slot(m: Model, cache: Cache, source: Counts, target: Counts, count: Counts) -> Cache:
    """The cache with the first `count` tokens of a slot also in another one."""
    return cache.copy_row(*(jnp.asarray(number)[0] for number in (source, target, count)))


@program(takes=(Kind.CACHE, Kind.COUNTS, Kind.STATIC), gives=(Kind.SAVED,), donates=False)
def save_slot(m: Model, cache: Cache, slot: Counts, count: int) -> Cache:
    """A copy of `count` positions of a slot and of its other states."""
    return cache.take_row(jnp.asarray(slot)[0], count)


@program(takes=(Kind.CACHE, Kind.SAVED, Kind.COUNTS), gives=(Kind.CACHE,))
def load_slot(m: Model, cache: Cache, saved: Cache, slot: Counts) -> Cache:
    """The cache with a saved text in a slot."""
    return cache.put_row(saved, jnp.asarray(slot)[0])


@program(takes=(Kind.CACHE, Kind.COUNTS, Kind.COUNTS), gives=(Kind.CACHE,))
def slide_slot(m: Model, cache: Cache, slot: Counts, first: Counts) -> Cache:
    """The cache where the sliding windows of a slot begin at a position."""
    return cache.slide_row(jnp.asarray(slot)[0], jnp.asarray(first))


def _draw_slots(
    params: Params,
    config: Config,
    slots: Int[Array, "B"],
    chains: PackedChain,
    states: SamplerState,
    logits: Float[Array, "B R"],
    allowed: Masks | None,
) -> tuple[VerifiedDraft, SamplerState]:
    own_chains, own_states = rows_of(chains, slots), rows_of(states, slots)
    draft, after = draw_tokens(config, own_chains, own_states, logits, allowed)
    return draft, with_rows(states, after, slots)


def _join_slot(
    params: Params,
    config: Config,
    slot: Int[Array, "1"],
    chains: PackedChain,
    states: SamplerState,
    chain: PackedChain,
    seeds: UInt32[Array, "1 624"],
    recent: Int[Array, "1 W"],
    count: Int[Array, "1"],
) -> tuple[None, tuple[PackedChain, SamplerState]]:
    state = first_state(chain.unpack(), seeds[0], recent[0], count[0])
    chain, state = jax.tree.map(lambda leaf: leaf[None], (chain, state))
    return None, (with_rows(chains, chain, slot), with_rows(states, state, slot))


@jax.jit
def rows_of(tree: Tree, slots: Counts) -> Tree:
    """Rows of all arrays [N, ...]; the last row for slots outside."""
    return jax.tree.map(lambda leaf: jnp.take(leaf, slots, axis=0, mode="clip"), tree)


@jax.jit
def with_rows(tree: Tree, rows: Tree, slots: Counts) -> Tree:
    """All arrays [N, ...] with other rows in some slots; nothing for slots outside."""
    return jax.tree.map(lambda leaf, new: leaf.at[slots].set(new, mode="drop"), tree, rows)
