"""Reduce the logits of many positions in chunks, which bounds the memory."""

import math
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Float, Int, Shaped
from minillama.model import Config, Params
from minillama.model.forward import unembed

LOGIT_BYTES = 1 << 26  # of logits that are in memory at a time
LEAST_ROWS = 32  # least positions of a product; with fewer the kernels idle

Result = TypeVar("Result")


def over_positions(
    reduce: Callable[..., Result],
    head: Params,
    config: Config,
    hidden: Float[Array, "B T D"],
    *operands: Shaped[Array, "B T ..."],
) -> Result:
    """`reduce` the logits of some positions after the other, and put the results together.

    The logits of all of them would take more memory than the model where the vocabulary is large. operands: arrays
    [B, T, ...]; `reduce` gets the rows of its logits, and returns a tree of arrays [n, ...].
    """
    batch, time, _ = hidden.shape
    rows = tile_rows(batch * time, config.vocab_size)
    tiles = -(-batch * time // rows)

    def cut(array: Array) -> Array:
        flat = lax.collapse(array, 0, 2)
        extra = ((0, tiles * rows - batch * time), *((0, 0) for _ in flat.shape[1:]))
        return jnp.pad(flat, extra).reshape(tiles, rows, *flat.shape[1:])

    def visit(tile: tuple[Array, ...]) -> Result:
        return reduce(unembed(head, config, tile[0]), *tile[1:])

    found = lax.map(visit, tuple(map(cut, (hidden, *operands))))

    def join(leaf: Array) -> Array:
        return lax.collapse(leaf, 0, 2)[: batch * time].reshape(batch, time, *leaf.shape[2:])

    return jax.tree.map(join, found)


def tile_rows(positions: int, vocab_size: int) -> int:
    """Positions of a chunk of logits: equal chunks, whole panels of the kernels."""
    most = max(LEAST_ROWS, LOGIT_BYTES // (4 * vocab_size))
    tiles = math.ceil(positions / most)
    return math.ceil(positions / tiles / LEAST_ROWS) * LEAST_ROWS


def negative_log_likelihood(logits: Float[Array, "n V"], targets: Int[Array, "n"]) -> Float[Array, "n"]:
    """-ln softmax(logits)[target] in nats: ln Σ exp(l - max) - (l_target - max)."""
    largest = jnp.max(logits, axis=-1)
    total = jnp.sum(jnp.exp(logits - largest[:, None]), axis=-1)
    wanted = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    return jnp.log(total) + largest - wanted
