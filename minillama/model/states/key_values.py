"""The state of an attention layer: keys and values of every position."""

from dataclasses import dataclass
from typing import TypeVar

import jax
from jax import Array

from minillama.array_types import Float32, Int
from minillama.model.states.recurrent import NoState
from minillama.model.states.rows import copy_positions, take_positions
from minillama.model.states.stores import Store

State = TypeVar("State", bound="AllPositions")


class AllPositions:
    """A state that keeps every position, and so can go back."""

    def take_row(self: State, slot: Int[Array, ""], count: int) -> State:
        """The first `count` positions of one text."""
        return take_positions(self, slot, count)

    def copy_row(self: State, source: Int[Array, ""], target: Int[Array, ""], count: Int[Array, ""]) -> State:
        """These states with the first `count` positions of one text also in another row."""
        return copy_positions(self, source, target, count)

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

    def write(
        self,
        k: Float32[Array, "B T K H"],
        v: Float32[Array, "B T K H"],
        start: Int[Array, "B"],
        slots: Int[Array, "B"] | None = None,
    ) -> "KeyValues":
        """Put T new positions after the first `start` of each text."""
        return KeyValues(self.keys.write(k, start, slots), self.values.write(v, start, slots))

    def places(self, positions: Int[Array, "B T"], slots: Int[Array, "B"] | None = None) -> Int[Array, "B T"]:
        """The places of positions of the text: each at its own."""
        return positions

    def resize(self, capacity: int) -> "KeyValues":
        """The same positions with more room."""
        return KeyValues(self.keys.resize(capacity), self.values.resize(capacity))
