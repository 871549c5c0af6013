"""The states of layers that fold a text into a memory of fixed size.

Such a state cannot go back to an earlier position: whoever may need one keeps a checkpoint.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ConvolutionState:
    """The last inputs of a causal convolution of W + 1 taps over C channels."""

    tail: Float32[Array, "B C W"]

    def resize(self, capacity: int) -> "ConvolutionState":
        """The same: its size does not depend on the context."""
        return self

    def checkpoint(self) -> "ConvolutionState":
        """A copy."""
        return jax.tree.map(jnp.copy, self)

    def restored(self, saved: "ConvolutionState") -> "ConvolutionState":
        """A copy of a saved one."""
        return jax.tree.map(jnp.copy, saved)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class RecurrentState:
    """A matrix for each head, and the last inputs of the convolution before it."""

    memory: Float32[Array, "B heads rows columns"]
    tail: Float32[Array, "B C W"]

    def resize(self, capacity: int) -> "RecurrentState":
        """The same: its size does not depend on the context."""
        return self

    def checkpoint(self) -> "RecurrentState":
        """A copy."""
        return jax.tree.map(jnp.copy, self)

    def restored(self, saved: "RecurrentState") -> "RecurrentState":
        """A copy of a saved one."""
        return jax.tree.map(jnp.copy, saved)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoState:
    """The state of a layer that keeps nothing of earlier tokens."""

    def resize(self, capacity: int) -> "NoState":
        """Nothing to change."""
        return self

    def checkpoint(self) -> "NoState":
        """Nothing to keep."""
        return self

    def restored(self, saved: object) -> "NoState":
        """Nothing to change."""
        return self
