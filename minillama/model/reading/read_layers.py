"""Read the kind of every layer from GGUF metadata: heads, windows, rotation."""

import math
from dataclasses import replace

import numpy as np

from minillama.errors import FormatError, UnsupportedError
from minillama.model.architectures import Family, Scales
from minillama.model.config import Rope
from minillama.model.layer_kinds import Attention, Layer
from minillama.model.reading.metadata_keys import MetadataKeys
from minillama.model.reading.read_delta_net import read_delta_net_layers
from minillama.model.reading.read_latent_layers import read_latent_layers


def read_layers(
    keys: MetadataKeys, row: Family, width: int, blocks: int, windows: tuple[int, ...], rope: Rope, *, local_rope: bool
) -> tuple[Layer, ...]:
    """The kinds of `blocks` layers.

    windows: of each layer, see `read_windows`; local_rope: layers with one have the second rope of the config, others
    the first, `rope`.
    """
    if row.latent:
        return read_latent_layers(keys, blocks, rope)
    heads = keys.integers("attention.head_count", blocks)
    kv_heads = keys.integers("attention.head_count_kv", blocks, heads[0])
    key_length, value_length = head_lengths(keys, width, heads[0])
    scale = keys.number("attention.scale", 0.0) if row.scales is Scales.GRANITE else 0.0
    rotates = _read_rotation(keys, row, windows)
    layers = []
    for i in range(blocks):
        if heads[i] % kv_heads[i]:
            raise FormatError(f"{heads[i]} query heads do not divide among {kv_heads[i]} key/value heads")
        default = 1 / math.sqrt(width / heads[i] if blocks in row.wide_heads else key_length)
        number = (1 if local_rope and windows[i] else 0) if rotates[i] else None
        attention = Attention(heads[i], kv_heads[i], key_length, value_length, scale or default, number, windows[i])
        layers.append(replace(attention, has_gate=row.gated_attention))
    return tuple(layers) if row.delta_net is None else read_delta_net_layers(keys, row.delta_net, layers)


def head_lengths(keys: MetadataKeys, width: int, heads: int) -> tuple[int, int]:
    """Sizes of a key and of a value."""
    return keys.integer("attention.key_length", width // heads), keys.integer("attention.value_length", width // heads)


def _read_rotation(keys: MetadataKeys, row: Family, windows: tuple[int, ...]) -> list[bool]:
    """Whether each layer rotates queries and keys."""
    if row.finetuned_is_rope and not keys.flag("rope.scaling.finetuned", True):
        return [False] * len(windows)
    if row.rope_in_windows and any(windows):
        return [window > 0 for window in windows]
    period = row.no_rope_period
    return [period is None or (layer + 1) % period > 0 for layer in range(len(windows))]


def read_windows(keys: MetadataKeys, row: Family, blocks: int) -> tuple[int, ...]:
    """The sliding window of each layer, 0 for none, by file or family."""
    if row.window_period is None or (row.window_layers and blocks not in row.window_layers):
        return (0,) * blocks
    has_window = _read_pattern(keys, row.window_period, blocks)
    size = keys.integer("attention.sliding_window", row.default_window, 0)
    return tuple(size if is_local else 0 for is_local in has_window)


def _read_pattern(keys: MetadataKeys, period: int, blocks: int) -> tuple[bool, ...]:
    """Whether each layer has the sliding window.

    The key sliding_window_pattern has a value for each layer, or a number n: every n-th layer attends to all positions.
    """
    name = "attention.sliding_window_pattern"
    pattern = keys.find(name)
    if isinstance(pattern, np.ndarray):
        if pattern.dtype.kind not in "bui" or len(pattern) < blocks:
            raise FormatError(
                f"metadata key {keys.prefix}.{name} has {len(pattern)} values; expected one for each of {blocks} layers"
            )
        return tuple(bool(value) for value in pattern[:blocks])
    period = keys.integer(name, period, least=0)
    return tuple(period == 0 or layer % period < period - 1 for layer in range(blocks))


def check_equal_heads(keys: MetadataKeys, key_length: int, value_length: int, rotating: int) -> None:
    """Raise UnsupportedError where heads of windowed layers have another size."""
    lengths = {
        "attention.key_length_swa": key_length,
        "attention.value_length_swa": value_length,
        "rope.dimension_count_swa": rotating,
    }
    for key, length in lengths.items():
        if (found := keys.integer(key, length)) != length:
            raise UnsupportedError(
                f"metadata key {keys.prefix}.{key} is {found}, but {length} in layers without a window; not supported"
            )
