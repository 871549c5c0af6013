"""The tensors of a tiny model's layers: their names in the file, and their shapes.

Numbers of a tensor follow from its name and shape; see `tiny_models.numbers`. A new kind of layer is a function that
`Variant.mixer` names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiny_models import Variant

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
    size, kv_heads = v.key_length, v.kv_heads
    if v.fused:
        found = linear("attn_qkv", (N + 2 * kv_heads) * size, width, bias=v.qkv_bias)
    else:
        found = linear("attn_q", N * size, width, bias=v.qkv_bias)
        found |= linear("attn_k", kv_heads * size, width, bias=v.qkv_bias)
        found |= linear("attn_v", kv_heads * size, width, bias=v.qkv_bias)
    found |= linear("attn_output", width, N * size, bias=v.biases)
    if v.whole_norms:
        found |= vector("attn_q_norm", N * size) | vector("attn_k_norm", kv_heads * size)
    elif v.head_norms:
        found |= vector("attn_q_norm", size) | vector("attn_k_norm", size)
    return found


def dense(v: Variant, width: int, feed: int) -> Tensors:
    """One feed-forward network."""
    if v.fused:
        return linear("ffn_up", 2 * feed, width) | linear("ffn_down", width, feed)
    gate = linear("ffn_gate", feed, width) if v.gated else {}
    return gate | linear("ffn_up", feed, width, bias=v.biases) | linear("ffn_down", width, feed, bias=v.biases)


def experts(v: Variant, width: int, feed: int) -> Tensors:
    """A router, its experts, and the shared expert."""
    found = linear("ffn_gate_inp", v.experts, width)
    if v.choice_bias:
        found |= {"exp_probs_b.bias": (v.experts,)}
    found |= linear("ffn_gate_exps", v.experts, feed, width)
    found |= linear("ffn_up_exps", v.experts, feed, width)
    found |= linear("ffn_down_exps", v.experts, width, feed)
    if v.shared_expert:
        gate = vector("ffn_gate_inp_shexp", width) if v.shared_gate else {}
        found |= gate | linear("ffn_gate_shexp", feed, width)
        found |= linear("ffn_up_shexp", feed, width) | linear("ffn_down_shexp", width, feed)
    return found
