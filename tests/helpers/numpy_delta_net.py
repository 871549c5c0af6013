"""Gated DeltaNet in float64 numpy: the reference implementation of its layers."""

from collections.abc import Mapping

import numpy as np


def delta_rule(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, log_decay: np.ndarray, beta: np.ndarray, memory: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What queries [T, heads, size] find in memories [heads, values, keys], and the memories after the tokens."""
    memory, found = memory.astype(np.float64), np.zeros(v.shape)
    for t in range(len(v)):
        memory = memory * np.exp(log_decay[t])[:, None, None]
        d = (v[t] - np.einsum("hvk,hk->hv", memory, k[t])) * beta[t][:, None]
        memory = memory + d[:, :, None] * k[t][:, None]
        found[t] = np.einsum("hvk,hk->hv", memory, q[t])
    return found, memory


def convolve(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Causal convolution of each channel: y[t] = sum over taps of weight[c, tap] x[t - taps + 1 + tap, c]."""
    taps = weight.shape[1]
    padded = np.concatenate([np.zeros((taps - 1, x.shape[1])), x])
    return sum(padded[tap : tap + len(x)] * weight[:, tap] for tap in range(taps))


def delta_net(
    h: np.ndarray, weights: Mapping[str, np.ndarray], sizes: tuple[int, int, int], epsilon: float, grouped: bool
) -> np.ndarray:
    """The output of a layer for its normed input [T, D]; sizes: key heads, value heads, size of a head."""

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    def unit(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).sum(-1, keepdims=True) + epsilon)

    key_heads, heads, size = sizes
    count, keys, share = len(h), key_heads * size, heads // key_heads
    if "ssm_in.weight" in weights:  # [key head, q k v v z z]
        parts = np.split(
            (h @ weights["ssm_in.weight"].T).reshape(count, key_heads, -1), np.cumsum([size, size, share * size]), -1
        )
        q, k, v, gate = (part.reshape(count, -1) for part in parts)
        y = np.concatenate([q, k, v], -1)
    else:
        y, gate = h @ weights["attn_qkv.weight"].T, h @ weights["attn_gate.weight"].T
    if "ssm_ba.weight" in weights:  # [key head, betas alphas]
        parts = np.split((h @ weights["ssm_ba.weight"].T).reshape(count, key_heads, -1), 2, -1)
        beta, alpha = (part.reshape(count, -1) for part in parts)
    else:
        beta, alpha = h @ weights["ssm_beta.weight"].T, h @ weights["ssm_alpha.weight"].T
    q, k, v = np.split(silu(convolve(y, weights["ssm_conv1d.weight"])), [keys, 2 * keys], -1)
    of_head = np.arange(heads) // share if grouped else np.arange(heads) % key_heads
    q, k = (unit(x.reshape(count, key_heads, size))[:, of_head] for x in (q, k))
    log_decay = weights["ssm_a"] * np.log1p(np.exp(alpha + weights["ssm_dt.bias"]))
    found, _ = delta_rule(
        q / np.sqrt(size),
        k,
        v.reshape(count, heads, size),
        log_decay,
        1 / (1 + np.exp(-beta)),
        np.zeros((heads, size, size)),
    )
    normed = found / np.sqrt((found**2).mean(-1, keepdims=True) + epsilon) * weights["ssm_norm.weight"]
    return (normed.reshape(count, -1) * silu(gate)) @ weights["ssm_out.weight"].T
