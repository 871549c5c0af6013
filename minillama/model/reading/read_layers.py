"""Read the kind of every layer from GGUF metadata: heads, windows, rotation."""

import math

import numpy as np

from minillama.errors import FormatError
from minillama.model.architectures import Family, Scales
from minillama.model.config import Rope
from minillama.model.layer_kinds import Attention, Layer
from minillama.model.reading.head_lengths import HeadLengths
from minillama.model.reading.metadata_keys import MetadataKeys
from minillama.model.reading.read_delta_net import read_delta_net_layers
from minillama.model.reading.read_latent_layers import read_latent_layers
from minillama.model.reading.read_marked_layers import read_marked_layers
from minillama.model.reading.shared_layers import check_source, read_sources


def read_layers(
    keys: MetadataKeys,
    row: Family,
    windows: tuple[int, ...],
    lengths: HeadLengths,
    local_lengths: HeadLengths,
    ropes: tuple[Rope, ...],
) -> tuple[Layer, ...]:
    """The kinds of the layers.

    windows: of each layer, see `read_windows`. lengths, local_lengths: of heads without and with a window.
    ropes: of layers without a window, then that of those with one if it differs.
    """
    blocks, width = len(windows), keys.integer("embedding_length")
    if row.latent:
        return read_latent_layers(keys, blocks, ropes[0])
    heads = keys.integers("attention.head_count", blocks)
    others = read_marked_layers(keys, row, blocks)
    kv_heads = keys.integers("attention.head_count_kv", blocks, heads[0], 0 if row.other_mixer else 1)
    scale = keys.number("attention.scale", 0.0) if row.scales is Scales.GRANITE else row.attention_scale
    rotates, sources = _read_rotation(keys, row, windows), read_sources(keys, row, windows)
    layers: list[Layer] = []
    for i in range(blocks):
        if (other := others[i]) is not None:
            layers.append(other)
            continue
        if heads[i] % kv_heads[i]:
            raise FormatError(f"{heads[i]} query heads do not divide among {kv_heads[i]} key/value heads")
        key, value = local_lengths if windows[i] else lengths
        default = 1 / math.sqrt(width / heads[i] if blocks in row.wide_heads else key)
        rope = (len(ropes) - 1 if windows[i] else 0) if rotates[i] else None
        layer = Attention(
            heads[i],
            kv_heads[i],
            key,
            value,
            scale or default,
            rope,
            windows[i],
            has_gate=row.gated_attention,
            norms_values=row.norms_values,
            source=sources[i],
        )
        if layer.source is not None:
            check_source(i, layer, layers[layer.source])
        layers.append(layer)
    return tuple(layers) if row.delta_net is None else read_delta_net_layers(keys, row.delta_net, layers)


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
    size = keys.integer("attention.sliding_window", row.default_window, 1 if row.default_window is None else 0)
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
