"""Attention as a layer's mixer: project, rotate, write the key/value cache, attend."""

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float
from minillama.model.context import PassContext
from minillama.model.layer_kinds import Attention
from minillama.model.layers.attention import attend, attention, attention_weights
from minillama.model.norm import rms_norm, shared_rms_norm
from minillama.model.params import Block, fused_projections
from minillama.model.rope import apply_rope
from minillama.model.states.hadamard import hadamard, key_rotation, value_rotation
from minillama.model.states.key_values import KeyValues
from minillama.model.states.window import WindowKeyValues


def attention_mixer(
    p: Block, h: Float[Array, "B T D"], state: KeyValues | WindowKeyValues, ctx: PassContext, layer: Attention
) -> tuple[Float[Array, "B _ NH"], KeyValues | WindowKeyValues]:
    """Grouped-query attention over the earlier tokens and these; heads side by side, before `attn_output`.

    state: of the layer, or of its source, which holds these tokens already. Where it is quantised, heads are rotated.
    """
    of_keys, of_values = key_rotation(state.keys), value_rotation(state.values)
    if layer.source is None:
        q, k, v, gate = project_qkv(p, h, ctx, layer)
        state = state.write(hadamard(k, of_keys), hadamard(v, of_values), ctx.positions[:, 0], ctx.slots)
    else:
        q, gate = to_queries(p.attn_q(h, ctx.n_valid), p, ctx, layer), None
    q = hadamard(q, of_keys)
    q, positions = ctx.output_rows(q), state.places(ctx.output_rows(ctx.positions), ctx.slots)
    options = layer.scale, ctx.config.attn_logit_softcapping, layer.sliding_window, p.attn_sinks
    if ctx.is_traced:  # `attention` never holds the weights
        weights = ctx.see("kq_soft_max", attention_weights(q, state.keys.of_rows(ctx.slots), positions, *options))
        mixed = attend(weights, state.values.of_rows(ctx.slots))
    else:
        mixed = attention(q, state.keys, state.values, positions, *options, ctx.slots)
    mixed = hadamard(mixed, of_values)  # back
    if gate is not None:
        mixed = mixed * jax.nn.sigmoid(ctx.output_rows(gate))
    return ctx.see("kqv_out", mixed), state


def project_qkv(
    p: Block, h: Float[Array, "B T D"], ctx: PassContext, layer: Attention
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"], Float[Array, "B T NH"] | None]:
    """Queries, keys and values, with head norms if any, and rotated; the gate, if any."""
    heads, kv_heads = layer.head_count, layer.head_count_kv
    if p.attn_qkv is not None:
        start = heads * layer.key_length * (2 if layer.has_gate else 1)
        q, k, v = jnp.split(p.attn_qkv(h, ctx.n_valid), (start, start + kv_heads * layer.key_length), axis=-1)
    elif p.attn_v is None:  # values begin as the keys
        q, k = fused_projections(h, p.attn_q, p.attn_k, n_valid=ctx.n_valid)
        v = k
    else:
        q, k, v = fused_projections(h, p.attn_q, p.attn_k, p.attn_v, n_valid=ctx.n_valid)
    q, gate = split_gate(q, heads) if layer.has_gate else (q, None)
    v = v.reshape(*h.shape[:2], kv_heads, layer.value_length)
    if layer.norms_values:
        v = rms_norm(v, None, ctx.config.layer_norm_rms_epsilon)
    q, k = to_queries(q, p, ctx, layer), turn_heads(k, p.attn_k_norm, kv_heads, ctx, layer)
    return q, ctx.see("Kcur", k), ctx.see("Vcur", v), gate


def to_queries(q: Float[Array, "B T NH"], p: Block, ctx: PassContext, layer: Attention) -> Float[Array, "B T N H"]:
    """Projected queries as heads, normed, rotated, and with the temperature."""
    return ctx.see("Qcur", with_temperature(turn_heads(q, p.attn_q_norm, layer.head_count, ctx, layer), ctx))


def split_gate(x: Float[Array, "B T _"], heads: int) -> tuple[Float[Array, "B T NH"], Float[Array, "B T NH"]]:
    """Queries, and the gates of the output that follow the query of each head (Qwen3-Next)."""
    pairs = x.reshape(*x.shape[:2], heads, 2, -1)
    return tuple(pairs[:, :, :, i].reshape(*x.shape[:2], -1) for i in range(2))


def turn_heads(
    x: Float[Array, "B T NH"], norm: Float[Array, "_"] | None, heads: int, ctx: PassContext, layer: Attention
) -> Float[Array, "B T N H"]:
    """Queries or keys as heads, normed (each head, or all at once) and rotated, in the family's order."""
    epsilon, shape = ctx.config.layer_norm_rms_epsilon, (*x.shape[:2], heads, layer.key_length)
    if norm is not None and norm.shape[0] != layer.key_length:
        x, norm = shared_rms_norm(x, norm, epsilon, ctx.config.axis), None
    x = x.reshape(shape)
    if norm is None:
        return rotate(x, ctx, layer)
    if ctx.config.family.head_norm_after_rope:
        return rms_norm(rotate(x, ctx, layer), norm, epsilon)
    return rotate(rms_norm(x, norm, epsilon), ctx, layer)


def rotate(x: Float[Array, "B T N H"], ctx: PassContext, layer: Attention) -> Float[Array, "B T N H"]:
    """RoPE, in a layer that has it."""
    return x if layer.rope is None else apply_rope(x, ctx.ropes[layer.rope], ctx.config.rope_style)


def with_temperature(q: Float[Array, "B T N H"], ctx: PassContext) -> Float[Array, "B T N H"]:
    """Queries, larger beyond the original context where the model has a temperature (Ministral 3)."""
    config = ctx.config
    if not config.temperature_scale:
        return q
    times = jnp.floor(ctx.positions.astype(jnp.float32) / config.temperature_length)
    return q * (1 + config.temperature_scale * jnp.log(times + 1))[:, :, None, None]
