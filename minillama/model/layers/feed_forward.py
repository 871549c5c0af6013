"""The feed-forward network: down(act(gate x) · up x) (Shazeer 2020), in some families down(act(up x))."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from minillama.model.architectures import Activation
from minillama.model.context import PassContext
from minillama.model.layers.experts import mix_experts
from minillama.model.layers.gating import activate, gated
from minillama.model.params import Block, fused_projections


def feed_forward(p: Block, h: Float[Array, "B T D"], ctx: PassContext) -> Float[Array, "B T D"]:
    """The layer's feed-forward network: dense, or a mixture of experts."""
    if p.ffn_gate_inp is not None:
        return mix_experts(p, ctx.config, h, ctx.n_valid)
    return dense_feed_forward(p, h, ctx)


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
