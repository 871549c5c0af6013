"""The states of layers that fold a text into a memory of fixed size.

Such a state cannot go back to an earlier position: a caller that will need one keeps a checkpoint.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32


class FixedState:
    """A state whose size does not depend on the context."""

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
