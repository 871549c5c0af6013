"""Per-layer embeddings: each layer adds an embedding of its own of every token (Gemma 3n, Gemma 4).

Only the rows of the tokens are read from the table, which may be larger than all layers together.
"""

import math

from jax import Array

from minillama.array_types import Float, Int
from minillama.kernels import embed
from minillama.model.config import Config
from minillama.model.context import PassContext
from minillama.model.layers.gating import activate
from minillama.model.norm import rms_norm
from minillama.model.params import Block, PerLayerEmbeddings


def per_layer_embeddings(
    p: PerLayerEmbeddings | None, config: Config, ids: Int[Array, "B T"], x: Float[Array, "B T D"]
) -> Float[Array, "B T L P"] | None:
    """The tokens' embeddings in all layers; x: their scaled token embeddings. None in models without."""
    if p is None:
        return None
    size = config.per_layer_length
    shape = (*ids.shape, config.block_count, size)
    rows = embed(ids, p.token_embd).reshape(shape) * math.sqrt(size)
    projected = p.model_proj(x).reshape(shape) / math.sqrt(config.embedding_length)
    return (rows + rms_norm(projected, p.proj_norm, config.layer_norm_rms_epsilon)) / math.sqrt(2)


def add_per_layer_embedding(p: Block, x: Float[Array, "B T D"], ctx: PassContext) -> Float[Array, "B T D"]:
    """x + norm(proj(act(inp_gate x) · embedding)); x itself in layers without."""
    if p.inp_gate is None:
        return x
    gate = activate(p.inp_gate(x, ctx.n_valid), ctx.config.family.activation)
    return x + ctx.norm("per_layer_embd_out", p.proj(gate * ctx.per_layer, ctx.n_valid), p.post_norm)
