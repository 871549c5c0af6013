"""Mamba-2 and short convolutions in float64 numpy: the reference implementation of their layers."""

from collections.abc import Mapping

import numpy as np
from numpy_delta_net import convolve
from numpy_model import silu


def state_space(
    x: np.ndarray, b: np.ndarray, c: np.ndarray, log_decay: np.ndarray, memory: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Results of inputs [T, heads, P] with projections [T, groups, N], and the memories [heads, P, N] after them."""
    memory, found, share = memory.astype(np.float64), np.zeros(x.shape), x.shape[1] // b.shape[1]
    for t in range(len(x)):
        into, out = (np.repeat(a[t], share, axis=0) for a in (b, c))
        memory = memory * np.exp(log_decay[t])[:, None, None] + x[t][:, :, None] * into[:, None]
        found[t] = np.einsum("hpn,hn->hp", memory, out)
    return found, memory


def mamba2(h: np.ndarray, weights: Mapping[str, np.ndarray], sizes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """The output of a layer for its normed input [T, D]; sizes: inner, state, heads, groups."""
    inner, state, heads, groups = sizes
    count = len(h)
    z, y, step = np.split(h @ weights["ssm_in.weight"].T, [inner, 2 * inner + 2 * groups * state], -1)
    y = silu(convolve(y, weights["ssm_conv1d.weight"]) + weights["ssm_conv1d.bias"])
    x, b, c = np.split(y, [inner, inner + groups * state], -1)
    x, b, c = x.reshape(count, heads, -1), b.reshape(count, groups, -1), c.reshape(count, groups, -1)
    step = np.log1p(np.exp(step + weights["ssm_dt.bias"]))
    memory = np.zeros((heads, inner // heads, state))
    found, _ = state_space(x * step[..., None], b, c, step * weights["ssm_a"][:, 0], memory)
    found = (found + x * weights["ssm_d"]).reshape(count, inner) * silu(z)
    parts = found.reshape(count, groups, -1)
    normed = parts / np.sqrt((parts**2).mean(-1, keepdims=True) + epsilon) * weights["ssm_norm.weight"]
    return normed.reshape(count, inner) @ weights["ssm_out.weight"].T


def short_convolution(h: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """The output of a layer for its normed input [T, D]."""
    b, c, x = np.split(h @ weights["shortconv.in_proj.weight"].T, 3, -1)
    return (c * convolve(b * x, weights["shortconv.conv.weight"])) @ weights["shortconv.out_proj.weight"].T
