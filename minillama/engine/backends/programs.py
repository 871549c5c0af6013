"""What is compiled: reading a chunk of the prompt, and one token's step with its sampling on the device.

On one device a step is one program. With layers on several, the same functions run device by device. Ids come as
numpy's, for `jnp.asarray` would trace a program to place them, which a command that starts would wait for.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int, UInt32

from minillama.engine.backends.chunked_logits import negative_log_likelihood, over_positions
from minillama.engine.backends.packed_params import Packed
from minillama.engine.compile.executable_cache import program
from minillama.engine.loading.layer_placement import Placement
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.kernels import Weight
from minillama.model import Cache, Config, Params, Store, empty_cache, forward, grow, unembed
from minillama.model.forward import embed_tokens, final_norm, forward_last, run_blocks
from minillama.model.params import Block
from minillama.sampling import Chain, SamplerState, logprob
from minillama.sampling.sampler_state import new_state


class Choice(NamedTuple):
    """A sampled token and its log-probability before the filters."""

    token: Int[Array, ""]
    logprob: Float[Array, ""]


class Run(NamedTuple):
    """Tokens sampled in one pass over a draft, of which the first `count` are there, and their log-probabilities."""

    tokens: Int[Array, "T"]
    logprobs: Float[Array, "T"]
    count: Int[Array, ""]


def read(
    weights: Packed, config: Config, placement: Placement, ids: Int[np.ndarray, "1 T"], valid: int, cache: Cache
) -> tuple[Float[Array, "V"], Cache]:
    """Run a chunk of T tokens, of which the first `valid` count; logits of the last of these."""
    count = np.asarray(valid, np.int32)
    if placement.single is not None:
        return _read(weights, config, ids, count, cache)
    params = weights.unpack()
    hidden, after = _across(params, config, placement, ids, cache)
    return last_logits(head_of(params), config, hidden, count), replace(after, length=cache.length + count)


def run(
    weights: Packed, config: Config, placement: Placement, ids: Int[np.ndarray, "B T"], cache: Cache
) -> tuple[Float[Array, "B T D"], Cache]:
    """Run a chunk of T tokens of each of B texts; hidden states, normed and ready for the head (`head_of`)."""
    if placement.single is not None:
        return _run(weights, config, ids, cache)
    return _across(weights.unpack(), config, placement, ids, cache)


def read_temporaries(weights: Packed, config: Config, placement: Placement, size: int, cache: Cache) -> int | None:
    """Bytes of temporaries in the program that reads a chunk of that size; None with layers on several devices, and
    where the backend does not tell."""
    if placement.single is None:
        return None
    arrays, weights_structure = jax.tree.flatten(weights)
    stores, cache_structure = jax.tree.flatten(cache)
    ids, count = jax.ShapeDtypeStruct((1, size), jnp.int32), np.asarray(size, np.int32)
    lowered = _read_flat.lower(config, weights_structure, cache_structure, arrays, stores, ids, count)
    stats = lowered.compile().memory_analysis()
    return None if stats is None else stats.temp_size_in_bytes


def read_all(
    weights: Packed, config: Config, placement: Placement, ids: Int[np.ndarray, "1 T"], cache: Cache
) -> tuple[Float[Array, "T V"], Cache]:
    """Run a chunk and give the logits of every position."""
    if placement.single is not None:
        return _read_all(weights, config, ids, cache)
    params = weights.unpack()
    hidden, cache = _across(params, config, placement, ids, cache)
    return all_logits(head_of(params), config, hidden), cache


def decode(
    weights: Packed, config: Config, placement: Placement, ids: Int[np.ndarray, "1 1"], cache: Cache
) -> tuple[Float[Array, "V"], Cache]:
    """Run one token without sampling; the logits after it."""
    if placement.single is not None:
        return _decode(weights, config, ids, cache)
    params = weights.unpack()
    hidden, cache = _across(params, config, placement, ids, cache)
    return last_logits(head_of(params), config, hidden, jnp.int32(1)), cache


def step(
    weights: Packed,
    config: Config,
    placement: Placement,
    chain: Chain,
    state: SamplerState,
    token: Int[Array, ""],
    cache: Cache,
) -> tuple[Choice, SamplerState, Cache]:
    """Run one token and sample the next."""
    if placement.single is not None:
        return _step(weights, config, chain, state, token, cache)
    params = weights.unpack()
    hidden, cache = _across(params, config, placement, token.reshape(1, 1), cache)
    logits = last_logits(head_of(params), config, hidden, jnp.int32(1))
    choice, state = choose(chain, state, logits)
    return choice, state, cache


def verify(
    weights: Packed,
    config: Config,
    placement: Placement,
    chain: Chain,
    state: SamplerState,
    ids: Int[np.ndarray, "1 T"],
    drafted: Int[np.ndarray, ""],
    cache: Cache,
) -> tuple[Run, SamplerState, Cache]:
    """Run a token, a draft of what follows it and padding; sample behind each, for as long as the draft is right.

    The cache holds the token and the right part of the draft afterwards, the state is the one after the last sample:
    as if the tokens had been run one by one (Leviathan et al. 2023, with the target's own samples in place of a test
    of probabilities).
    """
    if placement.single is not None:
        return _verify(weights, config, chain, state, ids, drafted, cache)
    params = weights.unpack()
    hidden, after = _across(params, config, placement, ids, cache)
    logits = all_logits(head_of(params), config, hidden)
    run, state = choose_run(chain, state, logits, ids, drafted)
    held = jax.device_put(run.count, placement.devices[0])
    return run, state, replace(after, length=cache.length + held)


@partial(jax.jit, static_argnames=("config", "first"))
def score(
    head: Params, config: Config, hidden: Float[Array, "B S D"], targets: Int[Array, "B T"], first: int
) -> Float[Array, "B T"]:
    """The negative log-likelihood of each target behind its hidden state, the first of which is number `first`."""
    scored = lax.slice_in_dim(hidden, first, first + targets.shape[1], axis=1)
    return over_positions(negative_log_likelihood, head, config, scored, targets)


@partial(jax.jit, donate_argnames="state")
def choose(chain: Chain, state: SamplerState, logits: Float[Array, "V"]) -> tuple[Choice, SamplerState]:
    """Sample from logits."""
    return sample(chain, state, logits)


@program()
def begin(
    chain: Chain,
    seed: UInt32[Array, ""],
    recent: Int[Array, "W"],
    count: Int[Array, ""],
    logits: Float[Array, "V"],
) -> tuple[Choice, SamplerState]:
    """Sample the first token, with a new sampler that has seen the first `count` of the prompt's recent tokens.

    One program, for each one costs a new process as much as a token.
    """
    return sample(chain, first_state(chain, seed, recent, count), logits)


def first_state(chain: Chain, seed: UInt32[Array, ""], recent: Int[Array, "W"], count: Int[Array, ""]) -> SamplerState:
    """A new sampler that has seen the first `count` tokens; part of a program."""
    return chain.accept_many(new_state(seed, chain.window, chain.sampler.initial_mu()), recent, count)


def sample(chain: Chain, state: SamplerState, logits: Float[Array, "V"]) -> tuple[Choice, SamplerState]:
    """Draw a token; part of a program."""
    token, state = chain(logits, state)
    return Choice(token, logprob(logits, token)), state


def new_cache(config: Config, placement: Placement, capacity: int, types: CacheTypes, batch: int = 1) -> Cache:
    """An empty cache, each layer's part on the device that computes the layer."""
    cache, layers = empty_cache(config, capacity, types, batch), placement.devices[:-1]
    return Cache(
        tuple(jax.device_put(k, device) for k, device in zip(cache.keys, layers, strict=True)),
        tuple(jax.device_put(v, device) for v, device in zip(cache.values, layers, strict=True)),
        jax.device_put(cache.length, layers[0]),
    )


@partial(jax.jit, static_argnames="capacity")
def enlarge(cache: Cache, capacity: int) -> Cache:
    """Give a cache more room."""
    return grow(cache, capacity)


@program(static=["config"], donate=["cache"])
def _read(
    weights: Packed, config: Config, ids: Int[Array, "1 T"], valid: Int[Array, ""], cache: Cache
) -> tuple[Float[Array, "V"], Cache]:
    params = weights.unpack()
    hidden, cache = forward_last(params, config, ids, cache, valid)
    return unembed(params, config, hidden[0]), cache


@partial(jax.jit, static_argnames="config", donate_argnames="cache")
def _run(weights: Packed, config: Config, ids: Int[Array, "B T"], cache: Cache) -> tuple[Float[Array, "B T D"], Cache]:
    params = weights.unpack()
    return forward(params, config, ids, cache)


@partial(jax.jit, static_argnames=("config", "weights_structure", "cache_structure"), donate_argnames="stores")
def _read_flat(
    config: Config,
    weights_structure: jax.tree_util.PyTreeDef,
    cache_structure: jax.tree_util.PyTreeDef,
    arrays: list[Array],
    stores: list[Array],
    ids: Int[Array, "1 T"],
    valid: Int[Array, ""],
) -> tuple[Float[Array, "V"], Cache]:
    """`_read` for `lower`, which rebuilds the arguments' trees with leaves that are no arrays."""
    weights, cache = jax.tree.unflatten(weights_structure, arrays), jax.tree.unflatten(cache_structure, stores)
    return _read.jitted(weights, config, ids, valid, cache)


@partial(jax.jit, static_argnames="config", donate_argnames="cache")
def _read_all(
    weights: Packed, config: Config, ids: Int[Array, "1 T"], cache: Cache
) -> tuple[Float[Array, "T V"], Cache]:
    params = weights.unpack()
    hidden, cache = forward(params, config, ids, cache)
    return unembed(params, config, hidden[0]), cache


@partial(jax.jit, static_argnames="config", donate_argnames="cache")
def _decode(weights: Packed, config: Config, ids: Int[Array, "1 1"], cache: Cache) -> tuple[Float[Array, "V"], Cache]:
    params = weights.unpack()
    hidden, cache = forward(params, config, ids, cache)
    return unembed(params, config, hidden[0, 0]), cache


@program(static=["config"], donate=["state", "cache"])
def _step(
    weights: Packed, config: Config, chain: Chain, state: SamplerState, token: Int[Array, ""], cache: Cache
) -> tuple[Choice, SamplerState, Cache]:
    params = weights.unpack()
    hidden, cache = forward(params, config, token.reshape(1, 1), cache)
    logits = unembed(params, config, hidden[0, 0])
    choice, state = sample(chain, state, logits)
    return choice, state, cache


@program(static=["config"], donate=["state", "cache"])
def _verify(
    weights: Packed,
    config: Config,
    chain: Chain,
    state: SamplerState,
    ids: Int[Array, "1 T"],
    drafted: Int[Array, ""],
    cache: Cache,
) -> tuple[Run, SamplerState, Cache]:
    params = weights.unpack()
    hidden, after = forward(params, config, ids, cache)
    run, state = sample_along(chain, state, unembed(params, config, hidden[0]), ids, drafted)
    return run, state, replace(after, length=cache.length + run.count)


@partial(jax.jit, donate_argnames="state")
def choose_run(
    chain: Chain, state: SamplerState, logits: Float[Array, "T V"], ids: Int[Array, "1 T"], drafted: Int[Array, ""]
) -> tuple[Run, SamplerState]:
    """Sample behind each token for as long as the draft is right."""
    return sample_along(chain, state, logits, ids, drafted)


def sample_along(
    chain: Chain, state: SamplerState, logits: Float[Array, "T V"], ids: Int[Array, "1 T"], drafted: Int[Array, ""]
) -> tuple[Run, SamplerState]:
    """Sample position after position, the state threaded through, until a sample is not what was drafted."""
    following = jnp.append(ids[0, 1:], jnp.int32(0))  # the last one is never compared

    def right(carry: tuple[Run, Bool[Array, ""], SamplerState]) -> Bool[Array, ""]:
        return carry[1]

    def sample_next(
        carry: tuple[Run, Bool[Array, ""], SamplerState],
    ) -> tuple[Run, Bool[Array, ""], SamplerState]:
        run, _, state = carry
        here = run.count
        token, state = chain(logits[here], state)
        tokens = run.tokens.at[here].set(token)
        logprobs = run.logprobs.at[here].set(logprob(logits[here], token))
        goes_on = (here < drafted) & (token == following[here])
        return Run(tokens, logprobs, here + 1), goes_on, state

    size = ids.shape[1]
    nothing = Run(jnp.zeros(size, jnp.int32), jnp.zeros(size, jnp.float32), jnp.int32(0))
    run, _, state = lax.while_loop(right, sample_next, (nothing, jnp.bool_(True), state))
    return run, state


def _across(
    params: Params, config: Config, placement: Placement, ids: Int[Array | np.ndarray, "B T"], cache: Cache
) -> tuple[Float[Array, "B T D"], Cache]:
    """The forward pass device by device: activations travel between them, each layer's cache stays with it."""
    first, last = placement.devices[0], placement.devices[-1]
    x = embed_ids(params.token_embd, config, jax.device_put(ids, first))
    keys: list[Store] = []
    values: list[Store] = []
    for segment in placement.segments():
        here = slice(segment.first, segment.last)
        x, length, factors = jax.device_put((x, cache.length, params.rope_factors), segment.device)
        stores = cache.keys[here], cache.values[here]
        x, part = run_segment(params.blocks[here], config, x, stores, length, factors, segment.first)
        keys += part.keys
        values += part.values
    length = cache.length + jnp.int32(ids.shape[1])
    return normed(head_of(params), config, jax.device_put(x, last)), Cache(tuple(keys), tuple(values), length)


def head_of(params: Params) -> Params:
    """What `unembed` and the last device need: norm and head, with nothing of other devices in it."""
    table = params.token_embd if params.output is None else params.output.weight
    return replace(params, token_embd=table, blocks=(), rope_factors=None)


@partial(jax.jit, static_argnames="config")
def embed_ids(token_embd: Weight, config: Config, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """Embeddings of tokens."""
    return embed_tokens(token_embd, config, ids)


@partial(jax.jit, static_argnames=("config", "first"), donate_argnames="stores")
def run_segment(
    blocks: tuple[Block, ...],
    config: Config,
    x: Float[Array, "B T D"],
    stores: tuple[tuple[Store, ...], tuple[Store, ...]],
    length: Int[Array, "B"],
    factors: Array | None,
    first: int,
) -> tuple[Float[Array, "B T D"], Cache]:
    """Some consecutive layers, the first of which is number `first`, and their cache."""
    return run_blocks(blocks, config, x, Cache(*stores, length), factors, first)


@partial(jax.jit, static_argnames="config")
def normed(head: Params, config: Config, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The norm before the head."""
    return final_norm(head, config, x)


@partial(jax.jit, static_argnames="config")
def last_logits(
    head: Params, config: Config, hidden: Float[Array, "1 T D"], valid: Int[Array, ""]
) -> Float[Array, "V"]:
    """Logits behind the last of the first `valid` tokens."""
    return unembed(head, config, lax.dynamic_index_in_dim(hidden[0], valid - 1, keepdims=False))


@partial(jax.jit, static_argnames="config")
def all_logits(head: Params, config: Config, hidden: Float[Array, "1 T D"]) -> Float[Array, "T V"]:
    """Logits behind every token."""
    return unembed(head, config, hidden[0])
