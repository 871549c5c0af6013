"""The programs of a model, defined once for all backends.

A program is a function of a model `m` (its parameters, or a device's share of them) and of values: caches, samplers,
token ids. It has a batch axis everywhere: B texts, with a length and a sampler state each. Each `Program` declares the
kinds of its arguments and results, by which a backend compiles it, shards it over devices, or sends it to workers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int, UInt32

from minillama.engine.backends.chunked_logits import negative_log_likelihood, over_positions
from minillama.model import Cache, Config, Params
from minillama.model.collectives import all_gather
from minillama.model.forward import forward, forward_last, unembed, unembed_shard
from minillama.sampling import Chain, SamplerState, sample
from minillama.sampling.packed_chain import PackedChain
from minillama.sampling.sampler_state import new_state
from minillama.sampling.sharded_sampling import sample_sharded, shardable_stages
from minillama.sampling.stages.top_tokens import TopTokens

Ids = Int[Array | np.ndarray, "B T"]
Counts = Int[Array | np.ndarray, "B"]
Masks = UInt32[Array | np.ndarray, "B words"]
Result = TypeVar("Result")

ARRAY = "array"  # stands in a message to workers for the next of its arrays


class Kind(Enum):
    """The kinds of values that programs take and give."""

    CACHE = auto()  # Cache
    SAVED = auto()  # Cache of one text, kept
    CHAIN = auto()  # PackedChain of samplers
    CHAINS = auto()  # PackedChain of each of N slots
    STATE = auto()  # SamplerState of B texts; None in a process without the output head
    LOGITS = auto()  # float32 [B, V]; sharded over the vocabulary where devices share the model
    HIDDEN = auto()  # float32 [B, T, D], on the device that has the output head
    NUMBERS = auto()  # float32, the same everywhere
    DRAFT = auto()  # VerifiedDraft
    IDS = auto()  # int32 [B, T]; or the tokens of a VerifiedDraft
    LATEST = auto()  # int32 [N, 1], the latest token of each slot
    COUNTS = auto()  # int32 [B] or [n], or None
    WINDOW = auto()  # int32 [B, W]
    SEEDS = auto()  # uint32 [B, 624]: the first words of the random numbers of B texts
    MASKS = auto()  # uint32 [B, ceil(V / 32)]: bits of the tokens that B texts may go on with; or None
    STATIC = auto()  # a Python int that the program is compiled for


class VerifiedDraft(NamedTuple):
    """Tokens sampled in one pass, and their log-probabilities before the sampling filters.

    count: tokens of each text that are there; None for all T. top: the likeliest tokens [B, T, n], where the chain
    reports them.
    """

    tokens: Int[Array, "B T"]
    logprobs: Float[Array, "B T"]
    count: Int[Array, "B"] | None = None
    top: TopTokens | None = None


@runtime_checkable
class Model(Protocol):
    """The local part of a model: all of it, a shard, or a pipeline stage."""

    config: Config

    def forward(
        self, cache: Cache, ids: Ids, valid: Counts | None = None, *, keeps: bool = False
    ) -> tuple[Float[Array, "B T D"], Cache]:
        """Run T tokens of each text; hidden states after the last norm.

        valid: tokens that count, None for all. keeps: whether `cache` is needed again, for `advance`.
        """

    def forward_last(self, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B D"], Cache]:
        """Run the first `n_valid` of T tokens; the hidden state of each text's last one."""

    def head(
        self, compute: Callable[..., tuple[Any, Any]], *args: Any, blank: Callable[[], Any] | None = None
    ) -> tuple[Any, Any]:
        """Call `compute(params, config, *args)` where the output head is.

        It gives a value that all processes get, of the same shapes as `blank()`, and one that stays there.
        """

    def advance(self, cache: Cache, after: Cache, ids: Ids, count: Int[Array, "B"]) -> Cache:
        """`after`, the cache after `ids`, but with only `count` tokens more than `cache`.

        States that cannot go back run these tokens again.
        """


@dataclass(frozen=True)
class Program:
    """A function of a model with the kinds of its arguments and results."""

    function: Callable[..., Any]
    takes: tuple[Kind, ...]
    gives: tuple[Kind, ...]
    donates: bool  # whether it takes over the memory of the caches and states that it is given

    @property
    def name(self) -> str:
        """Its name, also on the wire."""
        return self.function.__name__

    def positions(self, *kinds: Kind) -> tuple[int, ...]:
        """The places of its arguments of some kinds, not counting the model."""
        return tuple(place for place, kind in enumerate(self.takes) if kind in kinds)

    @property
    def donated(self) -> tuple[int, ...]:
        """The places of the arguments whose memory it takes over."""
        return self.positions(Kind.CACHE, Kind.STATE) if self.donates else ()


PROGRAMS: dict[str, Program] = {}


def program(
    *, takes: tuple[Kind, ...], gives: tuple[Kind, ...], donates: bool = True
) -> Callable[[Callable[..., Any]], Program]:
    """Declare a program."""

    def declare(function: Callable[..., Any]) -> Program:
        PROGRAMS[function.__name__] = Program(function, takes, gives, donates)
        return PROGRAMS[function.__name__]

    return declare


@program(takes=(Kind.CACHE, Kind.IDS, Kind.COUNTS), gives=(Kind.LOGITS, Kind.CACHE))
def prefill(m: Model, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B V"], Cache]:
    """Run the first `n_valid` of T tokens of each text; logits of the last one."""
    x, cache = m.forward_last(cache, ids, n_valid)
    return m.head(logits_shard, x)[1], cache


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
    draft, state = m.head(_verify, chain, state, x, ids, n_draft, blank=blank)
    return draft, state, m.advance(cache, after, ids, draft.count)


@program(
    takes=(Kind.CHAIN, Kind.SEEDS, Kind.WINDOW, Kind.COUNTS, Kind.LOGITS, Kind.MASKS), gives=(Kind.DRAFT, Kind.STATE)
)
def start(
    m: Model,
    chain: PackedChain,
    seeds: UInt32[Array | np.ndarray, "B 624"],
    recent: Int[Array | np.ndarray, "B W"],
    count: Counts,
    logits: Float[Array, "B V"],
    allowed: Masks | None,
) -> tuple[VerifiedDraft, SamplerState | None]:
    """Sample each text's first token, with a new sampler that has seen `count` tokens.

    seeds: the `seed_words` of each text. allowed: as of `sample`.
    One program, because each one costs a new process as much as a token.
    """
    blank = partial(blank_draft, chain, len(seeds), 1)
    return m.head(_start, chain, seeds, recent, count, logits, allowed, blank=blank)


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


@dataclass(frozen=True)
class WholeModel:
    """A model, or a device's shard of it, inside of one compiled program."""

    params: Params
    config: Config

    def forward(
        self, cache: Cache, ids: Ids, valid: Counts | None = None, *, keeps: bool = False
    ) -> tuple[Float[Array, "B T D"], Cache]:
        return forward(self.params, self.config, ids, cache, valid=valid)

    def forward_last(self, cache: Cache, ids: Ids, n_valid: Counts) -> tuple[Float[Array, "B D"], Cache]:
        return forward_last(self.params, self.config, ids, cache, n_valid)

    def head(self, compute: Callable[..., tuple[Any, Any]], *args: Any, blank: object = None) -> tuple[Any, Any]:
        return compute(self.params, self.config, *args)

    def advance(self, cache: Cache, after: Cache, ids: Ids, count: Int[Array, "B"]) -> Cache:
        if self.config.is_recurrent:
            return self.forward_last(cache, ids, count)[1]
        return replace(after, length=cache.length + count)


def logits_shard(params: Params, config: Config, x: Float[Array, "B D"]) -> tuple[None, Float[Array, "B R"]]:
    """Logits that stay where the output head is; this device's R rows of the vocabulary."""
    return None, unembed_shard(params, config, x)


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
    logits: Float[Array, "B R"],
    allowed: Masks | None,
) -> tuple[VerifiedDraft, SamplerState]:
    state = each_text(partial(first_state, packed.unpack()), seeds, recent, count)
    return draw_tokens(config, _for_each(packed, len(logits)), state, logits, allowed)


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


def _for_each(chain: PackedChain, batch: int) -> PackedChain:
    """The same chain for each text."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (batch, *leaf.shape)), chain)


def first_state(
    chain: Chain, words: UInt32[Array, "624"], recent: Int[Array, "W"], count: Int[Array, ""]
) -> SamplerState:
    """The state of a new sampler that has seen `count` tokens; words: of `seed_words`."""
    return chain.accept_many(new_state(words, chain.window, chain.sampler.initial_mu()), recent, count)


def _verify(
    params: Params,
    config: Config,
    chain: PackedChain,
    state: SamplerState,
    x: Float[Array, "B T D"],
    ids: Int[Array, "B T"],
    n_draft: Int[Array, "B"],
) -> tuple[VerifiedDraft, SamplerState]:
    """Sample position after position of each text until a sample differs from the draft."""
    verify = partial(_verify_text, chain.unpack())
    return one_by_one(verify, unembed(params, config, x), state, ids, n_draft)


def _verify_text(
    chain: Chain, logits: Float[Array, "T V"], state: SamplerState, ids: Int[Array, "T"], n_draft: Int[Array, ""]
) -> tuple[VerifiedDraft, SamplerState]:
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


def blank_draft(chain: PackedChain, batch: int, tokens: int, *, counted: bool = False) -> VerifiedDraft:
    """Arrays of the shapes of a draft, in processes without the output head."""
    shape, report = (batch, tokens), chain.unpack().report
    count = jnp.zeros(batch, jnp.int32) if counted else None
    top = None if report is None else report.blank(batch, tokens)
    return VerifiedDraft(jnp.zeros(shape, jnp.int32), jnp.zeros(shape), count, top)


def each_text(function: Callable[..., Result], *batched: Any) -> Result:
    """`function` of each text; a single one runs without the cost of `vmap`."""
    return jax.vmap(function)(*batched) if _batch_size(batched) > 1 else _alone(function, batched)


def one_by_one(function: Callable[..., Result], *batched: Any) -> Result:
    """`function` of one text after another.

    A branch that a text does not take costs it nothing.
    """
    return lax.map(lambda text: function(*text), batched) if _batch_size(batched) > 1 else _alone(function, batched)


def _alone(function: Callable[..., Result], batched: tuple[Any, ...]) -> Result:
    result = function(*jax.tree.map(lambda leaf: leaf[0], batched))
    return jax.tree.map(lambda leaf: jnp.expand_dims(leaf, 0), result)


def _batch_size(batched: tuple[Any, ...]) -> int:
    return len(jax.tree.leaves(batched)[0])
