"""Gated DeltaNet's heads: split of interleaved projections, and the order of value heads.

A key head serves several value heads. Transformers stores the value heads of a key head together. llama.cpp tiles the
key heads instead: value head j uses key head j % key heads (https://github.com/ggml-org/llama.cpp/pull/19468).
"""

from collections.abc import Callable

import numpy as np

from minillama.convert.folder.folder_config import FolderConfig
from minillama.convert.weights.lazy_weight import LazyWeight
from minillama.errors import FormatError


def tile_value_heads(weight: LazyWeight, config: FolderConfig) -> LazyWeight:
    """Any tensor of a DeltaNet layer with its value heads in llama.cpp's order."""
    keys, values = config.size("linear_num_key_heads"), config.size("linear_num_value_heads")
    size, key_rows = config.size("linear_value_head_dim"), 2 * keys * config.size("linear_key_head_dim")
    if keys == values:
        return weight
    if values % keys:
        raise FormatError(f"config.json: {values} value heads (linear_num_value_heads) are no multiple of {keys}")

    def tiled(head: int, axis: int = 0, start: int = 0) -> Callable[[np.ndarray], np.ndarray]:
        if weight.shape[axis] != start + values * head:
            raise FormatError(f"{weight.name} has the shape {list(weight.shape)}, not that of config.json's heads")
        order = _tiled_order(keys, values, head, start)
        return lambda array: array.take(order, axis)

    part = weight.name.partition("linear_attn.")[2]
    if part.startswith(("in_proj_qkv.", "conv1d.")):
        return weight.changed(tiled(size, start=key_rows))
    if part.startswith("in_proj_z."):
        return weight.changed(tiled(size))
    if part.startswith(("in_proj_a.", "in_proj_b.", "A_log", "dt_bias", "dt_proj.")):
        return weight.changed(tiled(1))
    return weight.changed(tiled(size, axis=1)) if part.startswith("out_proj.") else weight


def _tiled_order(keys: int, values: int, head: int, start: int) -> np.ndarray:
    """Old positions of the new rows: the first `start` rows stay."""
    moved = np.arange(values * head).reshape(keys, values // keys, head).swapaxes(0, 1).reshape(-1)
    return np.concatenate([np.arange(start), start + moved])


def split_interleaved_heads(weight: LazyWeight, config: FolderConfig) -> list[LazyWeight]:
    """Qwen3-Next's in_proj_qkvz: queries, keys and values of all heads, and the gates z.

    The rows of each key head are together: its query, its key, its values, its gates.
    """
    keys, key = config.size("linear_num_key_heads"), config.size("linear_key_head_dim")
    value = config.size("linear_num_value_heads") // keys * config.size("linear_value_head_dim")
    rows, width = keys * (2 * key + 2 * value), weight.shape[-1]
    if weight.shape[0] != rows:
        raise FormatError(f"{weight.name} has {weight.shape[0]} rows; config.json's DeltaNet heads need {rows}")

    def part(*ranges: tuple[int, int]) -> Callable[[np.ndarray], np.ndarray]:
        def take(array: np.ndarray) -> np.ndarray:
            heads = array.reshape(keys, -1, width)
            return np.concatenate([heads[:, start:end].reshape(-1, width) for start, end in ranges])

        return take

    layer = weight.name.rpartition("in_proj_qkvz")[0]
    qkv = part((0, key), (key, 2 * key), (2 * key, 2 * key + value))
    z = part((2 * key + value, 2 * key + 2 * value))
    return [
        weight.changed(qkv, (keys * (2 * key + value), width)).renamed(f"{layer}in_proj_qkv.weight"),
        weight.changed(z, (keys * value, width)).renamed(f"{layer}in_proj_z.weight"),
    ]
