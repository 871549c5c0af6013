"""Feed-forward networks, dense and as mixtures of experts, in float64 numpy."""

import numpy as np
from numpy_model import Layer, sigmoid, softmax

GATINGS = {1: softmax, 2: sigmoid}


def feed_forward(p: Layer, h: np.ndarray) -> np.ndarray:
    """The network of a layer."""
    return experts(p, h) if p.has("ffn_gate_inp") else dense(p, h)


def dense(p: Layer, h: np.ndarray, kind: str = "") -> np.ndarray:
    """One network; kind: the ending of its tensors."""
    up, facts = p.linear(h, f"ffn_up{kind}"), p.model.facts
    if p.has(f"ffn_gate{kind}"):
        return p.linear(facts.glu(p.linear(h, f"ffn_gate{kind}"), up), f"ffn_down{kind}")
    if up.shape[-1] > p.weight(f"ffn_down{kind}").shape[-1]:  # rows of gate and up in one
        gate, up = np.split(up, 2, -1)
        return p.linear(facts.glu(gate, up), f"ffn_down{kind}")
    return p.linear(facts.activation(up), f"ffn_down{kind}")


def experts(p: Layer, h: np.ndarray) -> np.ndarray:
    """The weighted sum of the chosen experts, token by token."""

    def product(name: str, e: int, x: np.ndarray) -> np.ndarray:
        return p.weight(name)[e] @ x + np.broadcast_to(p.bias(name), p.weight(name).shape[:2])[e]

    out = np.zeros_like(h)
    for t, logits in enumerate(p.linear(h, "ffn_gate_inp")):
        for e, share in zip(*route(p, logits), strict=True):
            opened = p.model.facts.glu(product("ffn_gate_exps", e, h[t]), product("ffn_up_exps", e, h[t]))
            out[t] += share * product("ffn_down_exps", e, opened)
    if not p.has("ffn_gate_shexp"):
        return out
    shared = dense(p, h, "_shexp")
    return out + (
        shared * sigmoid(h @ p.weight("ffn_gate_inp_shexp"))[:, None] if p.has("ffn_gate_inp_shexp") else shared
    )


def route(p: Layer, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and weights of the experts of one token."""
    facts = p.model.facts
    probabilities = logits if facts.of_chosen else GATINGS.get(p.key("expert_gating_func"), facts.gating)(logits)
    scores = probabilities + p.bias("exp_probs_b")
    if (groups := p.key("expert_group_count", 1)) > 1:
        grouped = scores.reshape(groups, -1)
        best = np.argsort(-np.sort(grouped, -1)[:, -2:].sum(-1))[: p.key("expert_group_used_count")]
        scores = np.where(np.isin(np.arange(groups), best)[:, None], grouped, -np.inf).reshape(-1)
    chosen = np.argsort(-scores)[: p.key("expert_used_count")]
    shares = softmax(probabilities[chosen]) if facts.of_chosen else probabilities[chosen]
    if p.key("expert_weights_norm", facts.normalises):
        shares = shares / shares.sum()
    return chosen, shares * p.key("expert_weights_scale", 1.0)
