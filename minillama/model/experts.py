"""Mixture of experts: a router picks a few feed-forward networks for each token (Jiang et al. 2024, Mixtral)."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from minillama.kernels import matmul, matmuls
from minillama.model.config import Config
from minillama.model.feed_forward import gated
from minillama.model.params import Block, together


def route(block: Block, config: Config, h: Float[Array, "T D"]) -> tuple[Float[Array, "T U"], Int[Array, "T U"]]:
    """Weights and numbers of the U experts each token uses."""
    probabilities = jax.nn.softmax(block.ffn_gate_inp(h), axis=-1)
    weights, chosen = lax.top_k(probabilities, config.expert_used_count)
    if config.family.normalise_experts:
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
    return weights * config.expert_weights_scale, chosen


def mix_experts(
    block: Block, config: Config, h: Float[Array, "B T D"], valid: Int[Array, ""] | None = None
) -> Float[Array, "B T D"]:
    """The weighted sum of the chosen experts' outputs, plus the shared expert's where there is one.

    valid: how many of the tokens count; None for all.
    """
    flat = h.reshape(-1, h.shape[-1])
    weights, chosen = route(block, config, flat)
    activation = config.family.activation

    def expert(index: Int[Array, ""], x: Float[Array, "n D"]) -> Float[Array, "n D"]:
        stacks = block.ffn_gate_exps, block.ffn_up_exps
        opened, up = matmuls(x, [stack.weight.expert(index) for stack in stacks], valid)
        return matmul(gated(opened, up, activation), block.ffn_down_exps.weight.expert(index), valid)

    tokens, used = chosen.shape
    if tokens * used <= config.expert_count:  # few tokens: touch only the experts they use

        def add_choice(i: Int[Array, ""], total: Float[Array, "T D"]) -> Float[Array, "T D"]:
            t, u = i // used, i % used
            y = expert(chosen[t, u], lax.dynamic_slice_in_dim(flat, t, 1)) * weights[t, u]
            return lax.dynamic_update_slice_in_dim(total, lax.dynamic_slice_in_dim(total, t, 1) + y, t, 0)

        mixed = lax.fori_loop(0, tokens * used, add_choice, jnp.zeros_like(flat))
    else:

        def add_expert(e: Int[Array, ""], total: Float[Array, "T D"]) -> Float[Array, "T D"]:
            share = jnp.sum(jnp.where(chosen == e, weights, 0.0), axis=-1)
            return total + expert(e, flat) * share[:, None]

        mixed = lax.fori_loop(0, config.expert_count, add_expert, jnp.zeros_like(flat))
    if block.ffn_gate_shexp is not None:
        opened, up = together(flat, block.ffn_gate_shexp, block.ffn_up_shexp, valid=valid)
        shared = block.ffn_down_shexp(gated(opened, up, activation), valid)
        mixed = mixed + jax.nn.sigmoid(flat @ block.ffn_gate_inp_shexp)[:, None] * shared
    return mixed.reshape(h.shape)
