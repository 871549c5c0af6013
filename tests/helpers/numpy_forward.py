"""Forward pass of every family in float64 numpy: the reference implementation of `minillama.model`."""

import math
from collections.abc import Mapping

import numpy as np


def rms_norm(x: np.ndarray, weight: np.ndarray, epsilon: float) -> np.ndarray:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def forward(metadata: Mapping, tensors: Mapping[str, np.ndarray], tokens: list[int], ctx_size: int) -> np.ndarray:
    """Logits [T, V] of all positions."""
    architecture = metadata["general.architecture"]

    def get(key: str, default: object = None) -> object:
        return metadata.get(f"{architecture}.{key}", default)

    layers, width = get("block_count"), get("embedding_length")
    heads, kv_heads, size = get("attention.head_count"), get("attention.head_count_kv"), get("attention.key_length")
    epsilon, window = get("attention.layer_norm_rms_epsilon"), get("attention.sliding_window", 0)
    rotating, base = get("rope.dimension_count"), get("rope.freq_base")
    scaling, factor = get("rope.scaling.type"), get("rope.scaling.factor", 1.0)
    original = get("rope.scaling.original_context_length", 0)
    gemma, count = architecture.startswith("gemma"), len(tokens)
    positions = np.arange(count)

    def rope(x: np.ndarray, base: float, scaled: bool = True) -> np.ndarray:
        theta, magnitude = base ** (-2 * np.arange(rotating // 2) / rotating), get("rope.scaling.attn_factor", 1.0)
        if "rope_factors_long.weight" in tensors and ctx_size > original:
            theta = theta / tensors["rope_factors_long.weight"]
        if "rope_freqs.weight" in tensors:
            theta = theta / tensors["rope_freqs.weight"]
        if scaling == "linear" and scaled:
            theta = theta / factor
        if scaling == "yarn":

            def dim(turns: float) -> float:
                return rotating * math.log(original / (2 * math.pi * turns)) / (2 * math.log(base))

            low, high = max(0, math.floor(dim(32))), min(rotating - 1, math.ceil(dim(1)))
            mix = 1 - np.clip((np.arange(rotating // 2) - low) / max(0.001, high - low), 0, 1)
            theta, magnitude = theta / factor * (1 - mix) + theta * mix, 1 + 0.1 * math.log(factor)
        angle = (positions[:, None] * theta)[:, None]
        cos, sin, y = np.cos(angle) * magnitude, np.sin(angle) * magnitude, x.copy()
        first = slice(0, rotating, 2) if architecture in ("llama", "chatglm", "glm4") else slice(0, rotating // 2)
        second = slice(1, rotating, 2) if first.step else slice(rotating // 2, rotating)
        y[..., first] = x[..., first] * cos - x[..., second] * sin
        y[..., second] = x[..., second] * cos + x[..., first] * sin
        return y

    x = tensors["token_embd.weight"][tokens] * (math.sqrt(width) if gemma else 1)
    for layer in range(layers):

        def weight(name: str, layer: int = layer) -> np.ndarray:
            return tensors[f"blk.{layer}.{name}.weight"]

        def has(name: str, layer: int = layer) -> bool:
            return f"blk.{layer}.{name}.weight" in tensors

        def linear(h: np.ndarray, name: str, layer: int = layer) -> np.ndarray:
            return h @ weight(name).T + tensors.get(f"blk.{layer}.{name}.bias", 0.0)

        h = rms_norm(x, weight("attn_norm"), epsilon)
        if has("attn_qkv"):
            q, k, v = np.split(linear(h, "attn_qkv"), [heads * size, (heads + kv_heads) * size], -1)
        else:
            q, k, v = (linear(h, name) for name in ("attn_q", "attn_k", "attn_v"))
        q, k, v = q.reshape(count, heads, size), k.reshape(count, kv_heads, size), v.reshape(count, kv_heads, size)
        if has("attn_q_norm"):
            q, k = rms_norm(q, weight("attn_q_norm"), epsilon), rms_norm(k, weight("attn_k_norm"), epsilon)
        local = {"gemma2": layer % 2 == 0, "gemma3": layer % 6 < 5}.get(architecture, False)
        plain = architecture == "gemma3" and local
        q, k = (rope(a, 10000.0 if plain else base, not plain) for a in (q, k))
        k, v = np.repeat(k, heads // kv_heads, 1), np.repeat(v, heads // kv_heads, 1)
        scores = np.einsum("thd,shd->hts", q, k) / math.sqrt(size)
        if cap := get("attn_logit_softcapping", 0):
            scores = cap * np.tanh(scores / cap)
        distance = positions[:, None] - positions[None]
        seen = (distance >= 0) & ((distance < window) if local else True)
        mixed = np.einsum("hts,shd->thd", softmax(np.where(seen, scores, -np.inf)), v)
        out = linear(mixed.reshape(count, -1), "attn_output")
        x = x + (rms_norm(out, weight("post_attention_norm"), epsilon) if has("post_attention_norm") else out)
        h = rms_norm(x, weight("ffn_norm"), epsilon)
        act = gelu if gemma else silu
        if has("ffn_gate_inp"):
            out = np.zeros_like(h)
            for t, probabilities in enumerate(softmax(h @ weight("ffn_gate_inp").T)):
                chosen = np.argsort(-probabilities)[: get("expert_used_count")]
                share = probabilities[chosen] / (1 if architecture == "qwen2moe" else probabilities[chosen].sum())
                for e, s in zip(chosen, share, strict=True):
                    opened = act(weight("ffn_gate_exps")[e] @ h[t]) * (weight("ffn_up_exps")[e] @ h[t])
                    out[t] += s * (weight("ffn_down_exps")[e] @ opened)
            if has("ffn_gate_shexp"):
                opened = act(linear(h, "ffn_gate_shexp")) * linear(h, "ffn_up_shexp")
                out += linear(opened, "ffn_down_shexp") / (1 + np.exp(-h @ weight("ffn_gate_inp_shexp")))[:, None]
        else:
            gated = (
                (linear(h, "ffn_gate"), linear(h, "ffn_up"))
                if has("ffn_gate")
                else np.split(linear(h, "ffn_up"), 2, -1)
            )
            out = linear(act(gated[0]) * gated[1], "ffn_down")
        x = x + (rms_norm(out, weight("post_ffw_norm"), epsilon) if has("post_ffw_norm") else out)
    head = tensors.get("output.weight", tensors["token_embd.weight"])
    logits = rms_norm(x, tensors["output_norm.weight"], epsilon) @ head.T
    cap = get("final_logit_softcapping", 0)
    return cap * np.tanh(logits / cap) if cap else logits
