"""The tensors of layers that are not as those of other families: Gemma 4, Nemotron-H, Mamba-2, short convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tiny_layers import N, Tensors, attention, dense, linear, vector

if TYPE_CHECKING:
    from tiny_variants import Variant

PER_LAYER = 32  # size of Gemma 4's per-layer embeddings
GEMMA4_LOCAL = (True, True, False, True, False)  # layers with a window
GEMMA4_SHARED = 2  # the last layers read the keys and values of layers 1 and 2


def gemma4_layer(v: Variant, layer: int, width: int, feed: int) -> Tensors:
    """Half as long heads in layers with a window, values that are the keys in others; experts of some variants."""
    is_local, has_keys = GEMMA4_LOCAL[layer], layer < len(GEMMA4_LOCAL) - GEMMA4_SHARED
    size, kv_heads = (v.key_length // 2, 2) if is_local else (v.key_length, 1)
    found = vector("attn_norm", width) | linear("attn_q", N * size, width) | vector("attn_q_norm", size)
    if has_keys:
        found |= linear("attn_k", kv_heads * size, width) | vector("attn_k_norm", size)
        found |= linear("attn_v", kv_heads * size, width) if is_local else {}
    found |= linear("attn_output", width, N * size)
    for norm in ("post_attention_norm", "ffn_norm", "post_ffw_norm"):
        found |= vector(norm, width)
    found |= dense(v, width, feed) | vector("layer_output_scale", 1)
    if not v.experts:
        found |= linear("inp_gate", PER_LAYER, width) | linear("proj", width, PER_LAYER)
        return found | vector("post_norm", width)
    for norm in ("pre_ffw_norm_2", "post_ffw_norm_1", "post_ffw_norm_2"):
        found |= vector(norm, width)
    found |= linear("ffn_gate_inp", v.experts, width) | linear("ffn_gate_up_exps", v.experts, 2 * feed, width)
    found |= linear("ffn_down_exps", v.experts, width, feed)
    return found | {"ffn_gate_inp.scale": (width,), "ffn_down_exps.scale": (v.experts,)}


def per_layer_tables(layers: int, width: int, rows: int) -> Tensors:
    """Gemma 4's per-layer embeddings of the whole model."""
    found = linear("per_layer_token_embd", rows, layers * PER_LAYER) | vector("per_layer_proj_norm", PER_LAYER)
    return found | linear("per_layer_model_proj", layers * PER_LAYER, width)


def nemotron_layer(v: Variant, layer: int, width: int, feed: int) -> Tensors:
    """A mixer or a network alone."""
    norm = vector("attn_norm", width)
    return norm | (dense(v, width, feed) if layer == 2 else mamba2(v, layer, width))


def mamba2(v: Variant, layer: int, width: int) -> Tensors:
    """Mamba-2 in all layers but the second, which attends."""
    if layer == 1:
        return attention(v, layer, width)
    heads, groups, inner, state = 4, 2, 64, 8
    channels = inner + 2 * groups * state
    found = linear("ssm_in", inner + channels + heads, width) | linear("ssm_conv1d", channels, 4)
    found |= {"ssm_conv1d.bias": (channels,), "ssm_dt.bias": (heads,), "ssm_a": (heads, 1), "ssm_d": (heads, 1)}
    return found | {"ssm_norm.weight": (groups, inner // groups)} | linear("ssm_out", width, inner)


def short_convolution(v: Variant, layer: int, width: int) -> Tensors:
    """A short convolution in all layers but the second, which attends."""
    if layer == 1:
        return attention(v, layer, width)
    found = linear("shortconv.in_proj", 3 * width, width) | linear("shortconv.conv", width, 3)
    return found | linear("shortconv.out_proj", width, width)
