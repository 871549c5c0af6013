"""One forward pass for every family: ids and a cache go in, hidden states and the cache come out.

The graph follows what the parameters hold (fused tensors, extra norms, biases, experts) and what the table of
architectures says. `tap` sees every named intermediate, under llama.cpp's names, and may replace it.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from minillama.kernels import Weight, embed, matmul
from minillama.model.attention import attend, attention_weights, visible
from minillama.model.cache import Cache, write
from minillama.model.config import Config, Rope
from minillama.model.experts import mix_experts
from minillama.model.feed_forward import feed_forward
from minillama.model.params import Block, Params
from minillama.model.rope import rotate, rotation

Tap = Callable[[str, Array], Array]
Turn = tuple[Float[Array, "B T pairs"], Float[Array, "B T pairs"]]


def silent(name: str, value: Array) -> Array:
    """The tap that listens to nothing."""
    return value


def rms_norm(x: Float[Array, "*batch D"], weight: Float[Array, "D"], epsilon: float) -> Float[Array, "*batch D"]:
    """x / sqrt(mean(x²) + ε) · weight (Zhang and Sennrich 2019)."""
    scale = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return x * scale * weight.reshape((1,) * (x.ndim - 1) + (-1,))


def forward(
    params: Params, config: Config, ids: Int[Array, "B T"], cache: Cache, tap: Tap = silent
) -> tuple[Float[Array, "B T D"], Cache]:
    """Run T tokens behind those in the cache; the result is normed and ready for `unembed`.

    The cache must have room for T more positions.
    """
    x = embed_tokens(params.token_embd, config, ids, tap)
    x, cache = run_blocks(params.blocks, config, x, cache, params.rope_factors, tap=tap)
    return final_norm(params, config, x, tap), cache


def embed_tokens(table: Weight, config: Config, ids: Int[Array, "B T"], tap: Tap = silent) -> Float[Array, "B T D"]:
    """Token embeddings, scaled by sqrt(D) where the family does so."""
    x = embed(ids, table)
    if config.family.scale_embeddings:
        x = x * math.sqrt(config.embedding_length)
    return tap("inp_embd", x)


def final_norm(params: Params, config: Config, x: Float[Array, "B T D"], tap: Tap = silent) -> Float[Array, "B T D"]:
    """The norm before the head."""
    return tap("result_norm", rms_norm(x, params.output_norm, config.layer_norm_rms_epsilon))


def unembed(params: Params, config: Config, x: Float[Array, "*batch D"], tap: Tap = silent) -> Float[Array, "*batch V"]:
    """Logits of normed hidden states; the head may be the token embedding."""
    logits = matmul(x, params.token_embd) if params.output is None else params.output(x)
    if config.final_logit_softcapping:
        cap = config.final_logit_softcapping
        logits = cap * jnp.tanh(logits / cap)
    return tap("result_output", logits)


def run_blocks(
    blocks: tuple[Block, ...],
    config: Config,
    x: Float[Array, "B T D"],
    cache: Cache,
    rope_factors: Float[Array, "pairs"] | None,
    first: int = 0,
    tap: Tap = silent,
) -> tuple[Float[Array, "B T D"], Cache]:
    """Some consecutive layers, the first of which is number `first` of the model, with the cache of just these."""
    positions = cache.length[:, None] + jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    turn = rotation(config.rope, rope_factors, positions)
    local_base = config.family.local_freq_base
    local_turn = (
        turn if local_base is None else rotation(Rope(config.rope.dimension_count, local_base), None, positions)
    )
    seen = visible(positions, cache.capacity, 0)
    local_seen = visible(positions, cache.capacity, config.sliding_window) if config.sliding_window else seen
    keys, values = list(cache.keys), list(cache.values)
    for i, block in enumerate(blocks):
        layer = first + i
        local = config.is_local(layer)

        def tapped(name: str, value: Array, layer: int = layer) -> Array:
            return tap(f"{name}-{layer}", value)

        h = tapped("attn_norm", rms_norm(x, block.attn_norm, config.layer_norm_rms_epsilon))
        q, k, v = project(block, config, h, local_turn if local else turn, tapped)
        keys[i], values[i] = write(keys[i], k, cache.length), write(values[i], v, cache.length)
        weights = tapped(
            "kq_soft_max",
            attention_weights(
                q, keys[i], local_seen if local else seen, config.query_scale, config.attn_logit_softcapping
            ),
        )
        out = tapped("attn_out", block.attn_output(attend(weights, values[i])))
        if block.post_attention_norm is not None:
            out = tapped("attn_post_norm", rms_norm(out, block.post_attention_norm, config.layer_norm_rms_epsilon))
        x = tapped("ffn_inp", x + out)
        h = tapped("ffn_norm", rms_norm(x, block.ffn_norm, config.layer_norm_rms_epsilon))
        if block.ffn_gate_inp is None:
            out = tapped("ffn_out", feed_forward(block, config.family.activation, h))
        else:
            out = tapped("ffn_out", mix_experts(block, config, h))
        if block.post_ffw_norm is not None:
            out = tapped("ffn_post_norm", rms_norm(out, block.post_ffw_norm, config.layer_norm_rms_epsilon))
        x = tapped("l_out", x + out)
    length = cache.length + jnp.int32(x.shape[1])
    return x, replace(cache, keys=tuple(keys), values=tuple(values), length=length)


def project(
    block: Block, config: Config, h: Float[Array, "B T D"], turn: Turn, tap: Tap = silent
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    """Queries, keys and values of one layer: projected, normed per head where the model does so, and rotated."""
    heads, kv_heads = config.head_count, config.head_count_kv
    if block.attn_qkv is not None:
        ends = heads * config.key_length, (heads + kv_heads) * config.key_length
        q, k, v = jnp.split(block.attn_qkv(h), ends, axis=-1)
    else:
        q, k, v = block.attn_q(h), block.attn_k(h), block.attn_v(h)
    q = q.reshape(*h.shape[:2], heads, config.key_length)
    k = k.reshape(*h.shape[:2], kv_heads, config.key_length)
    v = v.reshape(*h.shape[:2], kv_heads, config.value_length)
    if block.attn_q_norm is not None:
        q = rms_norm(q, block.attn_q_norm, config.layer_norm_rms_epsilon)
    if block.attn_k_norm is not None:
        k = rms_norm(k, block.attn_k_norm, config.layer_norm_rms_epsilon)
    pairs = config.family.pairs
    return tap("Qcur", rotate(q, turn, pairs)), tap("Kcur", rotate(k, turn, pairs)), tap("Vcur", v)
