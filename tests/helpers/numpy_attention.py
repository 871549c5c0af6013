"""Grouped-query attention with every kind of RoPE, in float64 numpy."""

import math

import numpy as np
from numpy_model import Layer, rms_norm, softmax


def attention(p: Layer, h: np.ndarray) -> np.ndarray:
    """Attention of a whole text [T, D] to itself, and its output projection."""
    heads, kv_heads, size = (p.key(f"attention.{name}") for name in ("head_count", "head_count_kv", "key_length"))
    if p.has("attn_qkv"):
        q, k, v = np.split(p.linear(h, "attn_qkv"), [heads * size, (heads + kv_heads) * size], -1)
    else:
        q, k, v = (p.linear(h, name) for name in ("attn_q", "attn_k", "attn_v"))
    q, k = turned(p, q, "attn_q_norm", heads), turned(p, k, "attn_k_norm", kv_heads)
    if scale := p.key("attention.temperature_scale", 0.0):
        times = np.floor(np.arange(len(h)) / p.key("rope.scaling.original_context_length"))
        q = q * (1 + scale * np.log(times + 1))[:, None, None]
    k, v = (np.repeat(x.reshape(len(h), kv_heads, -1), heads // kv_heads, 1) for x in (k, v))
    scores = np.einsum("thd,shd->hts", q, k) * p.key("attention.scale", 1 / math.sqrt(size))
    if cap := p.key("attn_logit_softcapping", 0):
        scores = cap * np.tanh(scores / cap)
    distance = np.arange(len(h))[:, None] - np.arange(len(h))[None]
    seen = (distance >= 0) & (distance < (p.key("attention.sliding_window") if p.is_local else len(h)))
    mixed = np.einsum("hts,shd->thd", softmax(np.where(seen, scores, -np.inf)), v)
    return p.linear(mixed.reshape(len(h), -1), "attn_output")


def turned(p: Layer, x: np.ndarray, norm: str, heads: int) -> np.ndarray:
    """Queries or keys as heads [T, heads, H], normed and rotated."""
    epsilon, size = p.model.epsilon, p.key("attention.key_length")
    weight = p.weight(norm) if p.has(norm) else None
    if weight is not None and len(weight) > size:  # all heads at once
        x, weight = rms_norm(x, weight, epsilon), None
    x = x.reshape(len(x), heads, size)
    if weight is not None and not p.model.facts.norm_after_rope:
        x = rms_norm(x, weight, epsilon)
    x = rope(p, x) if p.rotates else x
    return rms_norm(x, weight, epsilon) if weight is not None and p.model.facts.norm_after_rope else x


def rope(p: Layer, x: np.ndarray) -> np.ndarray:
    """Rotate the heads of each position."""
    rotating = p.key("rope.dimension_count")
    theta, magnitude = frequencies(p, rotating)
    angle = (np.arange(len(x))[:, None] * theta)[:, None]
    cos, sin, y = np.cos(angle) * magnitude, np.sin(angle) * magnitude, x.copy()
    if p.model.facts.pairs:
        first, second = slice(0, rotating, 2), slice(1, rotating, 2)
    else:
        first, second = slice(0, rotating // 2), slice(rotating // 2, rotating)
    y[..., first] = x[..., first] * cos - x[..., second] * sin
    y[..., second] = x[..., second] * cos + x[..., first] * sin
    return y


def frequencies(p: Layer, rotating: int) -> tuple[np.ndarray, float]:
    """Radians a position of each pair, and the factor on cos and sin."""
    base, magnitude = p.rope_key("rope.freq_base"), p.rope_key("rope.scaling.attn_factor", 1.0)
    if alpha := p.key("rope.scaling.alpha", 0.0):
        base *= alpha ** (p.key("attention.key_length") / (p.key("attention.key_length") - 2))
    theta, pair = base ** (-2 * np.arange(rotating // 2) / rotating), np.arange(rotating // 2)
    scaling, factor = p.rope_key("rope.scaling.type"), p.key("rope.scaling.factor", 1.0)
    original = p.key("rope.scaling.original_context_length", 0)
    tensors = p.model.tensors
    if "rope_factors_long.weight" in tensors and p.model.ctx_size > original:
        theta = theta / tensors["rope_factors_long.weight"]
    if "rope_freqs.weight" in tensors and p.rope_key("factors", True):
        theta = theta / tensors["rope_freqs.weight"]
    if scaling == "linear":
        theta = theta / factor
    if scaling == "yarn":

        def dim(turns: float) -> float:
            return rotating * math.log(original / (2 * math.pi * turns)) / (2 * math.log(base))

        fast, slow = p.key("rope.scaling.yarn_beta_fast", 32.0), p.key("rope.scaling.yarn_beta_slow", 1.0)
        low, high = max(0, math.floor(dim(fast))), min(rotating - 1, math.ceil(dim(slow)))
        mix = 1 - np.clip((pair - low) / max(0.001, high - low), 0, 1)
        theta = theta / factor * (1 - mix) + theta * mix
        multiplier = p.key("rope.scaling.yarn_log_multiplier", 0.0)
        magnitude *= (1 + 0.1 * math.log(factor)) / (1 + 0.1 * multiplier * math.log(factor))
    return theta, magnitude
