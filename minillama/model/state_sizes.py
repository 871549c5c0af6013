"""Bytes of the states of layers: those that grow with a text, and others.

Nothing here imports JAX.
"""

from dataclasses import dataclass
from typing import TypeGuard

from minillama.gguf.kv_cache_types import CacheTypes
from minillama.model.config import Config
from minillama.model.layer_kinds import (
    Attention,
    DeltaNet,
    LatentAttention,
    Layer,
    Mamba2,
    ShortConvolution,
    source_of,
)

MARGIN = 64  # positions before the window that stay when it slides, so that a draft can be dropped
STEP = 128  # the capacity of a window is a multiple of this


@dataclass(frozen=True)
class StateGrowth:
    """Bytes of the states of one text, by the way they grow.

    per_token: of each token, without end. windows: of all sliding windows at the training context. recurrent: of the
    states that have the same size for every text. The others: numbers of layers.
    """

    per_token: int
    windows: int
    recurrent: int
    growing_layers: int
    window_layers: int
    recurrent_layers: int


def state_growth(config: Config, types: CacheTypes, chunk: int) -> StateGrowth:
    """Growth of the states of a model.

    chunk: most tokens of a pass, see `empty_cache`.
    Raises OptionError where a head does not divide into blocks of its type.
    """
    recurrent = [layer for layer in config.layers if layer.is_recurrent]
    windows = [layer for layer in config.layers if slides(layer, chunk)]
    others = [layer for layer in config.layers if not layer.is_recurrent and not slides(layer, chunk)]
    growing = [layer for layer in others if state_bytes(layer, 1, types)]
    return StateGrowth(
        sum(position_bytes(layer, types) for layer in growing),
        sum(state_bytes(layer, config.context_length, types, chunk=chunk) for layer in windows),
        sum(state_bytes(layer, 1, types) for layer in recurrent),
        len(growing),
        len(windows),
        len(recurrent),
    )


def cache_bytes(config: Config, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> int:
    """Bytes of a cache: the states of all layers; see `empty_cache`."""
    return sum(state_bytes(layer, capacity, types, batch, chunk) for layer in config.layers)


def state_bytes(layer: Layer, capacity: int, types: CacheTypes, batch: int = 1, chunk: int | None = None) -> int:
    """Bytes of one layer's state.

    Of a recurrent layer the same for every capacity; 0 where a layer reads the state of another one.
    """
    if source_of(layer) is not None:
        return 0
    if slides(layer, chunk):
        capacity = min(capacity, window_capacity(layer.sliding_window, chunk))
    if isinstance(layer, DeltaNet):
        return 4 * batch * (layer.value_channels * layer.size + layer.channels * (layer.taps - 1))
    if isinstance(layer, Mamba2):
        return 4 * batch * (layer.inner * layer.state_length + layer.channels * (layer.taps - 1))
    if isinstance(layer, ShortConvolution):
        return 4 * batch * layer.channels * (layer.taps - 1)
    return batch * capacity * position_bytes(layer, types)


def position_bytes(layer: Layer, types: CacheTypes) -> int:
    """Bytes that a layer, or its source, keeps of each position.

    Raises OptionError where a head does not divide into blocks of its type, and for latents of two types.
    """
    if isinstance(layer, Attention):
        return layer.head_count_kv * types.head_bytes(layer.key_length, layer.value_length)
    if isinstance(layer, LatentAttention):
        return types.latent_bytes(layer.cached_length)
    return 0


def checkpoint_bytes(config: Config, types: CacheTypes, chunk: int) -> int:
    """Bytes of the states that cannot go back, of one text."""
    layers = [layer for layer in config.layers if layer.is_recurrent or slides(layer, chunk)]
    return sum(state_bytes(layer, 1 << 30, types, chunk=chunk) for layer in layers)


def slides(layer: Layer, chunk: int | None) -> TypeGuard[Attention]:
    """Whether a layer keeps a sliding window only."""
    has_window = isinstance(layer, Attention) and layer.sliding_window > 0 and layer.source is None
    return chunk is not None and has_window


def window_capacity(window: int, chunk: int) -> int:
    """Positions that are held for a sliding window, and for chunks of `chunk` tokens."""
    return -(-(window + MARGIN + chunk) // STEP) * STEP
