"""The storyteller's network for training: a small Llama in JAX, with GGUF's tensor names."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Weights = dict[str, Array]


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama, under the names of GGUF's metadata keys."""

    vocabulary: int = 2048
    block_count: int = 3
    embedding_length: int = 256
    feed_forward_length: int = 512
    head_count: int = 8
    head_count_kv: int = 4
    context_length: int = 512
    rope_freq_base: float = 10000.0
    layer_norm_rms_epsilon: float = 1e-5

    @property
    def head_length(self) -> int:
        return self.embedding_length // self.head_count


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor; matrices are (outputs, inputs), as in the file."""
    D, F = shape.embedding_length, shape.feed_forward_length
    KH = shape.head_count_kv * shape.head_length
    tensors: dict[str, tuple[int, ...]] = {"token_embd.weight": (shape.vocabulary, D)}
    for index in range(shape.block_count):
        block = {
            "attn_norm": (D,), "attn_q": (D, D), "attn_k": (KH, D), "attn_v": (KH, D), "attn_output": (D, D),
            "ffn_norm": (D,), "ffn_gate": (F, D), "ffn_up": (F, D), "ffn_down": (D, F),
        }  # fmt: skip
        tensors |= {f"blk.{index}.{name}.weight": size for name, size in block.items()}
    return tensors | {"output_norm.weight": (D,)}


def initialise(shape: Shape, seed: int) -> Weights:
    """Random float32 weights: norms 1, embedding 0.02, matrices 1/sqrt(inputs) or less before the residual."""
    weights = {}
    sizes = tensor_shapes(shape)
    for key, (name, size) in zip(jax.random.split(jax.random.key(seed), len(sizes)), sizes.items(), strict=True):
        if len(size) == 1:
            weights[name] = jnp.ones(size, jnp.float32)
            continue
        deviation = 0.02 if name.startswith("token_embd") else 1 / math.sqrt(size[1])
        if "attn_output" in name or "ffn_down" in name:
            deviation /= math.sqrt(2 * shape.block_count)
        weights[name] = jnp.float32(deviation) * jax.random.normal(key, size, jnp.float32)
    return weights


def rms_norm(x: Float[Array, "B T D"], gain: Float[Array, "D"], epsilon: float) -> Float[Array, "B T D"]:
    """Root mean square norm in float32 (Zhang and Sennrich 2019)."""
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + jnp.float32(epsilon))
    return x * scale * gain[None, None, :]


def rope(x: Float[Array, "B T N H"], base: float) -> Float[Array, "B T N H"]:
    """Rotate adjacent pairs of each head by position (Su 2021; "NORM" in llama.cpp)."""
    B, T, N, H = x.shape
    frequency = jnp.float32(base) ** (-jnp.arange(0, H, 2, dtype=jnp.float32) / jnp.float32(H))
    angle = jnp.arange(T, dtype=jnp.float32)[:, None] * frequency[None, :]
    cos, sin = jnp.cos(angle)[None, :, None, :], jnp.sin(angle)[None, :, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(B, T, N, H)


def multiply(x: Float[Array, "B T I"], weight: Float[Array, "O I"], bfloat16: bool) -> Float[Array, "B T O"]:
    """x @ weight.T with a float32 result; `bfloat16` rounds both factors."""
    if bfloat16:
        x, weight = x.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)
    return jnp.einsum("BTI,OI->BTO", x, weight, preferred_element_type=jnp.float32)


def forward(weights: Weights, ids: Int[Array, "B T"], shape: Shape, bfloat16: bool = False) -> Float[Array, "B T V"]:
    """Logits of every next token; `bfloat16` rounds the factors of all matmuls."""
    B, T = ids.shape
    N, K, H = shape.head_count, shape.head_count_kv, shape.head_length
    causal = jnp.tril(jnp.ones((T, T), jnp.bool_))[None, None, None, :, :]
    x = weights["token_embd.weight"][ids]
    for index in range(shape.block_count):
        w = {name: weights[f"blk.{index}.{name}.weight"] for name in BLOCK}
        h = rms_norm(x, w["attn_norm"], shape.layer_norm_rms_epsilon)
        q = rope(multiply(h, w["attn_q"], bfloat16).reshape(B, T, N, H), shape.rope_freq_base)
        k = rope(multiply(h, w["attn_k"], bfloat16).reshape(B, T, K, H), shape.rope_freq_base)
        v = multiply(h, w["attn_v"], bfloat16).reshape(B, T, K, H)
        # With the batch axes first, XLA's CPU matmuls run twice as fast.
        q = q.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4) * jnp.float32(1 / math.sqrt(H))
        k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
        scores = jnp.where(causal, jnp.einsum("BKGTH,BKSH->BKGTS", q, k), jnp.float32(-1e30))
        mixed = jnp.einsum("BKGTS,BKSH->BKGTH", jax.nn.softmax(scores, axis=-1), v)
        mixed = mixed.transpose(0, 3, 1, 2, 4).reshape(B, T, N * H)
        x = x + multiply(mixed, w["attn_output"], bfloat16)
        h = rms_norm(x, w["ffn_norm"], shape.layer_norm_rms_epsilon)
        gated = jax.nn.silu(multiply(h, w["ffn_gate"], bfloat16)) * multiply(h, w["ffn_up"], bfloat16)
        x = x + multiply(gated, w["ffn_down"], bfloat16)
    x = rms_norm(x, weights["output_norm.weight"], shape.layer_norm_rms_epsilon)
    return multiply(x, weights["token_embd.weight"], bfloat16)


BLOCK = (
    "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down",
)  # fmt: skip


def loss(weights: Weights, rows: Int[Array, "B T1"], shape: Shape, bfloat16: bool = False) -> Float[Array, ""]:
    """Mean cross-entropy of rows[:, 1:] given rows[:, :-1], in nats per token."""
    logits = forward(weights, rows[:, :-1], shape, bfloat16)
    chosen = jnp.take_along_axis(logits, rows[:, 1:, None], axis=-1)[..., 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - chosen)
