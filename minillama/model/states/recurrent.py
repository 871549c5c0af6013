"""The states of layers that fold a text into a memory of fixed size.

Such a state cannot go back to an earlier position: a caller that will need one keeps a checkpoint.
"""

from dataclasses import dataclass
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float32, Int
from minillama.model.states.rows import put_row, take_row

State = TypeVar("State", bound="FixedState")


class FixedState:
    """A state whose size does not depend on the context."""

    def take_row(self: State, slot: Int[Array, ""], count: int) -> State:
        """The state of one text, whatever its number of positions."""
        return take_row(self, slot)

    def copy_row(self: State, source: Int[Array, ""], target: Int[Array, ""], count: Int[Array, ""]) -> State:
        """These states with that of one text also in another row."""
        return put_row(self, take_row(self, source), target)

    def of_rows(self: State, slots: Int[Array, "B"], start: Int[Array, "B"]) -> State:
        """The states of texts in these rows; that of an empty text at position 0."""

        def take(leaf: Array) -> Array:
            is_begun = (start > 0).reshape(-1, *(1 for _ in leaf.shape[1:]))
            return jnp.where(is_begun, jnp.take(leaf, slots, axis=0, mode="clip"), 0)

        return jax.tree.map(take, self)

    def with_rows(self: State, new: State, slots: Int[Array, "B"]) -> State:
        """These states with new ones in some rows; one outside of them writes nothing."""
        return jax.tree.map(lambda leaf, rows: leaf.at[slots].set(rows, mode="drop"), self, new)

    def resize(self, capacity: int) -> "FixedState":
        """The same."""
        return self

    def checkpoint(self) -> "FixedState":
        """A copy."""
        return jax.tree.map(jnp.copy, self)

    def restored(self, saved: "FixedState") -> "FixedState":
        """A copy of a saved one."""
        return jax.tree.map(jnp.copy, saved)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ConvolutionState(FixedState):
    """The last inputs of a causal convolution of W + 1 taps over C channels."""

    tail: Float32[Array, "B C W"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RecurrentState(FixedState):
    """A matrix for each head, and the last inputs of the convolution before it."""

    memory: Float32[Array, "B heads rows columns"]
    tail: Float32[Array, "B C W"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoState(FixedState):
    """The state of a layer that keeps nothing of earlier tokens."""
