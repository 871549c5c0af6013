"""Gated DeltaNet as a layer's mixer (Yang et al. 2024): project, convolve, update the memories, gate."""

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.context import PassContext
from minillama.model.layer_kinds import DeltaNet
from minillama.model.layers.recurrent.causal_convolution import causal_convolution
from minillama.model.layers.recurrent.delta_rule import delta_rule
from minillama.model.norm import rms_norm
from minillama.model.params import Block, fused_projections
from minillama.model.states.recurrent import RecurrentState


def delta_net_mixer(
    p: Block, h: Float[Array, "B T D"], state: RecurrentState, ctx: PassContext, layer: DeltaNet
) -> tuple[Float[Array, "B _ inner"], RecurrentState]:
    """The values that the queries find in the memories, normed and gated; before `ssm_out`."""
    qkv, gate, beta, alpha = project(p, h, ctx, layer)
    qkv, tail = causal_convolution(ctx.see("linear_attn_qkv_mixed", qkv), state.tail, p.ssm_conv1d, valid=ctx.valid)
    qkv = ctx.see("conv_output_silu", jax.nn.silu(qkv))
    epsilon = ctx.config.layer_norm_rms_epsilon
    beta = jax.nn.sigmoid(beta)
    log_decay = p.ssm_a[None, None] * jax.nn.softplus(alpha + p.ssm_dt[None, None])
    if (counted := ctx.counted) is not None:  # padded tokens write nothing and forget nothing
        beta, log_decay = (jnp.where(counted[:, :, None], x, 0.0) for x in (beta, log_decay))
    found, memory = delta_rule(qkv, log_decay, beta, state.memory, layer, epsilon)
    found, gate = ctx.output_rows(found), ctx.output_rows(gate)
    mixed = rms_norm(found, p.ssm_norm, epsilon) * jax.nn.silu(gate.reshape(found.shape))
    return ctx.see("final_output", mixed.reshape(*mixed.shape[:2], -1)), RecurrentState(memory, tail)


def project(
    p: Block, h: Float[Array, "B T D"], ctx: PassContext, layer: DeltaNet
) -> tuple[
    Float[Array, "B T C"], Float[Array, "B T inner"], Float[Array, "B T value_heads"], Float[Array, "B T value_heads"]
]:
    """The channels of the convolution and the gate; beta and alpha of each value head.

    Qwen3-Next's files have beta and alpha in one matrix, by key head; older ones the channels and the gate too.
    """
    names = ("ssm_in",) if p.ssm_in is not None else ("attn_qkv", "attn_gate")
    names += ("ssm_ba",) if p.ssm_ba is not None else ("ssm_beta", "ssm_alpha")
    products = fused_projections(h, *(getattr(p, name) for name in names), n_valid=ctx.n_valid)
    found = dict(zip(names, products, strict=True))
    share = layer.value_heads // layer.key_heads
    if p.ssm_in is not None:
        q, k, v, gate = _by_key_head(found["ssm_in"], layer, [layer.size] * 2 + [share * layer.size] * 2)
        found |= {"attn_qkv": jnp.concatenate([q, k, v], axis=-1), "attn_gate": gate}
    if p.ssm_ba is not None:
        found["ssm_beta"], found["ssm_alpha"] = _by_key_head(found["ssm_ba"], layer, [share] * 2)
    return found["attn_qkv"], found["attn_gate"], found["ssm_beta"], found["ssm_alpha"]


def _by_key_head(x: Float[Array, "B T _"], layer: DeltaNet, sizes: list[int]) -> list[Float[Array, "B T _"]]:
    """Take apart rows that hold parts of these sizes for each key head."""
    heads = x.reshape(*x.shape[:2], layer.key_heads, -1)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
    return [part.reshape(*x.shape[:2], -1) for part in jnp.split(heads, ends, axis=-1)]
