"""Checks of the numbers in a leader's calls on slots; see `remote_checks`.

A slot may be one more than the last: a row that stands for no text. The lengths of texts in slots are the leader's.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from minillama.array_types import Int, Shaped
from minillama.engine.backends.remote_calls.remote_checks import (
    MOST_TEXTS,
    HeldCache,
    check_each,
    check_masks,
    check_new_cache,
    check_shape,
    check_tokens,
    check_within,
    in_range,
)
from minillama.model import Config
from minillama.sampling import SamplerState
from minillama.sampling.mersenne_twister import WORDS
from minillama.sampling.packed_chain import PackedChain

MOST_SLOTS = 4096  # of samplers: each may hold a number for every token of the vocabulary

Numbers = Int[np.ndarray, "_"]  # of texts, slots or rows


def _prefill_slot(
    config: Config, cache: HeldCache, ids: Any, n_valid: Numbers, slot: Numbers, start: Numbers
) -> Numbers:
    check_tokens(config, ids, 1)
    check_each(n_valid, "valid", 1, 1, ids.shape[1])
    check_each(slot, "slot", 1, 0, cache.batch)
    check_each(start, "start", 1, 0, cache.capacity - ids.shape[1])
    return cache.lengths


def _decode_slots(config: Config, cache: HeldCache, latest: Any, slots: Numbers, positions: Numbers) -> Numbers:
    _latest(config, latest, cache.batch)
    _slots(slots, cache.batch)
    check_each(positions, "position", len(slots), 0, cache.capacity - 1)
    return cache.lengths


def _draw_slots(
    config: Config,
    chains: PackedChain,
    states: SamplerState | None,
    latest: Any,
    slots: Numbers,
    logits: jax.Array,
    allowed: Any,
) -> None:
    _samplers(config, chains, states, latest)
    _slots(slots, latest.shape[0])
    _logits(logits, len(slots))
    check_masks(config, allowed, len(slots))


def _join_slot(
    config: Config,
    chains: PackedChain,
    states: SamplerState | None,
    latest: Any,
    chain: PackedChain,
    seeds: Shaped[np.ndarray, "n words"],
    recent: Int[np.ndarray, "n W"],
    count: Numbers,
    slot: Numbers,
    token: Any,
) -> None:
    _samplers(config, chains, states, latest)
    _same_arrays(chains, chain)
    check_shape(seeds, "seeds", (1, WORDS))
    check_shape(recent, "recent", (1, chain.window))
    check_within(recent, "a recent token", 0, config.vocab_size - 1)
    check_each(count, "count", 1, 0, chain.window)
    check_each(slot, "slot", 1, 0, latest.shape[0])
    check_tokens(config, token, 1)
    in_range(token.shape[1], "tokens", 1, 1)


def _guess_first(
    config: Config, cache: HeldCache, latest: Any, ids: Any, n_valid: Numbers, slots: Numbers, start: Numbers
) -> Numbers:
    rows = _run_drafts(config, cache, ids, slots, start)
    _latest(config, latest, cache.batch)
    check_each(n_valid, "valid", len(slots), 1, ids.shape[1])
    return rows


def _run_drafts(config: Config, cache: HeldCache, ids: Any, slots: Numbers, positions: Numbers) -> Numbers:
    _slots(slots, cache.batch)
    check_tokens(config, ids, len(slots))
    check_each(positions, "position", len(slots), 0, cache.capacity - ids.shape[1])
    return cache.lengths


def _verify_slots(
    config: Config,
    chains: PackedChain,
    states: SamplerState | None,
    latest: Any,
    slots: Numbers,
    hidden: jax.Array,
    ids: Any,
    n_draft: Numbers,
) -> None:
    _samplers(config, chains, states, latest)
    _slots(slots, latest.shape[0])
    check_tokens(config, ids, len(slots))
    check_shape(hidden, "hidden states", (*ids.shape, config.embedding_length))
    check_each(n_draft, "draft", len(slots), 0, ids.shape[1] - 1)


def _new_samplers(config: Config, chain: PackedChain, slots: int) -> None:
    in_range(slots, "slots", 1, MOST_SLOTS)


def _copy_slot(config: Config, cache: HeldCache, source: Numbers, target: Numbers, count: Numbers) -> Numbers:
    check_each(source, "source", 1, 0, cache.batch)
    check_each(target, "target", 1, 0, cache.batch)
    check_each(count, "count", 1, 0, cache.capacity)
    return cache.lengths


def _save_slot(config: Config, cache: HeldCache, slot: Numbers, count: int) -> Numbers:
    check_each(slot, "slot", 1, 0, cache.batch)
    in_range(count, "count", 1, cache.capacity)
    check_new_cache(config, count, cache.types, 1, cache.chunk)
    return np.zeros(1, np.int32)


def _load_slot(config: Config, cache: HeldCache, saved: HeldCache, slot: Numbers) -> Numbers:
    in_range(saved.batch, "saved texts", 1, 1)
    in_range(saved.capacity, "saved positions", 1, cache.capacity)
    if (saved.types, saved.chunk) != (cache.types, cache.chunk):
        raise ValueError("a saved text of another kind of cache")
    check_each(slot, "slot", 1, 0, cache.batch)
    return cache.lengths


def _slide_slot(config: Config, cache: HeldCache, slot: Numbers, first: Numbers) -> Numbers:
    check_each(slot, "slot", 1, 0, cache.batch)
    check_each(first, "first", 1, 0, cache.capacity)
    return cache.lengths


SLOT_CHECKS: Mapping[str, Callable[..., Numbers | None]] = {
    "prefill_slot": _prefill_slot,
    "decode_slots": _decode_slots,
    "draw_slots": _draw_slots,
    "guess_first": _guess_first,
    "guess_next": _decode_slots,
    "run_drafts": _run_drafts,
    "verify_slots": _verify_slots,
    "join_slot": _join_slot,
    "new_samplers": _new_samplers,
    "copy_slot": _copy_slot,
    "save_slot": _save_slot,
    "load_slot": _load_slot,
    "slide_slot": _slide_slot,
}


def _latest(config: Config, latest: Any, slots: int) -> None:
    """A token of each slot; those that were sampled here are of the vocabulary."""
    check_shape(latest, "the latest tokens", (slots, 1))
    if isinstance(latest, np.ndarray):
        check_within(latest, "a token", 0, config.vocab_size - 1)


def _logits(logits: jax.Array, rows: int) -> None:
    if logits.ndim != 2 or logits.shape[0] != rows:
        raise ValueError(f"logits of shape {logits.shape} for {rows} rows")


def _slots(slots: Numbers, count: int) -> None:
    check_each(slots, "slot", in_range(len(slots), "rows", 1, MOST_TEXTS), 0, count)


def _samplers(config: Config, chains: PackedChain, states: SamplerState | None, latest: Any) -> None:
    """Samplers of the slots of `latest`; no states in stages that do not sample."""
    _latest(config, latest, latest.shape[0])
    if states is not None:
        check_shape(states.recent, "the windows of samplers", (latest.shape[0], chains.window))
        in_range(min(leaf.shape[0] for leaf in jax.tree.leaves((chains, states))), "samplers", *2 * latest.shape[:1])


def _same_arrays(chains: PackedChain, chain: PackedChain) -> None:
    """Raise ValueError where a chain does not belong to these."""
    (all_leaves, structure), (leaves, own) = jax.tree.flatten(chains), jax.tree.flatten(chain)
    if structure != own or any(many.shape[1:] != one.shape for many, one in zip(all_leaves, leaves, strict=True)):
        raise ValueError("a chain of another structure than those of the slots")
