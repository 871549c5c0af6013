"""The forward pass of every family: ids and cache in, hidden states and cache out.

The graph follows the parameters that a file holds (fused tensors, extra norms, biases, experts) and the table of
architectures. Read `transformer_block` first: it is the formula.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float, Int
from minillama.kernels import Weight, embed, matmul
from minillama.model.cache import Cache, LayerState
from minillama.model.collectives import all_gather, all_reduce, axis_index
from minillama.model.config import Config
from minillama.model.context import PassContext, See, normed, pass_context, unseen
from minillama.model.layer_kinds import Layer, source_of
from minillama.model.layers.feed_forward import feed_forward
from minillama.model.layers.mixers import mix
from minillama.model.layers.per_layer_embeddings import add_per_layer_embedding, per_layer_embeddings
from minillama.model.params import Block, Params
from minillama.model.states.recurrent import NoState


def transformer_block(
    p: Block, x: Float[Array, "B T D"], state: LayerState, ctx: PassContext, layer: Layer
) -> tuple[Float[Array, "B _ D"], LayerState]:
    """One layer: mix the tokens, then the feed-forward network, each with a residual connection."""
    h = ctx.norm("attn_norm", x, p.attn_norm, p.attn_norm_bias)
    if layer.has_mixer:
        mixed, state = mix(p, h, state, ctx, layer)
        (x, h), ctx = ctx.keep_output(x, h)
        out = ctx.see("attn_out", ctx.all_reduce(p.mixer_output(mixed, ctx.n_valid)))
        x = ctx.see("ffn_inp", ctx.add(x, ctx.norm("attn_post_norm", out, p.post_attention_norm)))
        if not ctx.config.family.parallel:
            h = ctx.norm("ffn_norm", x, p.ffn_norm, p.ffn_norm_bias)
    if p.has_network:
        out = ctx.see("ffn_out", feed_forward(p, h, x, ctx))
        x = ctx.add(x, ctx.norm("ffn_post_norm", out, p.post_ffw_norm))
    x = add_per_layer_embedding(p, x, ctx)
    return ctx.see("l_out", x if p.layer_output_scale is None else x * p.layer_output_scale[0]), state


def forward(
    params: Params,
    config: Config,
    ids: Int[Array, "B T"],
    cache: Cache,
    see: See = unseen,
    *,
    valid: Int[Array, "B"] | None = None,
) -> tuple[Float[Array, "B T D"], Cache]:
    """Run T tokens after those in the cache; hidden states, ready for `unembed`.

    The cache must have room for T more positions. valid: tokens of each text that count; None for all.
    """
    x = embed_tokens(params.token_embd, config, ids, see)
    own = per_layer_embeddings(params.per_layer, config, ids, x)
    x, after = run_layers(params.blocks, config, x, cache, params.rope_factors, per_layer=own, valid=valid, see=see)
    if valid is not None:
        after = replace(after, length=cache.length + valid)
    return output_norm(params, config, x, see), after


def forward_last(
    params: Params, config: Config, ids: Int[Array, "B T"], cache: Cache, n_valid: Int[Array, "B"]
) -> tuple[Float[Array, "B D"], Cache]:
    """Run the first `n_valid` of T tokens; the hidden state of each text's last one.

    The last layer with a state of its own computes only that for the tokens before it, and later layers nothing.
    """
    x = embed_tokens(params.token_embd, config, ids)
    own = per_layer_embeddings(params.per_layer, config, ids, x)
    x, after = run_layers(
        params.blocks, config, x, cache, params.rope_factors, per_layer=own, valid=n_valid, last_only=True
    )
    return output_norm(params, config, x)[:, 0], replace(after, length=cache.length + n_valid)


def run_layers(
    blocks: tuple[Block, ...],
    config: Config,
    x: Float[Array, "B T D"],
    cache: Cache,
    rope_factors: Float[Array, "pairs"] | None,
    first: int = 0,
    *,
    per_layer: Float[Array, "B T L P"] | None = None,
    valid: Int[Array, "B"] | None = None,
    last_only: bool = False,
    see: See = unseen,
) -> tuple[Float[Array, "B _ D"], Cache]:
    """Run consecutive layers from number `first`, with the cache of just these.

    per_layer: of all layers of the model. valid: valid tokens of each text, None for all.
    last_only: the result holds only the last valid token of each text, [B, 1, D].
    """
    shared = {"per_layer": per_layer, "valid": valid, "slots": cache.slots, "see": see}
    ctx = pass_context(config, rope_factors, cache.length, x.shape[1], **shared)
    states, tokens = list(cache.layers), x.shape[1]
    last_mixing = max((i for i, state in enumerate(states) if not isinstance(state, NoState)), default=-1)
    last = replace(ctx, output_index=valid - 1) if last_only else ctx
    if last_mixing < 0:
        (x,), ctx = last.keep_output(x)
    for i, p in enumerate(blocks):
        layer, number = config.layer(first + i), first + i
        if i == last_mixing:  # no later layer sees another token
            ctx = last
        source = source_of(layer)
        place = i if source is None else source - first
        x, state = _run_layer(p, x, states[place], ctx.of_layer(number), layer, number)
        if source is None:
            states[i] = state
        ctx = ctx.of_output()
    return x, replace(cache, layers=tuple(states), length=cache.length + jnp.int32(tokens))


def _run_layer(
    p: Block, x: Float[Array, "B T D"], state: LayerState, ctx: PassContext, layer: Layer, number: int
) -> tuple[Float[Array, "B _ D"], LayerState]:
    if not ctx.is_traced:
        return _transformer_block(p, x, state, ctx, layer)
    return transformer_block(p, x, state, replace(ctx, see=partial(_see_in_layer, ctx.see, number)), layer)


# Equal layers are traced and lowered once; XLA inlines the calls.
_transformer_block = partial(jax.jit, static_argnames="layer")(transformer_block)


def _see_in_layer(see: See, layer: int, name: str, value: Array) -> Array:
    return see(f"{name}-{layer}", value)


def embed_tokens(table: Weight, config: Config, ids: Int[Array, "B T"], see: See = unseen) -> Float[Array, "B T D"]:
    """Token embeddings, scaled where the family does so.

    The table may be this device's shard.
    """
    rows = table.shape[0]
    if rows < config.vocab_size:
        here = ids - axis_index(config.axis) * rows
        mine = (here >= 0) & (here < rows)
        x = all_reduce(jnp.where(mine[..., None], embed(jnp.where(mine, here, 0), table), 0.0), config.axis)
    else:
        x = embed(ids, table)
    if config.embedding_scale != 1:
        x = x * config.embedding_scale
    return see("inp_embd", x)


def output_norm(params: Params, config: Config, x: Float[Array, "B T D"], see: See = unseen) -> Float[Array, "B T D"]:
    """The norm before the output head."""
    return see("result_norm", normed(config, x, params.output_norm, params.output_norm_bias))


def unembed(params: Params, config: Config, x: Float[Array, "*batch D"], see: See = unseen) -> Float[Array, "*batch V"]:
    """Logits of normed hidden states; the head may be the token embedding."""
    return see("result_output", all_gather(unembed_shard(params, config, x), config.axis)[..., : config.vocab_size])


def unembed_shard(params: Params, config: Config, x: Float[Array, "*batch D"]) -> Float[Array, "*batch R"]:
    """Logits of this device's R rows of the vocabulary; all V on one device."""
    logits = matmul(x, params.token_embd) if params.output is None else params.output(x)
    if config.logit_scale != 1:
        logits = logits * config.logit_scale
    if config.final_logit_softcapping:
        cap = config.final_logit_softcapping
        logits = cap * jnp.tanh(logits / cap)
    return logits
