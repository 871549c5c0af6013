"""Attention as a layer's mixer: project, rotate, write the key/value cache, attend."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from minillama.model.cache import KeyValues
from minillama.model.config import Layer
from minillama.model.context import PassContext
from minillama.model.layers.attention import attend, attention, attention_weights
from minillama.model.norm import rms_norm
from minillama.model.params import Block, fused_projections
from minillama.model.rope import apply_rope


def attention_mixer(
    p: Block, h: Float[Array, "B T D"], state: KeyValues, ctx: PassContext, layer: Layer
) -> tuple[Float[Array, "B _ NH"], KeyValues]:
    """Grouped-query attention over the earlier tokens and these; heads side by side, before `attn_output`."""
    q, k, v = project_qkv(p, h, ctx, layer)
    state = state.write(k, v, ctx.positions[:, 0])
    q, positions = ctx.output_rows(q), ctx.output_rows(ctx.positions)
    constants = ctx.config.query_scale, ctx.config.attn_logit_softcapping, layer.sliding_window
    if ctx.is_traced:  # `attention` never holds the weights
        weights = ctx.see("kq_soft_max", attention_weights(q, state.keys, positions, *constants))
        mixed = attend(weights, state.values)
    else:
        mixed = attention(q, state.keys, state.values, positions, *constants)
    return ctx.see("kqv_out", mixed), state


def project_qkv(
    p: Block, h: Float[Array, "B T D"], ctx: PassContext, layer: Layer
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    """Queries, keys and values of a layer, with head norms if any, and rotated."""
    config = ctx.config
    heads, kv_heads = config.head_count, config.head_count_kv
    if p.attn_qkv is not None:
        ends = heads * config.key_length, (heads + kv_heads) * config.key_length
        q, k, v = jnp.split(p.attn_qkv(h, ctx.n_valid), ends, axis=-1)
    else:
        q, k, v = fused_projections(h, p.attn_q, p.attn_k, p.attn_v, n_valid=ctx.n_valid)
    q = q.reshape(*h.shape[:2], heads, config.key_length)
    k = k.reshape(*h.shape[:2], kv_heads, config.key_length)
    v = v.reshape(*h.shape[:2], kv_heads, config.value_length)
    if p.attn_q_norm is not None:
        q = rms_norm(q, p.attn_q_norm, config.layer_norm_rms_epsilon)
    if p.attn_k_norm is not None:
        k = rms_norm(k, p.attn_k_norm, config.layer_norm_rms_epsilon)
    cos_sin, style = ctx.cos_sin(layer), config.rope_style
    return (
        ctx.see("Qcur", apply_rope(q, cos_sin, style)),
        ctx.see("Kcur", apply_rope(k, cos_sin, style)),
        ctx.see("Vcur", v),
    )
