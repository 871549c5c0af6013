"""The feed-forward network: down(act(gate x) · up x) (Shazeer 2020), in some families down(act(up x))."""

import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.architectures import Activation
from minillama.model.context import PassContext
from minillama.model.layers.experts import mix_experts
from minillama.model.layers.gating import activate, gated
from minillama.model.params import Block, fused_projections


def feed_forward(
    p: Block, h: Float[Array, "B T D"], x: Float[Array, "B T D"], ctx: PassContext
) -> Float[Array, "B T D"]:
    """The layer's feed-forward network of h = norm(x): dense, a mixture of experts, or both."""
    if p.pre_ffw_norm_2 is not None:
        return dense_and_experts(p, h, x, ctx)
    if p.ffn_gate_inp is not None:
        return ctx.all_reduce(mix_experts(p, h, ctx))
    return ctx.all_reduce(dense_feed_forward(p, h, ctx))


def dense_feed_forward(p: Block, h: Float[Array, "B T D"], ctx: PassContext) -> Float[Array, "B T D"]:
    """One dense network.

    Where the file of a gated network has no ffn_gate, ffn_up holds the rows of gate and up.
    """
    activation = ctx.config.family.activation
    if not ctx.config.family.gated:
        return p.ffn_down(activate(p.ffn_up(h, ctx.n_valid), activation), ctx.n_valid)
    if p.ffn_gate is not None:
        gate, up = fused_projections(h, p.ffn_gate, p.ffn_up, n_valid=ctx.n_valid)
    else:
        gate, up = jnp.split(p.ffn_up(h, ctx.n_valid), 2, axis=-1)
    name = "ffn_swiglu" if activation is Activation.SILU else "ffn_geglu"
    return p.ffn_down(ctx.see(name, gated(gate, up, activation)), ctx.n_valid)


def dense_and_experts(
    p: Block, h: Float[Array, "B T D"], x: Float[Array, "B T D"], ctx: PassContext
) -> Float[Array, "B T D"]:
    """A dense network and experts side by side, with norms of their own (Gemma 4).

    The router reads x.
    """
    dense = ctx.all_reduce(dense_feed_forward(p, h, ctx))
    experts_input = ctx.norm("ffn_norm_2", x, p.pre_ffw_norm_2)
    experts = ctx.all_reduce(mix_experts(p, experts_input, ctx, routed_by=x))
    return ctx.norm("ffn_mlp", dense, p.post_ffw_norm_1) + ctx.norm("ffn_moe", experts, p.post_ffw_norm_2)
