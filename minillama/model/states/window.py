"""The state of attention with a sliding window: the last positions only.

Its memory does not grow with the context. It holds consecutive positions; when they are used up, the window slides: the
newest ones move to the front.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array

from minillama.array_types import Float32, Int
from minillama.model.state_sizes import MARGIN
from minillama.model.states.rows import put_row, take_row
from minillama.model.states.stores import Store


def first_held(window: int, length: int) -> int:
    """The first position that stays when the window slides before token number `length`."""
    return max(0, length - (window - 1) - MARGIN)


def can_go_back(window: int, first: int, length: int) -> bool:
    """Whether a text can be cut to `length` tokens: the next sees all."""
    return first <= max(0, length - (window - 1))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WindowKeyValues:
    """Keys and values of S positions from `first` on; `most` is the largest S."""

    keys: Store
    values: Store
    first: Int[Array, "B devices"]  # the same on each device that shares the layer
    most: int = field(metadata={"static": True})

    def write(
        self,
        k: Float32[Array, "B T K H"],
        v: Float32[Array, "B T K H"],
        start: Int[Array, "B"],
        slots: Int[Array, "B"] | None = None,
    ) -> "WindowKeyValues":
        """Put T new positions after the first `start` of each text."""
        place = self.places(start[:, None], slots)[:, 0]
        keys, values = self.keys.write(k, place, slots), self.values.write(v, place, slots)
        return WindowKeyValues(keys, values, self.first, self.most)

    def places(self, positions: Int[Array, "B T"], slots: Int[Array, "B"] | None = None) -> Int[Array, "B T"]:
        """The places of positions of the text."""
        first = self.first if slots is None else jnp.take(self.first, slots, axis=0, mode="clip")
        return positions - first

    def resize(self, capacity: int) -> "WindowKeyValues":
        """The same positions with more room, if the window needs it."""
        capacity = min(capacity, self.most)
        return WindowKeyValues(self.keys.resize(capacity), self.values.resize(capacity), self.first, self.most)

    def slide(self, first: Int[Array, "B"]) -> "WindowKeyValues":
        """Forget the positions before `first`."""
        shift = first[:, None] - self.first

        def moved(leaf: Array) -> Array:
            places = (jnp.arange(leaf.shape[2], dtype=jnp.int32)[None] + shift) % leaf.shape[2]
            return jnp.take_along_axis(leaf, places[:, None, :, None], axis=2)

        keys, values = jax.tree.map(moved, (self.keys, self.values))
        return WindowKeyValues(keys, values, first[:, None], self.most)

    def take_row(self, slot: Int[Array, ""], count: int) -> "WindowKeyValues":
        """The window of one text, whatever its number of positions."""
        return take_row(self, slot)

    def copy_row(self, source: Int[Array, ""], target: Int[Array, ""], count: Int[Array, ""]) -> "WindowKeyValues":
        """These windows with that of one text also in another row."""
        return put_row(self, take_row(self, source), target)

    def checkpoint(self) -> "WindowKeyValues":
        """A copy."""
        return jax.tree.map(jnp.copy, self)

    def restored(self, saved: "WindowKeyValues") -> "WindowKeyValues":
        """A copy of a saved one, with the room that this one has."""
        return jax.tree.map(jnp.copy, saved).resize(self.keys.capacity)
