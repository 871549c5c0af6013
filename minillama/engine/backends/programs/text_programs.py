"""The programs of a session: texts that begin, go on and are measured together.

`slot_programs` has those of continuous batching.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from minillama.array_types import Float, Int, UInt32
from minillama.engine.backends.chunked_logits import negative_log_likelihood, over_positions
from minillama.engine.backends.programs.each_text import each_text
from minillama.engine.backends.programs.output_head import draw_tokens, first_state, logits_shard
from minillama.engine.backends.programs.program import Counts, Ids, Kind, Masks, Model, program
from minillama.engine.backends.programs.verified_draft import VerifiedDraft, blank_draft, verify_draft
from minillama.model import Cache, Config, Params
from minillama.model.forward import unembed, unembed_shard
from minillama.sampling import SamplerState
from minillama.sampling.packed_chain import PackedChain


@program(takes=(Kind.CACHE, Kind.IDS, Kind.COUNTS), gives=(Kind.LOGITS, Kind.CACHE))
def prefill(m: Model, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B V"], Cache]:
    """Run the first `n_valid` of T tokens of each text; logits of the last one."""
    x, cache = m.forward_last(cache, ids, n_valid)
    return m.head(logits_shard, x)[1], cache


@program(takes=(Kind.CACHE, Kind.IDS, Kind.COUNTS), gives=(Kind.HIDDEN, Kind.CACHE))
def read(m: Model, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B 1 D"], Cache]:
    """Run the first `n_valid` of T tokens of each text; its last hidden state."""
    x, cache = m.forward_last(cache, ids, n_valid)
    return x[:, None], cache


@program(takes=(Kind.CACHE, Kind.IDS, Kind.COUNTS), gives=(Kind.HIDDEN, Kind.CACHE))
def hidden(m: Model, cache: Cache, ids: Ids, valid: Counts | None) -> tuple[Float[Array, "B T D"], Cache]:
    """Run a chunk; hidden states, normed and ready for the output head.

    valid: tokens of each text that count; None for all.
    """
    return m.forward(cache, ids, valid)


@program(takes=(Kind.HIDDEN,), gives=(Kind.NUMBERS,))
def logits(m: Model, states: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits of hidden states."""
    shape = (*states.shape[:2], m.config.vocab_size)
    return m.head(_logits, states, blank=lambda: jnp.zeros(shape))[0]


@program(takes=(Kind.HIDDEN, Kind.IDS, Kind.STATIC), gives=(Kind.NUMBERS,))
def nll(m: Model, states: Float[Array, "B S D"], targets: Ids, first: int) -> Float[Array, "B T"]:
    """Negative log-likelihood of targets in nats, after hidden states from number `first` on."""
    states = lax.slice_in_dim(states, first, first + targets.shape[1], axis=1)
    return m.head(_nll, states, targets, blank=lambda: jnp.zeros(targets.shape))[0]


@program(
    takes=(Kind.CACHE, Kind.CHAIN, Kind.STATE, Kind.IDS, Kind.COUNTS, Kind.MASKS),
    gives=(Kind.DRAFT, Kind.STATE, Kind.CACHE),
)
def generate(
    m: Model,
    cache: Cache,
    chain: PackedChain,
    state: SamplerState | None,
    ids: Ids,
    n_draft: Counts | None,
    allowed: Masks | None,
) -> tuple[VerifiedDraft, SamplerState | None, Cache]:
    """Run a token and a draft; sample after each token while the draft is right.

    The cache then holds the token and the right part of the draft, and the state is the one after the last sample, as
    if the tokens had been run one by one (Leviathan et al. 2023, with the target's own samples in place of a test of
    probabilities). n_draft: None for no draft; T is 1 then. allowed: as of `sample`; there is no draft then.
    """
    x, after = m.forward(cache, ids, keeps=n_draft is not None)
    blank = partial(blank_draft, chain, *ids.shape, counted=n_draft is not None)
    if n_draft is None:
        draft, state = m.head(_sample, chain, state, x, allowed, blank=blank)
        return draft, state, after
    draft, state = m.head(verify_draft, chain, state, x, ids, n_draft, blank=blank)
    return draft, state, m.advance(cache, after, ids, draft.count)


@program(takes=(Kind.CHAIN, Kind.SEEDS, Kind.WINDOW, Kind.COUNTS), gives=(Kind.STATE,))
def start(
    m: Model,
    chain: PackedChain,
    seeds: UInt32[Array | np.ndarray, "B 624"],
    recent: Int[Array | np.ndarray, "B W"],
    count: Counts,
) -> SamplerState | None:
    """A new sampler of each text, which has seen `count` tokens.

    seeds: the `seed_words` of each text.
    """
    return m.head(_start, chain, seeds, recent, count, blank=lambda: None)[1]


@program(takes=(Kind.CACHE, Kind.STATIC), gives=(Kind.CACHE,), donates=False)
def resize(m: Model, cache: Cache, capacity: int) -> Cache:
    """The same cache with more room."""
    return cache.resize(capacity)


@program(takes=(Kind.CACHE, Kind.COUNTS), gives=(Kind.CACHE,), donates=False)
def gather_rows(m: Model, cache: Cache, rows: Counts) -> Cache:
    """The texts with these numbers, in this order; a text may occur several times."""
    return cache.gather_rows(rows)


@program(takes=(Kind.CACHE, Kind.COUNTS), gives=(Kind.CACHE,))
def slide(m: Model, cache: Cache, first: Counts) -> Cache:
    """The cache whose sliding windows begin at these positions."""
    return cache.slide(first)


def _logits(params: Params, config: Config, x: Float[Array, "B T D"]) -> tuple[Float[Array, "B T V"], None]:
    return unembed(params, config, x), None


def _nll(
    params: Params, config: Config, x: Float[Array, "B T D"], targets: Int[Array, "B T"]
) -> tuple[Float[Array, "B T"], None]:
    return over_positions(negative_log_likelihood, params, config, x, targets), None


def _sample(
    params: Params,
    config: Config,
    chain: PackedChain,
    state: SamplerState,
    x: Float[Array, "B 1 D"],
    allowed: Masks | None,
) -> tuple[VerifiedDraft, SamplerState]:
    logits = unembed_shard(params, config, x[:, 0])
    return draw_tokens(config, _for_each(chain, len(logits)), state, logits, allowed)


def _start(
    params: Params,
    config: Config,
    packed: PackedChain,
    seeds: UInt32[Array, "B 624"],
    recent: Int[Array, "B W"],
    count: Int[Array, "B"],
) -> tuple[None, SamplerState]:
    return None, each_text(partial(first_state, packed.unpack()), seeds, recent, count)


def _for_each(chain: PackedChain, batch: int) -> PackedChain:
    """The same chain for each text."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape)), chain)
