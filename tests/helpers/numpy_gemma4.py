"""Gemma 4 in float64 numpy: shared keys and values, per-layer embeddings, a dense network next to experts."""

import math

import numpy as np
from numpy_attention import attend
from numpy_experts import dense, route
from numpy_model import Layer, Model, gelu, rms_norm

Kept = dict[int, tuple[np.ndarray, np.ndarray]]


def gemma4(model: Model, tokens: list[int]) -> np.ndarray:
    """Hidden states [T, D] after all layers."""
    x = model.tensors["token_embd.weight"][tokens] * math.sqrt(model.key("embedding_length"))
    own, kept = per_layer_embeddings(model, tokens, x), Kept()
    for number in range(model.key("block_count")):
        p = Layer(model, number)
        x = x + p.norm("post_attention_norm", attention(p, p.norm("attn_norm", x), kept))
        x = x + p.norm("post_ffw_norm", network(p, x))
        if own is not None:
            x = x + p.norm("post_norm", p.linear(gelu(p.linear(x, "inp_gate")) * own[:, number], "proj"))
        x = x * (p.weight("layer_output_scale") if p.has("layer_output_scale") else 1)
    return x


def per_layer_embeddings(model: Model, tokens: list[int], x: np.ndarray) -> np.ndarray | None:
    """[T, L, P]."""
    if not (size := model.key("embedding_length_per_layer_input", 0)):
        return None
    shape = len(x), model.key("block_count"), size
    rows = model.tensors["per_layer_token_embd.weight"][tokens].reshape(shape) * math.sqrt(size)
    projected = (x @ model.tensors["per_layer_model_proj.weight"].T / math.sqrt(x.shape[-1])).reshape(shape)
    return (rows + model.norm("per_layer_proj_norm", projected)) / math.sqrt(2)


def attention(p: Layer, h: np.ndarray, kept: Kept) -> np.ndarray:
    """Attention to the keys and values of this layer or of its source, without a factor on the scores."""
    size = p.key("attention.key_length_swa" if p.is_local else "attention.key_length")
    own = p.key("block_count") - p.key("attention.shared_kv_layers", 0)
    q = rotate(p, p.norm("attn_q_norm", p.linear(h, "attn_q").reshape(len(h), -1, size)))
    if p.number < own:
        k = p.linear(h, "attn_k").reshape(len(h), -1, size)
        v = p.linear(h, "attn_v").reshape(k.shape) if p.has("attn_v") else k
        v = rms_norm(v, np.ones(size), p.model.epsilon)
        kept[p.number] = p.model.through_cache(rotate(p, p.norm("attn_k_norm", k)), v)
    found = kept[p.number if p.number < own else own - (2 if p.is_local else 1)]
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], 1) for x in found)
    return p.linear(attend(p, q, k, v, 1.0), "attn_output")


def rotate(p: Layer, x: np.ndarray) -> np.ndarray:
    """RoPE, with factors on the frequencies of layers without a window."""
    ending = "_swa" if p.is_local else ""
    size = p.key(f"rope.dimension_count{ending}")
    theta = p.key(f"rope.freq_base{ending}") ** (-2 * np.arange(size // 2) / size)
    theta = theta if p.is_local else theta / p.model.tensors["rope_freqs.weight"]
    angle = (np.arange(len(x))[:, None] * theta)[:, None]
    a, b = np.split(x, 2, -1)
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)


def network(p: Layer, x: np.ndarray) -> np.ndarray:
    """The dense network, and the experts next to it."""
    found = dense(p, p.norm("ffn_norm", x))
    if not p.has("ffn_gate_inp"):
        return found
    h, tensors = p.norm("pre_ffw_norm_2", x), p.tensors
    router = rms_norm(x, tensors["ffn_gate_inp.scale"], p.model.epsilon) / math.sqrt(x.shape[-1])
    mixed = np.zeros_like(h)
    for t, logits in enumerate(p.linear(router, "ffn_gate_inp")):
        for e, share in zip(*route(p, logits), strict=True):
            gate, up = np.split(p.weight("ffn_gate_up_exps")[e] @ h[t], 2)
            mixed[t] += share * tensors["ffn_down_exps.scale"][e] * (p.weight("ffn_down_exps")[e] @ (gelu(gate) * up))
    return p.norm("post_ffw_norm_1", found) + p.norm("post_ffw_norm_2", mixed)
