"""One forward pass for every family: ids and a cache go in, hidden states and the cache come out.

The graph follows what the parameters hold (fused tensors, extra norms, biases, experts) and what the table of
architectures says. `tap` sees every named intermediate, under llama.cpp's names, and may replace it.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from minillama.kernels import Weight, embed, matmul
from minillama.model.attention import attend, attention, attention_weights
from minillama.model.cache import Cache, Store
from minillama.model.collectives import joined, place_on, total
from minillama.model.config import Config, Rope
from minillama.model.experts import mix_experts
from minillama.model.feed_forward import feed_forward
from minillama.model.params import Block, Params, together
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


def forward_last(
    params: Params, config: Config, ids: Int[Array, "B T"], cache: Cache, valid: Int[Array, ""]
) -> tuple[Float[Array, "B D"], Cache]:
    """Run T tokens of which the first `valid` count; the hidden state of the last of these, and the cache with them.

    The last layer does for the others only what later tokens will ask for, their keys and values.
    """
    x = embed_tokens(params.token_embd, config, ids)
    x, after = run_blocks(params.blocks, config, x, cache, params.rope_factors, valid=valid)
    return final_norm(params, config, x)[:, 0], replace(after, length=cache.length + valid)


def embed_tokens(table: Weight, config: Config, ids: Int[Array, "B T"], tap: Tap = silent) -> Float[Array, "B T D"]:
    """Token embeddings, scaled by sqrt(D) where the family does so; the table may hold this device's rows only."""
    rows = table.shape[0]
    if rows < config.vocab_size:
        here = ids - place_on(config.axis) * rows
        mine = (here >= 0) & (here < rows)
        x = total(jnp.where(mine[..., None], embed(jnp.where(mine, here, 0), table), 0.0), config.axis)
    else:
        x = embed(ids, table)
    if config.family.scale_embeddings:
        x = x * math.sqrt(config.embedding_length)
    return tap("inp_embd", x)


def final_norm(params: Params, config: Config, x: Float[Array, "B T D"], tap: Tap = silent) -> Float[Array, "B T D"]:
    """The norm before the head."""
    return tap("result_norm", rms_norm(x, params.output_norm, config.layer_norm_rms_epsilon))


def unembed(params: Params, config: Config, x: Float[Array, "*batch D"], tap: Tap = silent) -> Float[Array, "*batch V"]:
    """Logits of normed hidden states; the head may be the token embedding."""
    return tap("result_output", joined(unembed_here(params, config, x), config.axis)[..., : config.vocab_size])


def unembed_here(params: Params, config: Config, x: Float[Array, "*batch D"]) -> Float[Array, "*batch R"]:
    """The logits of the vocabulary's rows that this device holds; of all of them where nothing is spread."""
    logits = matmul(x, params.token_embd) if params.output is None else params.output(x)
    if config.final_logit_softcapping:
        cap = config.final_logit_softcapping
        logits = cap * jnp.tanh(logits / cap)
    return logits


def run_blocks(
    blocks: tuple[Block, ...],
    config: Config,
    x: Float[Array, "B T D"],
    cache: Cache,
    rope_factors: Float[Array, "pairs"] | None,
    first: int = 0,
    tap: Tap = silent,
    valid: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B _ D"], Cache]:
    """Some consecutive layers, the first of which is number `first` of the model, with the cache of just these.

    valid: how many of the tokens count, of which only the last one's result is wanted, [B, 1, D]; None for all.
    """
    counted = valid if x.shape[0] == 1 else None
    length = cache.length + jnp.int32(x.shape[1])
    positions = cache.length[:, None] + jnp.arange(x.shape[1], dtype=jnp.int32)[None]
    turn = rotation(config.rope, rope_factors, positions)
    local_base = config.family.local_freq_base
    local_turn = (
        turn if local_base is None else rotation(Rope(config.rope.dimension_count, local_base), None, positions)
    )
    keys, values = list(cache.keys), list(cache.values)
    for i, block in enumerate(blocks):
        local = config.is_local(first + i)
        state = x, keys[i], values[i], positions, local_turn if local else turn
        if tap is silent:
            only = None if valid is None or block is not blocks[-1] else valid - 1
            x, keys[i], values[i] = _run_block(block, config, local, *state, only=only, valid=counted)
        else:
            listener = partial(_numbered, tap, first + i)
            x, keys[i], values[i] = run_block(block, config, local, *state, listener)
    return x, replace(cache, keys=tuple(keys), values=tuple(values), length=length)


def run_block(
    block: Block,
    config: Config,
    local: bool,
    x: Float[Array, "B T D"],
    keys: Store,
    values: Store,
    positions: Int[Array, "B T"],
    turn: Turn,
    tap: Tap = silent,
    only: Int[Array, ""] | None = None,
    valid: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B _ D"], Store, Store]:
    """One layer: attention over what came before, then the feed-forward network; keys and values come back longer.

    local: whether the layer sees its sliding window only. turn: cos and sin of the positions' angles.
    only: the one token whose result is wanted, [B, 1, D]; None for all. valid: how many of the tokens count; products
    need not be computed for the others.
    """
    h = tap("attn_norm", rms_norm(x, block.attn_norm, config.layer_norm_rms_epsilon))
    q, k, v = project(block, config, h, turn, tap, valid)
    keys, values = keys.write(k, positions[:, 0]), values.write(v, positions[:, 0])
    if only is not None:
        x, q, positions = (jax.lax.dynamic_slice_in_dim(a, only, 1, axis=1) for a in (x, q, positions))
        valid = None
    constants = config.query_scale, config.attn_logit_softcapping, config.sliding_window if local else 0
    if tap is silent:
        mixed = attention(q, keys, values, positions, *constants)
    else:  # someone wants to see the weights, which `attention` never holds
        weights = tap("kq_soft_max", attention_weights(q, keys, positions, *constants))
        mixed = attend(weights, values)
    out = tap("attn_out", total(block.attn_output(tap("kqv_out", mixed), valid), config.axis))
    if block.post_attention_norm is not None:
        out = tap("attn_post_norm", rms_norm(out, block.post_attention_norm, config.layer_norm_rms_epsilon))
    x = tap("ffn_inp", x + out)
    h = tap("ffn_norm", rms_norm(x, block.ffn_norm, config.layer_norm_rms_epsilon))
    if block.ffn_gate_inp is None:
        out = tap("ffn_out", total(feed_forward(block, config.family.activation, h, tap, valid), config.axis))
    else:
        out = tap("ffn_out", total(mix_experts(block, config, h, valid), config.axis))
    if block.post_ffw_norm is not None:
        out = tap("ffn_post_norm", rms_norm(out, block.post_ffw_norm, config.layer_norm_rms_epsilon))
    return tap("l_out", x + out), keys, values


# Layers that are alike are traced and lowered once; XLA puts them back in line.
_run_block = partial(jax.jit, static_argnames=("config", "local"))(run_block)


def _numbered(tap: Tap, layer: int, name: str, value: Array) -> Array:
    return tap(f"{name}-{layer}", value)


def project(
    block: Block,
    config: Config,
    h: Float[Array, "B T D"],
    turn: Turn,
    tap: Tap = silent,
    valid: Int[Array, ""] | None = None,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T K H"], Float[Array, "B T K H"]]:
    """Queries, keys and values of one layer: projected, normed per head where the model does so, and rotated."""
    heads, kv_heads = config.head_count, config.head_count_kv
    if block.attn_qkv is not None:
        ends = heads * config.key_length, (heads + kv_heads) * config.key_length
        q, k, v = jnp.split(block.attn_qkv(h, valid), ends, axis=-1)
    else:
        q, k, v = together(h, block.attn_q, block.attn_k, block.attn_v, valid=valid)
    q = q.reshape(*h.shape[:2], heads, config.key_length)
    k = k.reshape(*h.shape[:2], kv_heads, config.key_length)
    v = v.reshape(*h.shape[:2], kv_heads, config.value_length)
    if block.attn_q_norm is not None:
        q = rms_norm(q, block.attn_q_norm, config.layer_norm_rms_epsilon)
    if block.attn_k_norm is not None:
        k = rms_norm(k, block.attn_k_norm, config.layer_norm_rms_epsilon)
    pairs = config.family.pairs
    return tap("Qcur", rotate(q, turn, pairs)), tap("Kcur", rotate(k, turn, pairs)), tap("Vcur", v)
