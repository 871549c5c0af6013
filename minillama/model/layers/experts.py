"""Mixture of experts: a router picks a few feed-forward networks for each token (Jiang et al. 2024, Mixtral)."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int

from minillama.kernels import matmul, matmuls
from minillama.model.config import Config
from minillama.model.layers.gating import gated
from minillama.model.layers.routing import route
from minillama.model.params import Block, Linear, fused_projections


def mix_experts(
    p: Block,
    config: Config,
    h: Float[Array, "B T D"],
    n_valid: Int[Array, ""] | None = None,
    routed_by: Float[Array, "B T D"] | None = None,
) -> Float[Array, "B T D"]:
    """The weighted sum of the chosen experts' outputs, plus the shared expert's if any.

    n_valid: tokens that count, where a prompt is padded; None for all. routed_by: what the router reads; None for h.
    """
    flat = h.reshape(-1, h.shape[-1])
    weights, chosen = route(p, config, flat if routed_by is None else routed_by.reshape(flat.shape))
    activation = config.family.activation

    def expert(index: Int[Array, ""], x: Float[Array, "n D"]) -> Float[Array, "n D"]:
        gate, up = _open_expert(p, index, x, n_valid)
        y = matmul(gated(gate, up, activation), p.ffn_down_exps.weight.expert(index), n_valid)
        return _add_bias(y, p.ffn_down_exps, index)

    tokens, used = chosen.shape
    if tokens * used <= config.expert_count:  # few tokens: read only the experts that they use

        def add_choice(i: Int[Array, ""], acc: Float[Array, "T D"]) -> Float[Array, "T D"]:
            t, u = i // used, i % used
            y = expert(chosen[t, u], lax.dynamic_slice_in_dim(flat, t, 1)) * weights[t, u]
            return lax.dynamic_update_slice_in_dim(acc, lax.dynamic_slice_in_dim(acc, t, 1) + y, t, 0)

        mixed = lax.fori_loop(0, tokens * used, add_choice, jnp.zeros_like(flat))
    else:

        def add_expert(e: Int[Array, ""], acc: Float[Array, "T D"]) -> Float[Array, "T D"]:
            share = jnp.sum(jnp.where(chosen == e, weights, 0.0), axis=-1)
            return acc + expert(e, flat) * share[:, None]

        mixed = lax.fori_loop(0, config.expert_count, add_expert, jnp.zeros_like(flat))
    if p.ffn_gate_shexp is not None:
        gate, up = fused_projections(flat, p.ffn_gate_shexp, p.ffn_up_shexp, n_valid=n_valid)
        shared = p.ffn_down_shexp(gated(gate, up, activation), n_valid)
        if p.ffn_gate_inp_shexp is not None:
            shared = jax.nn.sigmoid(flat @ p.ffn_gate_inp_shexp)[:, None] * shared
        mixed = mixed + shared
    return mixed.reshape(h.shape)


def _open_expert(
    p: Block, index: Int[Array, ""], x: Float[Array, "n D"], n_valid: Int[Array, ""] | None
) -> list[Float[Array, "n F"]]:
    """The products with an expert's gate and up rows."""
    if p.ffn_gate_up_exps is not None:
        both = _add_bias(matmul(x, p.ffn_gate_up_exps.weight.expert(index), n_valid), p.ffn_gate_up_exps, index)
        return jnp.split(both, 2, axis=-1)
    stacks = p.ffn_gate_exps, p.ffn_up_exps
    products = matmuls(x, [stack.weight.expert(index) for stack in stacks], n_valid)
    return [_add_bias(y, stack, index) for y, stack in zip(products, stacks, strict=True)]


def _add_bias(y: Float[Array, "n N"], stack: Linear, index: Int[Array, ""]) -> Float[Array, "n N"]:
    """y + the bias of an expert, if the stack has biases."""
    return y if stack.bias is None else y + lax.dynamic_slice_in_dim(stack.bias, index, 1)
