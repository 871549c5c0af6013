"""Grouped-query attention with every kind of RoPE, in float64 numpy."""

import math

import numpy as np
from numpy_model import Layer, rms_norm, sigmoid, softmax


def attention(p: Layer, h: np.ndarray) -> np.ndarray:
    """Attention of a whole text [T, D] to itself, and its output projection."""
    heads, kv_heads, size = (p.key(f"attention.{name}") for name in ("head_count", "head_count_kv", "key_length"))
    if p.has("attn_qkv"):
        q, k, v = np.split(p.linear(h, "attn_qkv"), [heads * size, (heads + kv_heads) * size], -1)
    else:
        q, k, v = (p.linear(h, name) for name in ("attn_q", "attn_k", "attn_v"))
    gate = 1.0
    if q.shape[-1] > heads * size:  # head by head, a query and a gate of the output
        q, gate = (x.reshape(len(h), -1) for x in np.split(q.reshape(len(h), heads, 2 * size), 2, -1))
        gate = sigmoid(gate)
    q, k = turned(p, q, "attn_q_norm", heads), turned(p, k, "attn_k_norm", kv_heads)
    q = q * temperature(p, len(h))
    k, v = p.model.through_cache(*(x.reshape(len(h), kv_heads, -1) for x in (k, v)))
    k, v = (np.repeat(x, heads // kv_heads, 1) for x in (k, v))
    mixed = attend(p, q, k, v, p.key("attention.scale", 1 / math.sqrt(size)))
    return p.linear(mixed * gate, "attn_output")


def temperature(p: Layer, count: int) -> np.ndarray:
    """Factors on the queries [T, heads, H] of each position."""
    length = p.key("attention.temperature_length", p.key("rope.scaling.original_context_length", 1))
    times = np.floor(np.arange(count) / length)
    return (1 + p.key("attention.temperature_scale", 0.0) * np.log(times + 1))[:, None, None]


def attend(p: Layer, q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """The mean of values [T, heads, E], weighted by softmax(q·k scale), of each position; heads side by side."""
    scores = np.einsum("thd,shd->hts", q, k) * scale
    if cap := p.key("attn_logit_softcapping", 0):
        scores = cap * np.tanh(scores / cap)
    distance = np.arange(len(q))[:, None] - np.arange(len(q))[None]
    seen = (distance >= 0) & (distance < (p.key("attention.sliding_window") if p.is_local else len(q)))
    scores = np.where(seen, scores, -np.inf)
    if p.has("attn_sinks"):  # logits that take a share, and give nothing
        sinks = np.broadcast_to(p.weight("attn_sinks")[:, None, None], (*scores.shape[:2], 1))
        scores = np.concatenate([scores, sinks], -1)
    weights = softmax(scores)[..., : len(q)]
    return np.einsum("hts,shd->thd", weights, v).reshape(len(q), -1)


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


def rope(p: Layer, x: np.ndarray, magnitude: float | None = None) -> np.ndarray:
    """Rotate the heads of each position; magnitude: of cos and sin, by the scaling if None."""
    rotating = p.key("rope.dimension_count")
    theta, by_scaling = frequencies(p, rotating)
    magnitude = by_scaling if magnitude is None else magnitude
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
