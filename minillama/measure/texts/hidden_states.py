"""Batched forward passes: hidden states at a layer, and log-probabilities of tokens.

Texts of about the same length share a batch. They are padded at the end, which causal attention never reads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Float, Float32, Int, Int32
from minillama.engine.backends.chunked_logits import negative_log_likelihood, over_positions
from minillama.engine.backends.finite import check_finite
from minillama.engine.llm import LLM
from minillama.errors import OptionError
from minillama.model import Cache, Config, Params, empty_cache
from minillama.model.forward import embed_tokens, forward, run_layers
from minillama.model.layers.per_layer_embeddings import per_layer_embeddings

MIN_LENGTH = 32  # shorter texts are padded to this length


@dataclass(frozen=True)
class Continuation:
    """Token ids of a prompt and a text; the text begins at `start` >= 1."""

    ids: tuple[int, ...]
    start: int


def hidden_states(
    llm: LLM, texts: Sequence[Sequence[int]], layer: int | None = None
) -> list[Float32[np.ndarray, "_ D"]]:
    """Hidden states after a layer (`l_out` of `llm.trace`) for every token of each text: [tokens, D].

    layer: 1 to the number of layers, or None for `default_layer`. Later layers are not computed.
    Raises OptionError for a layer out of range and for a text that does not fit in the context, NonFiniteError for NaN
    and infinite states.
    """
    layer = default_layer(llm.config.block_count) if layer is None else layer
    if not 1 <= layer <= llm.config.block_count:
        raise OptionError(f"layer is {layer}; {llm.path.name} has layers 1 to {llm.config.block_count}")
    params = replace(llm.params, blocks=llm.params.blocks[:layer], output=None)
    found: list[np.ndarray] = [np.zeros((0, llm.config.embedding_length), np.float32)] * len(texts)
    for places, ids in _batches(llm, texts):
        layers = llm.config.layers[:layer]
        cache = empty_cache(llm.config, ids.shape[1], llm.cache_types, batch=ids.shape[0], layers=layers)
        states = np.asarray(_states(params, llm.config, ids, cache))
        for row, place in enumerate(places):
            check_finite(states[row, : len(texts[place])], "hidden states")
            found[place] = states[row, : len(texts[place])].copy()  # not a view that keeps the whole batch alive
    return found


def default_layer(layers: int) -> int:
    """The layer at two thirds of the depth.

    The last layers of a language model represent the next token more than the current one. BERTScore's default layers
    of its encoders, chosen by agreement with human judgement, are at about the same depth.
    """
    return max(1, round(2 * layers / 3))


def continuation_logprobs(llm: LLM, continuations: Sequence[Continuation]) -> list[Float32[np.ndarray, "_"]]:
    """Log-probabilities, in nats, of each token of the continuations.

    Raises OptionError for a text that does not fit in the context, NonFiniteError for NaN and infinite logits.
    """
    found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(continuations)
    for places, ids in _batches(llm, [continuation.ids for continuation in continuations]):
        cache = empty_cache(llm.config, ids.shape[1], llm.cache_types, batch=ids.shape[0])
        logprobs = np.asarray(_following(llm.params, llm.config, ids, cache))
        for row, place in enumerate(places):
            continuation = continuations[place]
            found[place] = logprobs[row, continuation.start - 1 : len(continuation.ids) - 1].copy()
            check_finite(found[place])
    return found


def _batches(llm: LLM, texts: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], Int32[np.ndarray, "B T"]]]:
    """Batches of padded rows, with the indices of their texts.

    A batch has about `ubatch_size` tokens. B and T are powers of two, so that few programs are compiled; rows without a
    text are zeros.
    """
    longest = max(map(len, texts), default=0)
    if longest > llm.ctx_size:
        raise OptionError(
            f"a text of {longest} tokens does not fit in a context of {llm.ctx_size}; raise ctx_size or shorten it"
        )
    waiting = sorted((place for place, text in enumerate(texts) if text), key=lambda place: len(texts[place]))
    while waiting:
        length = MIN_LENGTH
        while length < len(texts[waiting[-1]]):
            length *= 2
        rows = 1
        while rows < len(waiting) and 2 * rows * length <= llm.batches.ubatch_size:
            rows *= 2
        places, waiting = waiting[-rows:], waiting[:-rows]
        ids = np.zeros((rows, length), np.int32)
        for row, place in enumerate(places):
            ids[row, : len(texts[place])] = texts[place]
        llm.check_file()
        yield places, ids


@partial(jax.jit, static_argnames="config")
def _states(params: Params, config: Config, ids: Int[Array, "B T"], cache: Cache) -> Float[Array, "B T D"]:
    x = embed_tokens(params.token_embd, config, ids)
    own = per_layer_embeddings(params.per_layer, config, ids, x)
    return run_layers(params.blocks, config, x, cache, params.rope_factors, per_layer=own)[0]


@partial(jax.jit, static_argnames="config")
def _following(params: Params, config: Config, ids: Int[Array, "B T"], cache: Cache) -> Float[Array, "B T"]:
    """Log-probability of the next token per position; the last value of a row is meaningless."""
    hidden, _ = forward(params, config, ids, cache)
    return -over_positions(negative_log_likelihood, params, config, hidden, jnp.roll(ids, -1, axis=1))
