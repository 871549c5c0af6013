"""Mixture of experts: a router picks a few feed-forward networks for each token (Jiang et al. 2024, Mixtral).

Choices are sorted by expert, so that each chosen expert is read once, for its own tokens only.
"""

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.kernels import grouped_matmuls
from minillama.model.context import PassContext
from minillama.model.layers.gating import gated
from minillama.model.layers.routing import SortedChoices, route, sort_choices
from minillama.model.params import Block, Linear, fused_projections


def mix_experts(
    p: Block, h: Float[Array, "B T D"], ctx: PassContext, routed_by: Float[Array, "B T D"] | None = None
) -> Float[Array, "B T D"]:
    """The weighted sum of the chosen experts' outputs, plus the shared expert's if any.

    Padded tokens give zeros. routed_by: the input of the router; None for h.
    """
    x = h.reshape(-1, h.shape[-1])
    weights, chosen = route(p, ctx.config, x if routed_by is None else routed_by.reshape(x.shape))
    is_counted = ctx.counted.reshape(-1) if ctx.valid is not None and h.shape[1] > 1 else None
    choices = sort_choices(chosen, ctx.config.expert_count, is_counted)
    gate, up = gate_and_up(p, x[choices.tokens], choices)
    (y,) = biased_products(gated(gate, up, ctx.config.family.activation), [p.ffn_down_exps], choices)
    mixed = jnp.einsum("TUD,TU->TD", y[choices.rows], weights)
    if is_counted is not None:
        mixed = jnp.where(is_counted[:, None], mixed, 0)
    if p.ffn_gate_shexp is not None:
        mixed = mixed + shared_expert(p, x, ctx)
    return mixed.reshape(h.shape)


def gate_and_up(p: Block, x: Float[Array, "R D"], choices: SortedChoices) -> list[Float[Array, "R F"]]:
    """The gate and the other factor of each row's expert.

    Some files have both in one stack.
    """
    if p.ffn_gate_up_exps is None:
        return biased_products(x, [p.ffn_gate_exps, p.ffn_up_exps], choices)
    (both,) = biased_products(x, [p.ffn_gate_up_exps], choices)
    return jnp.split(both, 2, axis=-1)


def biased_products(x: Float[Array, "R K"], stacks: list[Linear], choices: SortedChoices) -> list[Float[Array, "R N"]]:
    """Each row through its expert of several stacks, with the expert's bias if any."""
    products = grouped_matmuls(x, [stack.weight for stack in stacks], choices.groups)
    biases = [stack.bias for stack in stacks]
    return [y if b is None else y + b[choices.experts] for y, b in zip(products, biases, strict=True)]


def shared_expert(p: Block, x: Float[Array, "T D"], ctx: PassContext) -> Float[Array, "T D"]:
    """The expert that every token uses, in some families with a gate of its own."""
    gate, up = fused_projections(x, p.ffn_gate_shexp, p.ffn_up_shexp, n_valid=ctx.n_valid)
    shared = p.ffn_down_shexp(gated(gate, up, ctx.config.family.activation), ctx.n_valid)
    if p.ffn_gate_inp_shexp is None:
        return shared
    return jax.nn.sigmoid(x @ p.ffn_gate_inp_shexp)[:, None] * shared
