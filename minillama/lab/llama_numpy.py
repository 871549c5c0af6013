"""A Llama in plain numpy: five small functions that show what the engine computes, and that can be swapped one by one.

Shapes in the alphabet of the package: T tokens, S keys, D model, F feed-forward, N query heads, K key/value heads,
H head size, V vocabulary. Matrices are stored (outputs, inputs), so y = x Wᵀ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from minillama.gguf import GGUF, dequantize

Array = np.ndarray
WEIGHT_NAMES = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


@dataclass(frozen=True)
class Sizes:
    """What a layer has to know beside its weights."""

    heads: int  # N
    kv_heads: int  # K
    epsilon: float
    base: float  # of the rotation


def rms_norm(x: Float[Array, "*T D"], weight: Float[Array, "D"], epsilon: float) -> Float[Array, "*T D"]:
    """x / sqrt(mean(x²) + ε) · weight (Zhang and Sennrich 2019)."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rope(x: Float[Array, "T N H"], base: float) -> Float[Array, "T N H"]:
    """Rotate pairs (0, 1), (2, 3), ... of each head by position · base^(-2i/H) (Su et al. 2021; llama.cpp's NORM)."""
    tokens, _, size = x.shape
    angle = np.arange(tokens)[:, None] * base ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def softmax(scores: Float[Array, "*batch S"]) -> Float[Array, "*batch S"]:
    """Probabilities along the last axis."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attention(q: Float[Array, "T N H"], k: Float[Array, "T K H"], v: Float[Array, "T K H"]) -> Float[Array, "T NH"]:
    """Causal attention; N/K neighbouring query heads share a key/value head (Ainslie et al. 2023)."""
    tokens, heads, size = q.shape
    k, v = (np.repeat(part, heads // part.shape[1], axis=1) for part in (k, v))
    scores = np.einsum("TNH,SNH->NTS", q, k) / np.sqrt(size)
    weights = softmax(np.where(np.tri(tokens, dtype=bool), scores, -np.inf))
    return np.einsum("NTS,SNH->TNH", weights, v).reshape(tokens, heads * size)


def swiglu(
    x: Float[Array, "T D"], gate: Float[Array, "F D"], up: Float[Array, "F D"], down: Float[Array, "D F"]
) -> Float[Array, "T D"]:
    """(silu(x Gᵀ) · x Uᵀ) Dᵀ with silu(z) = z / (1 + e^-z) (Shazeer 2020)."""
    z = x @ gate.T
    return (z / (1 + np.exp(-z)) * (x @ up.T)) @ down.T


@dataclass(frozen=True)
class Functions:
    """The four functions a layer is made of; swap one to see what it is good for."""

    rms_norm: Callable[..., Array] = rms_norm
    rope: Callable[..., Array] = rope
    attention: Callable[..., Array] = attention
    swiglu: Callable[..., Array] = swiglu


def layer(
    x: Float[Array, "T D"], w: Mapping[str, Array], sizes: Sizes, functions: Functions | None = None
) -> Float[Array, "T D"]:
    """One layer: x + attention(norm(x)), and to that its own swiglu(norm(...))."""
    return layer_activations(x, w, sizes, functions or Functions())["l_out"]


def layer_activations(x: Array, w: Mapping[str, Array], sizes: Sizes, f: Functions) -> dict[str, Array]:
    """The intermediate results of one layer under llama.cpp's names."""
    step: dict[str, Array] = {}
    tokens = len(x)
    h = step["attn_norm"] = f.rms_norm(x, w["attn_norm"], sizes.epsilon)
    step["Qcur"] = f.rope((h @ w["attn_q"].T).reshape(tokens, sizes.heads, -1), sizes.base)
    step["Kcur"] = f.rope((h @ w["attn_k"].T).reshape(tokens, sizes.kv_heads, -1), sizes.base)
    step["Vcur"] = (h @ w["attn_v"].T).reshape(tokens, sizes.kv_heads, -1)
    step["kqv_out"] = f.attention(step["Qcur"], step["Kcur"], step["Vcur"])
    step["attn_out"] = step["kqv_out"] @ w["attn_output"].T
    step["ffn_inp"] = x + step["attn_out"]
    h = step["ffn_norm"] = f.rms_norm(step["ffn_inp"], w["ffn_norm"], sizes.epsilon)
    step["ffn_out"] = f.swiglu(h, w["ffn_gate"], w["ffn_up"], w["ffn_down"])
    step["l_out"] = step["ffn_inp"] + step["ffn_out"]
    return step


def read_sizes(file: GGUF) -> Sizes:
    """The sizes, from the metadata of a file of the family llama."""
    return Sizes(
        heads=file.require("llama.attention.head_count", int),
        kv_heads=file.require("llama.attention.head_count_kv", int),
        epsilon=file.require("llama.attention.layer_norm_rms_epsilon", float),
        base=file.require("llama.rope.freq_base", float),
    )


def read_layers(file: GGUF) -> list[dict[str, Array]]:
    """The weights of every layer as float32, by their names in the file."""
    count = file.require("llama.block_count", int)
    return [{name: dequantize(file.tensors[f"blk.{i}.{name}.weight"]) for name in WEIGHT_NAMES} for i in range(count)]


def forward(file: GGUF, ids: Sequence[int], functions: Functions | None = None) -> dict[str, Array]:
    """The named activations of one forward pass, as `llm.trace` gives them, but for what is inside a function."""
    table, sizes = dequantize(file.tensors["token_embd.weight"]), read_sizes(file)
    f = functions or Functions()
    x = table[list(ids)]
    found = {"inp_embd": x}
    for number, weights in enumerate(read_layers(file)):
        steps = layer_activations(x, weights, sizes, f)
        found |= {f"{name}-{number}": value for name, value in steps.items()}
        x = steps["l_out"]
    found["result_norm"] = f.rms_norm(x, dequantize(file.tensors["output_norm.weight"]), sizes.epsilon)
    head = dequantize(file.tensors["output.weight"]) if "output.weight" in file.tensors else table
    return found | {"result_output": found["result_norm"] @ head.T}


def relative_difference(mine: Array, theirs: Array) -> float:
    """Root mean square of the difference, as a share of the root mean square of what it should be."""
    return float(np.sqrt(np.mean((mine - theirs) ** 2) / np.mean(theirs**2)))
