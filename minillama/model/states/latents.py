"""The state of a layer with latent attention: one latent for each position."""

from dataclasses import dataclass

import jax
from jax import Array

from minillama.array_types import Float32, Int
from minillama.model.states.key_values import AllPositions
from minillama.model.states.stores import FirstChannels, Store


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Latents(AllPositions):
    """The latents of every position, each followed by the rotated channels of keys."""

    keys: Store

    @property
    def capacity(self) -> int:
        """S: positions that fit."""
        return self.keys.capacity

    def values(self, kv_lora_rank: int) -> FirstChannels:
        """The latents alone."""
        return FirstChannels(self.keys, kv_lora_rank)

    def write(
        self, new: Float32[Array, "B T 1 H"], start: Int[Array, "B"], slots: Int[Array, "B"] | None = None
    ) -> "Latents":
        """Put T new positions after the first `start` of each text."""
        return Latents(self.keys.write(new, start, slots))

    def resize(self, capacity: int) -> "Latents":
        """The same positions with more room."""
        return Latents(self.keys.resize(capacity))
