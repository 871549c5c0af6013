"""Rows of the arrays of a state: one text among several.

A row is read, written and copied where the array is: nothing else of the array moves.
"""

from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from minillama.array_types import Int

COPY_TILE = 256  # positions that are copied at a time

Tree = TypeVar("Tree")
Slot = Int[Array, ""]


@jax.jit
def take_row(tree: Tree, slot: Slot) -> Tree:
    """One row of all arrays [N, ...] of a state, as [1, ...]."""
    return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, slot, 1, axis=0), tree)


@partial(jax.jit, static_argnames="count")
def take_positions(tree: Tree, slot: Slot, count: int) -> Tree:
    """The first `count` positions of one row of arrays [N, K, S, ...]."""

    def take(leaf: Array) -> Array:
        zero = jnp.int32(0)
        return lax.dynamic_slice(leaf, (slot, zero, zero, zero), (1, leaf.shape[1], count, leaf.shape[3]))

    return jax.tree.map(take, tree)


@partial(jax.jit, donate_argnames="tree")
def put_row(tree: Tree, row: Tree, slot: Slot) -> Tree:
    """Arrays with a row of `take_row` or `take_positions` at another place."""

    def put(leaf: Array, new: Array) -> Array:
        return lax.dynamic_update_slice(leaf, new, (slot, *(jnp.int32(0) for _ in leaf.shape[1:])))

    return jax.tree.map(put, tree, row)


@partial(jax.jit, donate_argnames="tree")
def copy_positions(tree: Tree, source: Slot, target: Slot, count: Int[Array, ""]) -> Tree:
    """Arrays [N, K, S, ...] with `count` positions of a row also in another one."""

    def copy(leaf: Array) -> Array:
        zero, tile = jnp.int32(0), min(COPY_TILE, leaf.shape[2])

        def move(number: Array, leaf: Array) -> Array:
            start = jnp.minimum(number * tile, leaf.shape[2] - tile)
            shape = (1, leaf.shape[1], tile, leaf.shape[3])
            some = lax.dynamic_slice(leaf, (source, zero, start, zero), shape)
            return lax.dynamic_update_slice(leaf, some, (target, zero, start, zero))

        return lax.fori_loop(0, (count + (tile - 1)) // tile, move, leaf)

    return jax.tree.map(copy, tree)
