"""The router of a mixture of experts: experts of each token, tokens of each expert."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Bool, Float, Int
from minillama.kernels import RowGroups
from minillama.model.architectures import Gating
from minillama.model.config import Config, Experts
from minillama.model.norm import rms_norm
from minillama.model.params import Block

LEAST_SUM = 6.103515625e-5  # of weights that are normalised: the smallest normal float16, as in llama.cpp


def route(p: Block, config: Config, h: Float[Array, "T D"]) -> tuple[Float[Array, "T U"], Int[Array, "T U"]]:
    """Weights and numbers of the U experts that each token uses.

    h: what the router reads; with `ffn_gate_inp_scale`, it is normed here (Gemma 4).
    The bias `exp_probs_b` has a part in the choice only (DeepSeek-V3, arXiv:2412.19437).
    """
    experts = config.experts
    if p.ffn_gate_inp_scale is not None:
        h = rms_norm(h, p.ffn_gate_inp_scale, config.layer_norm_rms_epsilon) / math.sqrt(h.shape[-1])
    logits = p.ffn_gate_inp(h)
    probabilities = _probabilities(logits, experts.gating)
    scores = probabilities if p.exp_probs_b is None else probabilities + p.exp_probs_b[None]
    if experts.groups > 1:
        scores = in_best_groups(scores, experts)
    _, chosen = lax.top_k(scores, experts.used)
    weights = jnp.take_along_axis(probabilities, chosen, axis=-1)
    if experts.gating is Gating.SOFTMAX_OF_CHOSEN:
        weights = jax.nn.softmax(weights, axis=-1)
    if experts.normalise:
        weights = weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), LEAST_SUM)
    return weights if experts.scale == 1 else weights * experts.scale, chosen


def _probabilities(logits: Float[Array, "T E"], gating: Gating) -> Float[Array, "T E"]:
    if gating is Gating.SIGMOID:
        return jax.nn.sigmoid(logits)
    return jax.nn.softmax(logits, axis=-1) if gating is Gating.SOFTMAX else logits


def in_best_groups(scores: Float[Array, "T E"], experts: Experts) -> Float[Array, "T E"]:
    """Scores, with minus infinity outside of the best groups.

    A group's score is the sum of its two best.
    """
    grouped = scores.reshape(scores.shape[0], experts.groups, -1)
    best_two, _ = lax.top_k(grouped, 2)
    _, kept = lax.top_k(jnp.sum(best_two, axis=-1), experts.groups_used)
    is_kept = jnp.any(kept[:, :, None] == jnp.arange(experts.groups)[None, None], axis=1)
    return jnp.where(is_kept[:, :, None], grouped, -jnp.inf).reshape(scores.shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SortedChoices:
    """The R = T U choices of T tokens, in rows sorted by expert.

    Rows outside of all groups are of padded tokens.
    """

    tokens: Int[Array, "R"]  # of each row
    experts: Int[Array, "R"]  # of each row
    groups: RowGroups
    rows: Int[Array, "T U"]  # of each choice


def sort_choices(chosen: Int[Array, "T U"], experts: int, counted: Bool[Array, "T"] | None = None) -> SortedChoices:
    """Sort choices by expert.

    experts: E, their number. counted: tokens that count; the choices of others come last. None for all.
    """
    tokens, used = chosen.shape
    place = jnp.arange(tokens * used, dtype=jnp.int32)
    if tokens == 1 and counted is None:  # every expert has one row already
        groups = RowGroups(chosen[0], place, place + 1)
        return SortedChoices(jnp.zeros_like(place), chosen[0], groups, place[None])
    flat = chosen.reshape(-1)
    if counted is not None:
        flat = jnp.where(jnp.repeat(counted, used), flat, experts)
    sorted_experts, order = lax.sort((flat, place), num_keys=1)
    _, rows = lax.sort((order, place), num_keys=1)
    offsets = jnp.sum(flat[None] < jnp.arange(experts + 1, dtype=jnp.int32)[:, None], axis=1, dtype=jnp.int32)
    groups = RowGroups(jnp.arange(experts, dtype=jnp.int32), offsets[:-1], offsets[1:])
    return SortedChoices(order // used, jnp.minimum(sorted_experts, experts - 1), groups, rows.reshape(tokens, used))
