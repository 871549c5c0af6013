"""A Llama in plain numpy: one short function for each formula.

Read this file first, from top to bottom: four formulas, a layer made of them, and the whole model. Lab 03 asks you to
write the formulas yourself. Then read `minillama/model/forward.py`: the same model in JAX, for all families of models
and with a KV cache. `minillama/engine/stream.py` is the loop that turns logits into text.

Shapes: T tokens, S keys, D model width, F feed-forward width, N query heads, K key/value heads, H head size,
V vocabulary. A matrix is stored as (outputs, inputs), so a product is y = x Wᵀ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from minillama.array_types import Float
from minillama.gguf import GGUF, dequantize

Array = np.ndarray

# The tensors of one layer: `blk.0.attn_norm.weight` in the file is `attn_norm` here.
WEIGHT_NAMES = (
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_output",
    "ffn_norm",
    "ffn_gate",
    "ffn_up",
    "ffn_down",
)


@dataclass(frozen=True)
class Sizes:
    """Sizes and constants of a layer."""

    heads: int  # N
    kv_heads: int  # K
    epsilon: float  # of RMSNorm
    base: float  # of RoPE's angles


def rms_norm(x: Float[Array, "*T D"], weight: Float[Array, "D"], epsilon: float) -> Float[Array, "*T D"]:
    """RMSNorm: x / sqrt(mean(x²) + ε) · weight (Zhang and Sennrich 2019)."""
    mean_square = np.mean(x * x, axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + epsilon) * weight


def rope(x: Float[Array, "T N H"], base: float) -> Float[Array, "T N H"]:
    """Rotary position embedding of neighbouring pairs (Su et al. 2021; llama.cpp's NORM).

    The token at position t has its pair i, the numbers 2i and 2i + 1, rotated by the angle t · base^(-2i/H).
    """
    tokens, _, size = x.shape
    angle = np.arange(tokens)[:, None] * base ** (-np.arange(0, size, 2) / size)
    cos, sin = np.cos(angle)[:, None, :], np.sin(angle)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def softmax(scores: Float[Array, "*batch S"]) -> Float[Array, "*batch S"]:
    """Probabilities along the last axis: exp(s) / Σ exp(s)."""
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def attention(q: Float[Array, "T N H"], k: Float[Array, "T K H"], v: Float[Array, "T K H"]) -> Float[Array, "T NH"]:
    """Causal grouped-query attention: softmax(q kᵀ / sqrt(H)) v (Ainslie et al. 2023).

    N/K neighbouring query heads share one key/value head.
    """
    tokens, heads, size = q.shape
    k, v = (np.repeat(shared, heads // shared.shape[1], axis=1) for shared in (k, v))
    scores = np.einsum("TNH,SNH->NTS", q, k) / np.sqrt(size)
    causal = np.tri(tokens, dtype=bool)  # a query sees the keys up to its own position
    weights = softmax(np.where(causal, scores, -np.inf))
    return np.einsum("NTS,SNH->TNH", weights, v).reshape(tokens, heads * size)


def silu(z: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The activation z · sigmoid(z) = z / (1 + e^-z)."""
    return z / (1 + np.exp(-z))


def swiglu(
    x: Float[Array, "T D"], gate: Float[Array, "F D"], up: Float[Array, "F D"], down: Float[Array, "D F"]
) -> Float[Array, "T D"]:
    """The gated feed-forward (silu(x gateᵀ) · x upᵀ) downᵀ (Shazeer 2020)."""
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


@dataclass(frozen=True)
class Functions:
    """The four formulas of a layer. Replace one to see its effect."""

    rms_norm: Callable[..., Array] = rms_norm
    rope: Callable[..., Array] = rope
    attention: Callable[..., Array] = attention
    swiglu: Callable[..., Array] = swiglu


def layer(
    x: Float[Array, "T D"], w: Mapping[str, Array], sizes: Sizes, functions: Functions | None = None
) -> Float[Array, "T D"]:
    """One layer: x = x + attention(norm(x)), then x + swiglu(norm(x))."""
    return layer_activations(x, w, sizes, functions or Functions())["l_out"]


def layer_activations(x: Array, w: Mapping[str, Array], sizes: Sizes, f: Functions) -> dict[str, Array]:
    """All intermediate results of one layer, under llama.cpp's names."""
    tokens, a = len(x), {}
    h = a["attn_norm"] = f.rms_norm(x, w["attn_norm"], sizes.epsilon)
    q = a["Qcur"] = f.rope((h @ w["attn_q"].T).reshape(tokens, sizes.heads, -1), sizes.base)
    k = a["Kcur"] = f.rope((h @ w["attn_k"].T).reshape(tokens, sizes.kv_heads, -1), sizes.base)
    v = a["Vcur"] = (h @ w["attn_v"].T).reshape(tokens, sizes.kv_heads, -1)
    a["kqv_out"] = f.attention(q, k, v)
    a["attn_out"] = a["kqv_out"] @ w["attn_output"].T
    x = a["ffn_inp"] = x + a["attn_out"]
    h = a["ffn_norm"] = f.rms_norm(x, w["ffn_norm"], sizes.epsilon)
    a["ffn_out"] = f.swiglu(h, w["ffn_gate"], w["ffn_up"], w["ffn_down"])
    a["l_out"] = x + a["ffn_out"]
    return a


def forward(file: GGUF, ids: Sequence[int], functions: Functions | None = None) -> dict[str, Array]:
    """One forward pass: every activation by its name, as `llm.trace` returns them.

    `result_output` holds the logits [T, V]. Activations inside of a formula are not included.
    """
    sizes, f = read_sizes(file), functions or Functions()
    embedding = dequantize(file.tensors["token_embd.weight"])
    x = embedding[list(ids)]
    activations = {"inp_embd": x}
    for index, weights in enumerate(read_layers(file)):
        results = layer_activations(x, weights, sizes, f)
        activations |= {f"{name}-{index}": value for name, value in results.items()}
        x = results["l_out"]
    x = activations["result_norm"] = f.rms_norm(x, dequantize(file.tensors["output_norm.weight"]), sizes.epsilon)
    tied = "output.weight" not in file.tensors  # the embedding is the output matrix too
    output = embedding if tied else dequantize(file.tensors["output.weight"])
    return activations | {"result_output": x @ output.T}


def read_sizes(file: GGUF) -> Sizes:
    """Read the sizes from the metadata of a Llama, or of a relative."""
    family = file.require("general.architecture", str)
    return Sizes(
        heads=file.require(f"{family}.attention.head_count", int),
        kv_heads=file.require(f"{family}.attention.head_count_kv", int),
        epsilon=file.require(f"{family}.attention.layer_norm_rms_epsilon", float),
        base=file.require(f"{family}.rope.freq_base", float),
    )


def is_plain_llama(file: GGUF, most: int = 200_000_000) -> bool:
    """True if `forward` computes this file: a Llama without further tensors or scaled angles.

    most: weights, because each takes four bytes here.
    """
    names = {name for name in file.tensors if name.startswith("blk.")}
    count = file.metadata.get("llama.block_count", 0)
    scaled = any(".rope.scaling." in key for key in file.metadata) or "rope_freqs.weight" in file.tensors
    wanted = {f"blk.{layer}.{name}.weight" for layer in range(count) for name in WEIGHT_NAMES}
    return bool(names) and names == wanted and not scaled and sum(t.size for t in file.tensors.values()) <= most


def read_layers(file: GGUF) -> list[dict[str, Array]]:
    """Read the weights of every layer as float32, by `WEIGHT_NAMES`."""
    count = file.require("llama.block_count", int)
    return [{name: dequantize(file.tensors[f"blk.{i}.{name}.weight"]) for name in WEIGHT_NAMES} for i in range(count)]


def relative_difference(mine: Array, reference: Array) -> float:
    """Root mean square of the difference, divided by that of the reference."""
    return float(np.sqrt(np.mean((mine - reference) ** 2) / np.mean(reference**2)))
