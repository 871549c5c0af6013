"""Attention in float64, query by query."""

import numpy as np

SCALE = 0.2


def slow_attention(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    positions: np.ndarray,
    softcap: float,
    window: int,
    sinks: np.ndarray | None = None,
) -> np.ndarray:
    """The formula in float64, query by query; a sink is a score whose value is zero."""
    rows = np.zeros((*q.shape[:3], values.shape[-1]))
    for b, t, n in np.ndindex(*q.shape[:3]):
        at, head = positions[b, t], n // (q.shape[2] // keys.shape[1])
        first = max(0, at + 1 - window) if window else 0
        scores = keys[b, head, first : at + 1].astype(np.float64) @ q[b, t, n] * SCALE
        scores = softcap * np.tanh(scores / softcap) if softcap else scores
        scores = np.append(scores, -np.inf if sinks is None else sinks[n])
        weights = np.exp(scores - scores.max())
        rows[b, t, n] = weights[:-1] @ values[b, head, first : at + 1] / weights.sum()
    return rows.reshape(*q.shape[:2], -1)
