"""Multi-head latent attention in float64 numpy, with keys and values written out (DeepSeek-V2, arXiv:2405.04434)."""

import math

import numpy as np
from numpy_attention import attend, rope, temperature
from numpy_model import Layer


def latent_attention(p: Layer, h: np.ndarray) -> np.ndarray:
    """Attention of a whole text [T, D] to itself, and its output projection."""
    heads, rank, rotating = (
        p.key(n) for n in ("attention.head_count", "attention.kv_lora_rank", "rope.dimension_count")
    )
    size = p.key("attention.key_length_mla") or p.key("attention.key_length")
    q = (
        p.linear(h, "attn_q")
        if p.has("attn_q")
        else p.linear(p.norm("attn_q_a_norm", p.linear(h, "attn_q_a")), "attn_q_b")
    )
    latent, turning = np.split(p.linear(h, "attn_kv_a_mqa"), [rank], -1)
    latent = p.norm("attn_kv_a_norm", latent)
    if p.has("attn_kv_b"):  # rows of keys and values, head by head
        to_keys, to_values = np.split(p.weight("attn_kv_b").reshape(heads, -1, rank), [size - rotating], 1)
    else:
        to_keys, to_values = p.weight("attn_k_b").transpose(0, 2, 1), p.weight("attn_v_b")
    q_plain, q_turning = np.split(q.reshape(len(h), heads, size), [size - rotating], -1)
    k_turning = np.broadcast_to(rope(p, turning[:, None], 1.0), (len(h), heads, rotating))
    q = np.concatenate([q_plain, rope(p, q_turning, 1.0)], -1) * temperature(p, len(h))
    k = np.concatenate([np.einsum("tr,hdr->thd", latent, to_keys), k_turning], -1)
    mixed = attend(p, q, k, np.einsum("tr,hdr->thd", latent, to_values), scale(p) / math.sqrt(size))
    return p.linear(mixed, "attn_output")


def scale(p: Layer) -> float:
    """YaRN's magnitude, of queries and of keys; the key of the file has been multiplied by 0.1."""
    multiplier = p.key("rope.scaling.yarn_log_multiplier", 0.0)
    return (1 + multiplier * math.log(p.key("rope.scaling.factor", 1.0))) ** 2
