"""The cache as a value: a step takes one and returns the next.

`state_sizes.py` has its size in bytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from minillama.array_types import Int
from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model.config import Config
from minillama.model.layer_kinds import (
    Attention,
    DeltaNet,
    LatentAttention,
    Layer,
    Mamba2,
    ShortConvolution,
)
from minillama.model.state_sizes import position_bytes, slides, window_capacity
from minillama.model.states.key_values import KeyValues
from minillama.model.states.latents import Latents
from minillama.model.states.recurrent import ConvolutionState, NoState, RecurrentState
from minillama.model.states.rows import put_row, take_row
from minillama.model.states.stores import empty_store, zeros
from minillama.model.states.window import WindowKeyValues

Counts = Int[Array, "n"] | Int[np.ndarray, "n"]

# a layer's memory of earlier tokens
LayerState = KeyValues | WindowKeyValues | Latents | RecurrentState | ConvolutionState | NoState


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Cache:
    """The state of every layer, and the length of each of B texts.

    Positions from `length` on are unspecified: attention masks them, the next step overwrites them.
    slots: the rows of the states that belong to the texts; None where text b has row b. See `select`.
    """

    layers: tuple[LayerState, ...]
    length: Int[Array, "B"]
    capacity: int = field(metadata={"static": True})  # S: positions that fit
    slots: Int[Array, "B"] | None = None

    def resize(self, capacity: int) -> "Cache":
        """The same cache with more room."""
        return replace(self, layers=tuple(layer.resize(capacity) for layer in self.layers), capacity=capacity)

    def select(self, slots: Counts, length: Counts) -> "Cache":
        """The same states, for a pass over n texts in these rows.

        length: tokens of each text. A row outside of the states stands for no text: nothing is written, and the result
        means nothing.
        """
        return replace(self, slots=jnp.asarray(slots), length=jnp.asarray(length))

    def after(self, selected: "Cache") -> "Cache":
        """This cache with the states after a pass over some rows."""
        return replace(self, layers=selected.layers)

    def take_row(self, slot: Int[Array, ""], count: int) -> "Cache":
        """A copy of one text: `count` positions, and the states of fixed size."""
        layers = tuple(layer.take_row(slot, count) for layer in self.layers)
        return Cache(layers, take_row(self.length, slot), count)

    def put_row(self, row: "Cache", slot: Int[Array, ""]) -> "Cache":
        """This cache with a text of `take_row` in a row."""
        return replace(self, layers=tuple(map(put_row, self.layers, row.layers, [slot] * len(self.layers))))

    def copy_row(self, source: Int[Array, ""], target: Int[Array, ""], count: Int[Array, ""]) -> "Cache":
        """This cache with `count` positions of a text also in another row."""
        return replace(self, layers=tuple(layer.copy_row(source, target, count) for layer in self.layers))

    def slide_row(self, slot: Int[Array, ""], first: Int[Array, "1"]) -> "Cache":
        """This cache, where the sliding windows of one text begin at a position."""

        def slide(layer: LayerState) -> LayerState:
            return put_row(layer, take_row(layer, slot).slide(first), slot)

        layers = (slide(layer) if isinstance(layer, WindowKeyValues) else layer for layer in self.layers)
        return replace(self, layers=tuple(layers))

    def slide(self, first: Int[Array, "B"] | Int[np.ndarray, "B"]) -> "Cache":
        """The cache whose sliding windows begin at these positions."""
        first = jnp.asarray(first)
        layers = (layer.slide(first) if isinstance(layer, WindowKeyValues) else layer for layer in self.layers)
        return replace(self, layers=tuple(layers))

    def checkpoint(self) -> "Cache":
        """A copy of the states that cannot go back, and nothing of the others."""
        return replace(self, layers=tuple(layer.checkpoint() for layer in self.layers), length=jnp.copy(self.length))

    def restored(self, saved: "Cache") -> "Cache":
        """The cache with the states of a checkpoint; the others keep what they hold."""
        pairs = zip(self.layers, saved.layers, strict=True)
        return replace(self, layers=tuple(layer.restored(kept) for layer, kept in pairs))

    def gather_rows(self, rows: Int[Array, "n"] | Int[np.ndarray, "n"]) -> "Cache":
        """The texts with these numbers, in this order; a text may occur several times."""
        return jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=0), self)


def empty_cache(
    config: Config,
    capacity: int,
    types: CacheTypes,
    batch: int = 1,
    layers: Sequence[Layer] | None = None,
    chunk: int | None = None,
) -> Cache:
    """An empty cache of `capacity` positions for `batch` texts, of all or some layers.

    chunk: most tokens of a pass; layers with a sliding window then keep the window only, and the caller slides it.
    Raises OptionError where a head does not divide into blocks of its type.
    """
    layers = config.layers if layers is None else layers
    states = tuple(empty_state(layer, capacity, types, batch, chunk) for layer in layers)
    return Cache(states, zeros((batch,), jnp.int32), capacity)


def empty_state(layer: Layer, capacity: int, types: CacheTypes, batch: int, chunk: int | None = None) -> LayerState:
    """The state of a layer before the first token."""
    position_bytes(layer, types)
    if slides(layer, chunk):
        most = window_capacity(layer.sliding_window, chunk)
        whole = empty_state(layer, min(capacity, most), types, batch)
        return WindowKeyValues(whole.keys, whole.values, zeros((batch, 1), jnp.int32), most)
    if isinstance(layer, Attention) and layer.source is None:
        shape = (batch, layer.head_count_kv, capacity)
        return KeyValues(
            empty_store(types.keys, *shape, layer.key_length), empty_store(types.values, *shape, layer.value_length)
        )
    if isinstance(layer, DeltaNet):
        memory = zeros((batch, layer.value_heads, layer.size, layer.size), jnp.float32)
        return RecurrentState(memory, zeros((batch, layer.channels, layer.taps - 1), jnp.float32))
    if isinstance(layer, Mamba2):
        memory = zeros((batch, layer.heads, layer.head_length, layer.state_length), jnp.float32)
        return RecurrentState(memory, zeros((batch, layer.channels, layer.taps - 1), jnp.float32))
    if isinstance(layer, ShortConvolution):
        return ConvolutionState(zeros((batch, layer.channels, layer.taps - 1), jnp.float32))
    if isinstance(layer, LatentAttention):
        return Latents(empty_store(types.keys, batch, 1, capacity, layer.cached_length))
    return NoState()
