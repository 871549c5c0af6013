"""The tensors of a tiny model's layers: their names in the file, and their shapes.

Numbers of a tensor follow from its name and shape; see `tiny_models.numbers`. A new kind of layer is a function that
`Variant.mixer` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_variants import Variant

N, K, H = 4, 2, 16
Tensors = dict[str, tuple[int, ...]]


def linear(name: str, *shape: int, bias: bool = False) -> Tensors:
    """A matrix, or a stack of them, and its bias."""
    return {f"{name}.weight": shape} | ({f"{name}.bias": shape[:-1]} if bias else {})


def vector(name: str, size: int, *, bias: bool = False) -> Tensors:
    """The weights of a norm, and its bias."""
    return {f"{name}.weight": (size,)} | ({f"{name}.bias": (size,)} if bias else {})


def layer_tensors(v: Variant, layer: int, width: int, feed: int) -> Tensors:
    """All tensors of one layer, without the layer's prefix."""
    if v.layer is not None:
        return v.layer(v, layer, width, feed)
    norms: Tensors = {}
    if v.pre_norms:
        norms |= vector("attn_norm", width, bias=v.norm_bias)
        if v.ffn_norm:
            norms |= vector(v.ffn_norm, width, bias=v.norm_bias)
    post = vector("post_attention_norm", width) | vector("post_ffw_norm", width) if v.post_norms else {}
    network = experts if v.experts and layer >= v.leading_dense else dense
    return norms | v.mixer(v, layer, width) | post | network(v, width, feed)


def attention(v: Variant, layer: int, width: int) -> Tensors:
    """Queries, keys, values, output, and norms of heads."""
    size, kv_heads, queries = v.key_length, v.kv_heads, (2 if v.output_gate else 1) * N * v.key_length
    if v.fused:
        found = linear("attn_qkv", (N + 2 * kv_heads) * size, width, bias=v.qkv_bias)
    else:
        found = linear("attn_q", queries, width, bias=v.qkv_bias)
        found |= linear("attn_k", kv_heads * size, width, bias=v.qkv_bias)
        found |= linear("attn_v", kv_heads * size, width, bias=v.qkv_bias)
    found |= linear("attn_output", width, N * size, bias=v.biases)
    if v.whole_norms:
        found |= vector("attn_q_norm", N * size) | vector("attn_k_norm", kv_heads * size)
    elif v.head_norms:
        found |= vector("attn_q_norm", size) | vector("attn_k_norm", size)
    return found | (vector("attn_sinks", N) if v.sinks else {})


def latent_attention(v: Variant, layer: int, width: int) -> Tensors:
    """One latent and one rotating key for all heads; the maps of heads are apart, or in one tensor (files of 2024)."""
    rank, nope, rotating, value = 32, 32, 16, 32
    if v.fused_latent:
        found = linear("attn_q", N * (nope + rotating), width)
        found |= linear("attn_kv_b", N * (nope + value), rank)
    else:
        found = linear("attn_q_a", 64, width) | vector("attn_q_a_norm", 64)
        found |= linear("attn_q_b", N * (nope + rotating), 64)
        found |= linear("attn_k_b", N, rank, nope) | linear("attn_v_b", N, value, rank)
    found |= linear("attn_kv_a_mqa", rank + rotating, width) | vector("attn_kv_a_norm", rank)
    return found | linear("attn_output", width, N * value)


def delta_net(v: Variant, layer: int, width: int) -> Tensors:
    """Gated DeltaNet in every layer but each second, which attends."""
    if layer % 2:
        return attention(v, layer, width)
    key_heads, heads, size = 4, 8, 8
    channels = (2 * key_heads + heads) * size
    found = linear("attn_qkv", channels, width) | linear("attn_gate", heads * size, width)
    if v.architecture == "qwen3next":
        found |= linear("ssm_ba", 2 * heads, width)
    else:
        found |= linear("ssm_beta", heads, width) | linear("ssm_alpha", heads, width)
    found |= linear("ssm_conv1d", channels, 4) | {"ssm_dt.bias": (heads,), "ssm_a": (heads,)}
    return found | vector("ssm_norm", size) | linear("ssm_out", width, heads * size)


def dense(v: Variant, width: int, feed: int) -> Tensors:
    """One feed-forward network."""
    if v.fused:
        return linear("ffn_up", 2 * feed, width) | linear("ffn_down", width, feed)
    gate = linear("ffn_gate", feed, width) if v.gated else {}
    return gate | linear("ffn_up", feed, width, bias=v.biases) | linear("ffn_down", width, feed, bias=v.biases)


def experts(v: Variant, width: int, feed: int) -> Tensors:
    """A router, its experts, and the shared expert."""
    found = linear("ffn_gate_inp", v.experts, width, bias=v.biases)
    if v.choice_bias:
        found |= {"exp_probs_b.bias": (v.experts,)}
    found |= linear("ffn_gate_exps", v.experts, feed, width, bias=v.biases)
    found |= linear("ffn_up_exps", v.experts, feed, width, bias=v.biases)
    found |= linear("ffn_down_exps", v.experts, width, feed, bias=v.biases)
    if v.shared_expert:
        gate = vector("ffn_gate_inp_shexp", width) if v.shared_gate else {}
        found |= gate | linear("ffn_gate_shexp", feed, width)
        found |= linear("ffn_up_shexp", feed, width) | linear("ffn_down_shexp", width, feed)
    return found
