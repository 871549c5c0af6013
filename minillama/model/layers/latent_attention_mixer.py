"""Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434), in the absorbed form.

A head's key is [W_k c, k_rope] and its value W_v c, with one latent c and one rotated k_rope for all heads. Written out
they would fill the cache. But q·(W_k c) = (W_kᵀ q)·c: so the query goes into the space of latents, all heads attend to
the same [c, k_rope], and W_v maps the mean of the latents. This is attention with one key/value head.
"""

import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.collectives import axis_index
from minillama.model.context import PassContext
from minillama.model.layer_kinds import LatentAttention
from minillama.model.layers.attention import attend, attention, attention_weights
from minillama.model.layers.attention_mixer import with_temperature
from minillama.model.norm import rms_norm
from minillama.model.params import Block, Linear, fused_projections
from minillama.model.rope import apply_rope
from minillama.model.states.latents import Latents


def latent_attention_mixer(
    p: Block, h: Float[Array, "B T D"], state: Latents, ctx: PassContext, layer: LatentAttention
) -> tuple[Float[Array, "B _ NV"], Latents]:
    """Attention over the latents of earlier tokens and these; heads side by side, before `attn_output`."""
    q, latents = project_latents(p, h, ctx, layer)
    state = state.write(ctx.see("Kcur", latents), ctx.positions[:, 0], ctx.slots)
    q, positions = ctx.output_rows(q), ctx.output_rows(ctx.positions)
    q = ctx.see("Qcur", absorb_keys(p, q, ctx, layer))
    values, constants = state.values(layer.kv_lora_rank), (layer.scale, ctx.config.attn_logit_softcapping, 0, None)
    if ctx.is_traced:  # `attention` never holds the weights
        weights = ctx.see("kq_soft_max", attention_weights(q, state.keys.of_rows(ctx.slots), positions, *constants))
        mixed = attend(weights, values.of_rows(ctx.slots))
    else:
        mixed = attention(q, state.keys, values, positions, *constants, ctx.slots)
    return ctx.see("kqv_out", apply_values(p, mixed, ctx, layer)), state


def project_latents(
    p: Block, h: Float[Array, "B T D"], ctx: PassContext, layer: LatentAttention
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T 1 C"]]:
    """Queries of each head, rotated, and the latents with the rotated channels of keys."""
    epsilon, rank = ctx.config.layer_norm_rms_epsilon, layer.kv_lora_rank
    if p.attn_q_a is None:
        q, kv = fused_projections(h, p.attn_q, p.attn_kv_a_mqa, n_valid=ctx.n_valid)
    else:
        q, kv = fused_projections(h, p.attn_q_a, p.attn_kv_a_mqa, n_valid=ctx.n_valid)
        q = p.attn_q_b(rms_norm(q, p.attn_q_a_norm, epsilon), ctx.n_valid)
    q = with_temperature(q.reshape(*h.shape[:2], layer.head_count, layer.key_length), ctx)
    latent, shared = jnp.split(kv[:, :, None], [rank], axis=-1)
    latent = rms_norm(latent, p.attn_kv_a_norm, epsilon)
    nope, rotating = jnp.split(q, [layer.nope_length], axis=-1)
    q, k = ([a, _rotate(b, ctx, layer)] for a, b in ((nope, rotating), (latent, shared)))
    return jnp.concatenate(q, axis=-1), jnp.concatenate(k, axis=-1)


def _rotate(x: Float[Array, "B T heads H"], ctx: PassContext, layer: LatentAttention) -> Float[Array, "B T heads H"]:
    return apply_rope(x, ctx.ropes[layer.rope], ctx.config.rope_style)


def absorb_keys(
    p: Block, q: Float[Array, "B T N H"], ctx: PassContext, layer: LatentAttention
) -> Float[Array, "B T N C"]:
    """Queries for the latents: W_kᵀ q of each head, then the rotated channels."""
    nope, rotated = jnp.split(q, [layer.nope_length], axis=-1)
    return jnp.concatenate([_of_each_head(p.attn_k_b, nope, ctx), rotated], axis=-1)


def apply_values(
    p: Block, mixed: Float[Array, "B T NC"], ctx: PassContext, layer: LatentAttention
) -> Float[Array, "B T NV"]:
    """The means of the values of each head: W_v times the mean of the latents."""
    heads = mixed.reshape(*mixed.shape[:2], layer.head_count, layer.kv_lora_rank)
    return _of_each_head(p.attn_v_b, heads, ctx).reshape(*mixed.shape[:2], -1)


def _of_each_head(maps: Linear, x: Float[Array, "B T N H"], ctx: PassContext) -> Float[Array, "B T N rows"]:
    """The product of each head with its own matrix.

    The stack may be that of all devices: this device's heads are then a part of it.
    """
    batch, time, heads, size = x.shape
    rows = x.transpose(2, 0, 1, 3).reshape(heads, batch * time, size)
    first = axis_index(ctx.config.axis) * heads if maps.weight.shape[0] > heads else 0
    n_valid = ctx.n_valid if ctx.output_index is None else None  # only the wanted tokens are left
    y = maps.weight.batched_product(rows, first, n_valid)
    return y.reshape(heads, batch, time, -1).transpose(1, 2, 0, 3)
