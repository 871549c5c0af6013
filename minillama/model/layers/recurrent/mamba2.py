"""Mamba-2 as a layer's mixer (Dao and Gu 2024): project, convolve, update the memories, gate."""

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.context import PassContext
from minillama.model.layer_kinds import Mamba2
from minillama.model.layers.recurrent.causal_convolution import causal_convolution
from minillama.model.layers.recurrent.state_space import state_space
from minillama.model.norm import rms_norm_in_parts
from minillama.model.params import Block
from minillama.model.states.recurrent import RecurrentState


def mamba2_mixer(
    p: Block, h: Float[Array, "B T D"], state: RecurrentState, ctx: PassContext, layer: Mamba2
) -> tuple[Float[Array, "B _ inner"], RecurrentState]:
    """The numbers that are read from the memories, gated and normed by groups; before `ssm_out`."""
    inner, batch = layer.inner, h.shape[:2]
    z, xbc, step = jnp.split(p.ssm_in(h, ctx.n_valid), (inner, inner + layer.channels), axis=-1)
    xbc, tail = causal_convolution(xbc, state.tail, p.ssm_conv1d, p.ssm_conv1d_bias, ctx.valid)
    x, b, c = jnp.split(jax.nn.silu(xbc), (inner, inner + layer.groups * layer.state_length), axis=-1)
    x = x.reshape(*batch, layer.heads, layer.head_length)
    b, c = (a.reshape(*batch, layer.groups, layer.state_length) for a in (b, c))
    step = jax.nn.softplus(step + p.ssm_dt[None, None])
    if (counted := ctx.counted) is not None:  # padded tokens write nothing and forget nothing
        step = jnp.where(counted[:, :, None], step, 0.0)
    log_decay = step * p.ssm_a.reshape(1, 1, -1)
    y, memory = state_space(x * step[..., None], b, c, log_decay, state.memory)
    y = (y + x * p.ssm_d.reshape(1, 1, -1, 1)).reshape(*batch, inner)
    y = ctx.output_rows(y) * jax.nn.silu(ctx.output_rows(z))
    groups, weight = y.reshape(*y.shape[:2], layer.groups, -1), p.ssm_norm.reshape(layer.groups, -1)
    epsilon, axis = ctx.config.layer_norm_rms_epsilon, ctx.config.axis
    mixed = rms_norm_in_parts(groups, weight, epsilon, axis, layer.devices_per_group).reshape(y.shape)
    return ctx.see("final_output", mixed), RecurrentState(memory, tail)
