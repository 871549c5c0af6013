"""The state of an attention layer: keys and values of every position."""

from dataclasses import dataclass

import jax
from jax import Array
from jaxtyping import Float32, Int

from minillama.model.states.recurrent import NoState
from minillama.model.states.stores import Store


class AllPositions:
    """A state that keeps every position, and so can go back."""

    def checkpoint(self) -> NoState:
        """Nothing: earlier positions stay as they are."""
        return NoState()

    def restored(self, saved: NoState) -> "AllPositions":
        """The same."""
        return self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class KeyValues(AllPositions):
    """The state of an attention layer: its keys and values."""

    keys: Store
    values: Store

    @property
    def capacity(self) -> int:
        """S: positions that fit."""
        return self.keys.capacity

    def write(self, k: Float32[Array, "B T K H"], v: Float32[Array, "B T K H"], start: Int[Array, "B"]) -> "KeyValues":
        """Put T new positions after the first `start` of each text."""
        return KeyValues(self.keys.write(k, start), self.values.write(v, start))

    def places(self, positions: Int[Array, "B T"]) -> Int[Array, "B T"]:
        """The places of positions of the text: each at its own."""
        return positions

    def resize(self, capacity: int) -> "KeyValues":
        """The same positions with more room."""
        return KeyValues(self.keys.resize(capacity), self.values.resize(capacity))
